//! Policies compared over random draws: Tables 3 and 4, and what learned tables reach.

pub(crate) mod curve;
pub(crate) mod learning;
pub(crate) mod report;

use anyhow::Context;
use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::learning::CurvePoint;
use twin_core::scheduler::policy::PolicyKind;
use twin_core::scheduler::{Accuracy, Decision, Delay, Scenario};
use twin_shared::model::Site;

/// One policy's decision on one draw, per device.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) trial: u64,
    pub(crate) objective: f64,
    pub(crate) delay: Delay,
    pub(crate) accuracy: Accuracy,
    /// Fraction of devices with each student.
    pub(crate) students: Vec<f64>,
    /// Fraction of devices that train on the board.
    pub(crate) local: f64,
}

/// All trials of one row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) policy: String,
    pub(crate) trials: Vec<Trial>,
    /// Of the policy's training, empty if it has none.
    pub(crate) curve: Vec<CurvePoint>,
}

/// Everything that a run of the experiment found.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) students: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// Stream of the generator that trains; draws take their own numbers.
const TRAINING_STREAM: u64 = u64::MAX;

/// Prepares every policy on draws of its own and lets it decide `trials` others. Federated policies appear twice, the
/// second time with the accuracy that federated averaging reaches, where the scenario knows it.
pub(crate) fn run(
    family: &Family,
    kinds: &[PolicyKind],
    trials: u64,
    seed: u64,
    progress: &mut dyn FnMut(&str, f64),
) -> anyhow::Result<Outcome> {
    let draws: Vec<Scenario> = (0..trials)
        .map(|trial| family.draw(&mut generator(seed, trial)))
        .collect::<Result<_, _>>()
        .context("the draws cannot be made")?;
    let students = draws[0].models().iter().map(|model| model.name.clone()).collect();
    let mut rows = Vec::new();
    for (index, &kind) in kinds.iter().enumerate() {
        let episodes = kind.training().map_or(1, |config| config.episodes) as f64;
        let mut at = |done: u64| progress(kind.name(), index as f64 + 0.9 * done as f64 / episodes);
        // Trained on another seed: what it decides, it has not seen.
        let rng = &mut generator(seed ^ TRAINING_SEED, TRAINING_STREAM);
        let (policy, curve) = kind.prepare(family, None, rng, &mut at).with_context(|| format!("{kind}"))?;
        let rng = &mut generator(seed, TRAINING_STREAM - 1);
        let mut row = Row { policy: kind.name().into(), trials: Vec::with_capacity(draws.len()), curve };
        let mut federated = Row { policy: format!("{kind}, FL accuracy"), trials: Vec::new(), curve: Vec::new() };
        for (trial, scenario) in (0..).zip(&draws) {
            let decision = policy.decide(scenario, rng).with_context(|| format!("{kind}, trial {trial}"))?;
            row.trials.push(measured(scenario, &decision, trial));
            let as_federated = match kind {
                PolicyKind::FlMin | PolicyKind::FlMax => scenario.with_federated_accuracy(),
                PolicyKind::QLearning
                | PolicyKind::QLearningJoint
                | PolicyKind::QLearningOnly
                | PolicyKind::Exact
                | PolicyKind::Dual
                | PolicyKind::AllLocal
                | PolicyKind::AllHost
                | PolicyKind::BestConstant
                | PolicyKind::Random => None,
            };
            if let Some(scenario) = as_federated {
                let decision = Decision::of_choices(&scenario, kind.name(), &decision.choices());
                federated.trials.push(measured(&scenario, &decision, trial));
            }
        }
        rows.push(row);
        if !federated.trials.is_empty() {
            rows.push(federated);
        }
    }
    Ok(Outcome { students, rows })
}

/// Sets the seed of training apart from that of the trials.
const TRAINING_SEED: u64 = 0x7472_6169_6e00;

fn measured(scenario: &Scenario, decision: &Decision, trial: u64) -> Trial {
    let devices = decision.devices.len() as f64;
    let fraction = |is: &dyn Fn(usize, Site) -> bool| {
        let matching = decision.devices.iter().filter(|d| is(usize::from(d.choice.model), d.choice.site));
        matching.count() as f64 / devices
    };
    Trial {
        trial,
        objective: decision.objective / devices,
        delay: decision.mean_delay(),
        accuracy: decision.mean_accuracy(scenario),
        students: (0..scenario.models().len()).map(|student| fraction(&|model, _| model == student)).collect(),
        local: fraction(&|_, site| site == Site::Local),
    }
}
