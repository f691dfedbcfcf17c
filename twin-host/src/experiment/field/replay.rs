//! A recorded run decided again by another policy, without any board. PURE.
//!
//! Every question that was asked is asked again, in the same order; what a device has when it is asked is what this
//! policy gave it before, and a site changes only for a gain above the hysteresis, as it was live. What boards would
//! have measured elsewhere is not known: the questions hold what they measured, and Eq. (6) says what it comes to.

use std::collections::BTreeMap;

use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::hysteresis::{Settled, steady};
use twin_core::scheduler::learning::TrainingError;
use twin_core::scheduler::policy::{Policy, PolicyError, PolicyKind};
use twin_core::scheduler::{Choice, Decision};
use twin_shared::model::Site;

use crate::recording::Moment;

/// How a run is decided again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Terms {
    pub(crate) policy: PolicyKind,
    /// Relative gain for which a site changes; as recorded without one.
    pub(crate) hysteresis: Option<f64>,
    /// Episodes of a table's training.
    pub(crate) episodes: u64,
    /// As recorded without one.
    pub(crate) seed: Option<u64>,
}

/// A run, decided again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replay {
    pub(crate) policy: &'static str,
    pub(crate) turns: Vec<Turn>,
}

/// One question's new answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    pub(crate) job: u32,
    pub(crate) number: u32,
    /// Seconds until the next question, or the end: what this answer weighs.
    pub(crate) holds_s: f64,
    /// Eq. (6), the sum over the devices.
    pub(crate) objective: f64,
    pub(crate) average_delay_s: f64,
    /// Devices whose site changed.
    pub(crate) moved: usize,
    /// Devices that get what they got in the recorded run.
    pub(crate) as_recorded: usize,
    /// Student and site by device, in the question's order.
    pub(crate) given: Vec<(String, String, Site)>,
}

/// Why a run cannot be decided again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// A policy's table.
    #[error("decision {number}: {policy} cannot be trained: {error}")]
    Training { policy: PolicyKind, number: u32, error: TrainingError },
    /// A policy's answer.
    #[error("decision {number}: {policy} has no answer: {error}")]
    Answer { policy: PolicyKind, number: u32, error: PolicyError },
}

impl Replay {
    /// Mean of a turn's figure, each for as long as it held; the plain mean where nothing held for any time.
    fn mean(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        let total: f64 = self.turns.iter().map(|turn| turn.holds_s).sum();
        if total > 0.0 {
            self.turns.iter().map(|turn| of(turn) * turn.holds_s).sum::<f64>() / total
        } else {
            self.turns.iter().map(of).sum::<f64>() / self.turns.len() as f64
        }
    }

    /// Eq. (6) in the mean over time.
    pub(crate) fn objective(&self) -> f64 {
        self.mean(|turn| turn.objective)
    }

    /// The epoch's delay in the mean over devices and time, seconds.
    pub(crate) fn average_delay(&self) -> f64 {
        self.mean(|turn| turn.average_delay_s)
    }

    /// Changes of site.
    pub(crate) fn moved(&self) -> usize {
        self.turns.iter().map(|turn| turn.moved).sum()
    }

    /// Answers that give every device what it got in the recorded run.
    pub(crate) fn as_recorded(&self) -> usize {
        self.turns.iter().filter(|turn| turn.as_recorded == turn.given.len()).count()
    }

    /// Part of the devices' time that is spent training on the boards.
    pub(crate) fn local(&self) -> f64 {
        self.mean(|turn| {
            let local = turn.given.iter().filter(|(_, _, site)| *site == Site::Local).count();
            local as f64 / turn.given.len().max(1) as f64
        })
    }
}

/// Decides a run again; `end` is when the last answer no longer held, seconds since 1970.
pub(crate) fn replay(moments: &[Moment], end: f64, terms: &Terms) -> Result<Replay, ReplayError> {
    let Terms { policy: kind, .. } = *terms;
    let mut prepared: Option<(Box<dyn Policy + Send + Sync>, Family)> = None;
    let mut present: Option<BTreeMap<String, (String, Site)>> = None;
    let mut turns = Vec::with_capacity(moments.len());
    for (index, moment) in moments.iter().enumerate() {
        let (scenario, number) = (&moment.scenario, moment.number);
        let seed = terms.seed.unwrap_or(moment.answered.seed);
        let known = prepared.take().filter(|(policy, family)| policy.table().is_none() || family.covers(scenario));
        let (policy, family) = match known {
            Some(known) => known,
            None => {
                let family = Family::around(scenario.clone());
                let config = kind.training().map(|config| config.suited_to(&family)).map(|mut config| {
                    config.episodes = terms.episodes;
                    config
                });
                let trained = kind.prepare(&family, config.as_ref(), &mut generator(seed, 0), &mut |_| {});
                let (policy, _) = trained.map_err(|error| ReplayError::Training { policy: kind, number, error })?;
                (policy, family)
            }
        };
        let wished = policy.decide(scenario, &mut generator(seed, 1));
        let wished = wished.map_err(|error| ReplayError::Answer { policy: kind, number, error })?;
        // What a device had when the recording began it had whatever would have been decided.
        let had = present.get_or_insert_with(|| moment.had());
        let names: Vec<String> = scenario.devices().iter().map(|device| device.id().to_string()).collect();
        let before: Vec<Option<Choice>> =
            names.iter().map(|name| had.get(name).and_then(|(model, site)| moment.choice(model, *site))).collect();
        let hysteresis = terms.hysteresis.unwrap_or(moment.answered.hysteresis);
        let steadied = steady(scenario, &before, &wished.choices(), hysteresis);
        let decision = if steadied.choices == wished.choices() {
            wished
        } else {
            Decision::of_choices(scenario, kind.name(), &steadied.choices)
        };
        let given: Vec<(String, String, Site)> = names
            .iter()
            .zip(&steadied.choices)
            .map(|(name, choice)| {
                (name.clone(), scenario.models()[usize::from(choice.model)].name.clone(), choice.site)
            })
            .collect();
        had.extend(given.iter().map(|(name, model, site)| (name.clone(), (model.clone(), *site))));
        let recorded = moment.answered.devices.iter().map(|got| (&got.id, &got.model, got.site));
        let as_recorded =
            given.iter().zip(recorded).filter(|((id, model, site), got)| (id, model, *site) == *got).count();
        let moved = steadied.settled.iter().filter(|settled| matches!(settled, Settled::Moved { .. })).count();
        let until = moments.get(index + 1).map_or(end, |next| next.at);
        turns.push(Turn {
            job: moment.job,
            number,
            holds_s: (until - moment.at).max(0.0),
            objective: decision.objective,
            average_delay_s: decision.average_delay().0,
            moved,
            as_recorded,
            given,
        });
        prepared = Some((policy, family));
    }
    Ok(Replay { policy: kind.name(), turns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::{Answered, Got, Had};
    use twin_core::scheduler::Scenario;

    const EPISODES: u64 = 2000;

    fn terms(policy: PolicyKind) -> Terms {
        Terms { policy, hysteresis: None, episodes: EPISODES, seed: None }
    }

    /// A run of this many questions, as one policy answers them live.
    fn recorded(kind: PolicyKind, questions: u64) -> Vec<Moment> {
        let family = Family::fleet(3).expect("a family");
        let first = family.draw(&mut generator(1, 0)).expect("a fleet");
        let around = Family::around(first.clone());
        let scenarios: Vec<Scenario> = std::iter::once(first)
            .chain((1..questions).map(|k| around.draw(&mut generator(2, k)).expect("near the first")))
            .collect();
        let blank = |scenario: Scenario, k: u32| Moment {
            at: f64::from(k) * 10.0,
            job: 1,
            number: k + 1,
            answered: Answered {
                policy: kind.name().to_owned(),
                seed: 7,
                hysteresis: 0.05,
                objective: 0.0,
                average_delay_s: 0.0,
                present: Vec::new(),
                devices: Vec::new(),
            },
            scenario,
        };
        let mut moments: Vec<Moment> = scenarios.into_iter().zip(0..).map(|(s, k)| blank(s, k)).collect();
        let replayed = replay(&moments, 100.0, &terms(kind)).expect("it answers");
        for (moment, turn) in moments.iter_mut().zip(replayed.turns) {
            let got = turn.given.into_iter().map(|(id, model, site)| Got {
                id,
                model,
                site,
                delay_s: 0.0,
                why: String::new(),
            });
            moment.answered.devices = got.collect();
            moment.answered.objective = turn.objective;
        }
        moments
    }

    #[test]
    fn the_recorded_policy_gives_what_was_recorded() {
        for kind in [PolicyKind::Exact, PolicyKind::QLearning, PolicyKind::AllHost] {
            let moments = recorded(kind, 5);
            let again = replay(&moments, 100.0, &terms(kind)).expect("it answers");
            assert_eq!(again.as_recorded(), moments.len(), "{kind}");
            for (turn, moment) in again.turns.iter().zip(&moments) {
                assert_eq!(turn.objective.to_bits(), moment.answered.objective.to_bits(), "{kind}");
            }
        }
    }

    #[test]
    fn another_policy_gives_another_run_and_the_best_is_no_worse() {
        let moments = recorded(PolicyKind::AllHost, 5);
        let free = |policy| Terms { hysteresis: Some(0.0), ..terms(policy) };
        let host = replay(&moments, 100.0, &free(PolicyKind::AllHost)).expect("it answers");
        let best = replay(&moments[..1], 100.0, &free(PolicyKind::Exact)).expect("it answers");
        assert_eq!((host.local(), host.moved()), (0.0, 0));
        assert!(best.turns[0].objective <= host.turns[0].objective, "{best:?} {host:?}");
    }

    #[test]
    fn an_answer_weighs_as_long_as_it_held() {
        let moments = recorded(PolicyKind::AllHost, 3);
        let replayed = replay(&moments, 50.0, &terms(PolicyKind::AllHost)).expect("it answers");
        let held: Vec<f64> = replayed.turns.iter().map(|turn| turn.holds_s).collect();
        assert_eq!(held, [10.0, 10.0, 30.0]);
        let expected = replayed.turns.iter().map(|turn| turn.objective * turn.holds_s).sum::<f64>() / 50.0;
        assert!((replayed.objective() - expected).abs() < 1e-12 * expected.abs().max(1.0));
    }

    #[test]
    fn what_was_there_when_the_recording_began_stays_unless_a_move_is_worth_it() {
        let mut moments = recorded(PolicyKind::Exact, 1);
        let scenario = &moments[0].scenario;
        let device = scenario.devices()[0].id().to_string();
        let model = scenario.models()[0].name.clone();
        moments[0].answered.present =
            vec![Some(Had { device: device.clone(), model: model.clone(), site: Site::Host })];
        let stuck = Terms { hysteresis: Some(f64::INFINITY), ..terms(PolicyKind::AllLocal) };
        let replayed = replay(&moments, 50.0, &stuck).expect("it answers");
        assert_eq!(replayed.turns[0].given[0], (device, model, Site::Host));
    }
}
