//! What one device's change of mind is worth: Eq. (6) as it would be with one choice changed and every share at its
//! best again. It answers why a device got what it got, and whether a change is worth making.

use super::cost::{Choice, CostTerms};
use super::decision::Decision;
use super::objective::SharedCost;
use super::problem::Scenario;
use super::rounding::Tally;

/// A set of choices, and what single changes to it are worth.
#[derive(Debug, Clone)]
pub struct Position<'a> {
    scenario: &'a Scenario,
    costs: SharedCost,
    tally: Tally,
    choices: Vec<Choice>,
}

impl<'a> Position<'a> {
    /// These choices, one a device, all permitted.
    #[must_use]
    pub fn new(scenario: &'a Scenario, choices: Vec<Choice>) -> Self {
        Self { costs: SharedCost::new(scenario), tally: Tally::new(scenario, &choices), scenario, choices }
    }

    /// The choices.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// By how much Eq. (6) would change if `device` alone chose `to`; negative is better. O(1) without capped links.
    #[must_use]
    pub fn change(&self, device: usize, to: Choice) -> f64 {
        if self.scenario.is_capped() {
            let mut changed = self.choices.clone();
            changed[device] = to;
            let value = |choices: &[Choice]| Decision::of_choices(self.scenario, "a change", choices).objective;
            return value(&changed) - value(&self.choices);
        }
        self.tally.change(self.scenario, &self.costs, device, self.choices[device], to)
    }

    /// `device` chooses `to` from now on.
    pub fn apply(&mut self, device: usize, to: Choice) {
        self.tally.exchange(self.scenario, device, self.choices[device], to);
        self.choices[device] = to;
    }

    /// The decision that these choices are, with their best shares.
    #[must_use]
    pub fn decision(&self, policy: &'static str) -> Decision {
        Decision::of_choices(self.scenario, policy, &self.choices)
    }

    /// Every other choice that a device may have, with what Eq. (6) would change by; the best first.
    #[must_use]
    pub fn alternatives(&self, device: usize) -> Vec<(Choice, f64)> {
        let mut found = Vec::new();
        self.scenario.for_each_load(device, |choice, _| {
            if choice != self.choices[device] {
                found.push((choice, self.change(device, choice)));
            }
        });
        found.sort_by(|a, b| a.1.total_cmp(&b.1));
        found
    }
}

/// The terms of Eq. (6) for each device of a decision.
#[must_use]
pub fn terms(scenario: &Scenario, decision: &Decision) -> Vec<CostTerms> {
    let decided = decision.devices.iter().enumerate();
    decided
        .map(|(device, answer)| scenario.cost_terms(device, answer.choice, answer.frequency, answer.bandwidth))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::family::{Family, generator};
    use crate::scheduler::policy::{Policy, Random};

    #[test]
    fn a_change_is_the_difference_of_two_whole_decisions() {
        for seed in 0..20 {
            let scenario = Family::fleet(6).and_then(|f| f.draw(&mut generator(seed, 0))).expect("sound");
            let choices = Random.decide(&scenario, &mut generator(seed, 1)).expect("answers").choices();
            let mut position = Position::new(&scenario, choices.clone());
            for device in 0..6 {
                let alternatives = position.alternatives(device);
                assert!(alternatives.is_sorted_by(|a, b| a.1 <= b.1));
                for (to, change) in alternatives {
                    let mut changed = choices.clone();
                    changed[device] = to;
                    let before = Decision::of_choices(&scenario, "test", &choices).objective;
                    let after = Decision::of_choices(&scenario, "test", &changed).objective;
                    assert!((after - before - change).abs() < 1e-9, "{after} - {before} is not {change}");
                }
            }
            let (to, change) = position.alternatives(0)[0];
            let before = position.decision("test").objective;
            position.apply(0, to);
            assert!((position.decision("test").objective - before - change).abs() < 1e-9);
        }
    }
}
