//! `random`: every device takes one of its permitted choices, all equally likely; shares by Problem 3. The floor that
//! any policy must clear.

use super::{Policy, PolicyError};
use crate::scheduler::cost::Choice;
use crate::scheduler::decision::Decision;
use crate::scheduler::family::index_below;
use crate::scheduler::problem::Scenario;
use rand_chacha::ChaCha8Rng;

/// The policy `random`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn decide(&self, scenario: &Scenario, rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        let mut options: Vec<Choice> = Vec::new();
        let choices: Vec<Choice> = (0..scenario.devices().len())
            .map(|device| {
                options.clear();
                scenario.for_each_load(device, |choice, _| options.push(choice));
                options[index_below(rng, options.len())]
            })
            .collect();
        Ok(Decision::of_choices(scenario, self.name(), &choices))
    }
}
