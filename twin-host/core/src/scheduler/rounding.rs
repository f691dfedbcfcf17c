//! From the answers at the dual prices to a good joint decision: single and paired changes of choice while they help.

use super::candidates::{OpenDevice, open_devices};
use super::cost::Choice;
use super::decision::Decision;
use super::loads::Loads;
use super::objective::SharedCost;
use super::prices::{Prices, Response};
use super::problem::Scenario;

/// The sums that a set of choices comes to.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) compute: f64,
    pub(crate) channels: Vec<f64>,
    pub(crate) fixed: f64,
}

impl Tally {
    pub(crate) fn new(scenario: &Scenario, choices: &[Choice]) -> Self {
        let mut tally = Self { compute: 0.0, channels: vec![0.0; scenario.bandwidths.len()], fixed: 0.0 };
        for (device, &choice) in choices.iter().enumerate() {
            let load = scenario.load(device, choice);
            tally.compute += load.compute_root;
            tally.channels[scenario.devices[device].group()] += load.channel_root;
            tally.fixed += load.fixed;
        }
        tally
    }

    /// By how much Eq. (6) changes if one device chooses anew, for links without caps.
    pub(crate) fn change(
        &self,
        scenario: &Scenario,
        costs: &SharedCost,
        device: usize,
        from: Choice,
        to: Choice,
    ) -> f64 {
        let (old, new) = (scenario.load(device, from), scenario.load(device, to));
        let group = scenario.devices[device].group();
        let (cost, sum) = (&costs.channels[group], self.channels[group]);
        let compute = self.compute + new.compute_root - old.compute_root;
        costs.of_compute(compute) - costs.of_compute(self.compute)
            + (cost.of(sum + new.channel_root - old.channel_root) - cost.of(sum))
            + (new.fixed - old.fixed)
    }

    /// One device chooses anew.
    pub(crate) fn exchange(&mut self, scenario: &Scenario, device: usize, from: Choice, to: Choice) {
        let (old, new) = (scenario.load(device, from), scenario.load(device, to));
        self.compute += new.compute_root - old.compute_root;
        self.channels[scenario.devices[device].group()] += new.channel_root - old.channel_root;
        self.fixed += new.fixed - old.fixed;
    }

    /// Eq. (6) with every share at its best, for links without caps.
    pub(crate) fn objective(&self, costs: &SharedCost) -> f64 {
        let channels: f64 = costs.channels.iter().zip(&self.channels).map(|(cost, &sum)| cost.of(sum)).sum();
        costs.of_compute(self.compute) + channels + self.fixed
    }
}

/// Choices listed for the paired search at most: it looks at the square of them.
const CANDIDATES: usize = 1_500;
/// Rounds of the search; each but the last strictly improves.
const ROUNDS: usize = 40;
/// Devices up to which capped links, whose sums have no closed form, are searched by whole evaluations.
const CAPPED_DEVICES: usize = 64;

/// Improves `choices` in place by changes of one device, or of two at once, that lower Eq. (6); `choices` are the
/// `answers` at `prices`, whose bound rules out most changes.
pub(crate) fn improve(
    scenario: &Scenario,
    loads: &impl Loads,
    costs: &SharedCost,
    prices: &Prices,
    answers: &Response,
    choices: &mut [Choice],
) {
    if scenario.is_capped() {
        if choices.len() <= CAPPED_DEVICES {
            improve_capped(scenario, loads, choices);
        }
        return;
    }
    // The answers are the choices, and without caps the response has their sums.
    let (compute, channels, fixed) = (answers.compute_sum, answers.channel_sums.clone(), answers.fixed);
    let mut tally = Tally { compute, channels, fixed };
    let mut objective = tally.objective(costs);
    let (mut open, mut complete) = (Vec::new(), false);
    for _ in 0..ROUNDS {
        let gap = objective - answers.bound;
        if complete {
            // A smaller gap leaves fewer of the same choices open.
            open.retain_mut(|device: &mut OpenDevice| {
                device.candidates.retain(|candidate| candidate.reduced <= gap);
                device.candidates.len() > 1
            });
        } else {
            (open, complete) = open_devices(loads, costs, prices, gap, CANDIDATES);
        }
        let Some(better) = best_change(scenario, costs, &tally, choices, &open, objective) else {
            return;
        };
        for (device, choice) in better.into_iter().flatten() {
            tally.exchange(scenario, device, choices[device], choice);
        }
        let reached = tally.objective(costs);
        if reached >= objective {
            return;
        }
        for (device, choice) in better.into_iter().flatten() {
            choices[device] = choice;
        }
        objective = reached;
    }
}

/// One device's new choice.
type Change = Option<(usize, Choice)>;

/// The change of one or two devices that lowers the objective most.
fn best_change(
    scenario: &Scenario,
    costs: &SharedCost,
    tally: &Tally,
    choices: &[Choice],
    open: &[OpenDevice],
    objective: f64,
) -> Option<[Change; 2]> {
    /// A change as differences of the sums.
    struct Shift {
        device: usize,
        group: usize,
        choice: Choice,
        compute: f64,
        channel: f64,
        fixed: f64,
    }
    let shifts: Vec<Shift> = open
        .iter()
        .flat_map(|open| {
            let now = scenario.load(open.device, choices[open.device]);
            let others = open.candidates.iter().filter(|c| c.choice != choices[open.device]);
            others.map(move |candidate| Shift {
                device: open.device,
                group: open.group,
                choice: candidate.choice,
                compute: candidate.load.compute_root - now.compute_root,
                channel: candidate.load.channel_root - now.channel_root,
                fixed: candidate.load.fixed - now.fixed,
            })
        })
        .collect();
    let channel_cost = |group: usize, shift: f64| {
        let (cost, sum) = (&costs.channels[group], tally.channels[group]);
        cost.of(sum + shift) - cost.of(sum)
    };
    let mut best = -1e-13 * objective.abs();
    let mut found = None;
    for (index, a) in shifts.iter().enumerate() {
        let single = costs.of_compute(tally.compute + a.compute) - costs.of_compute(tally.compute)
            + channel_cost(a.group, a.channel)
            + a.fixed;
        if single < best {
            best = single;
            found = Some([Some((a.device, a.choice)), None]);
        }
        for b in &shifts[index + 1..] {
            if b.device == a.device {
                continue;
            }
            let channels = if a.group == b.group {
                channel_cost(a.group, a.channel + b.channel)
            } else {
                channel_cost(a.group, a.channel) + channel_cost(b.group, b.channel)
            };
            let both = costs.of_compute(tally.compute + a.compute + b.compute) - costs.of_compute(tally.compute)
                + channels
                + a.fixed
                + b.fixed;
            if both < best {
                best = both;
                found = Some([Some((a.device, a.choice)), Some((b.device, b.choice))]);
            }
        }
    }
    found
}

/// Single changes by whole evaluations, for capped links.
fn improve_capped(scenario: &Scenario, loads: &impl Loads, choices: &mut [Choice]) {
    let value = |choices: &[Choice]| Decision::of_choices(scenario, "rounding", choices).objective;
    let mut objective = value(choices);
    for _ in 0..ROUNDS {
        let mut improved = false;
        for device in 0..choices.len() {
            let mut options = Vec::new();
            loads.visit(device, |choice, _| options.push(choice));
            for option in options {
                let kept = std::mem::replace(&mut choices[device], option);
                let reached = value(choices);
                if reached < objective {
                    objective = reached;
                    improved = true;
                } else {
                    choices[device] = kept;
                }
            }
        }
        if !improved {
            return;
        }
    }
}
