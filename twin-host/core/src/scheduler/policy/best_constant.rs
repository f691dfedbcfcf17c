//! `best-constant`: one student and one site for all devices, the best such answer for the scenario at hand.
//!
//! A device that may not have the answer comes as near as it can, see [`nearest_choice`]. Where this is nearly
//! optimal, a scenario cannot tell a good scheduler from a bad one.

use super::{Policy, PolicyError};
use crate::scheduler::cost::Choice;
use crate::scheduler::decision::Decision;
use crate::scheduler::learning::best_constant_of;
use crate::scheduler::mdp::nearest_choice;
use crate::scheduler::problem::Scenario;
use rand_chacha::ChaCha8Rng;

/// The policy `best-constant`.
#[derive(Debug, Clone, Copy, Default)]
pub struct BestConstant;

impl BestConstant {
    /// The decision for a given constant answer.
    #[must_use]
    pub fn with(scenario: &Scenario, constant: Choice) -> Decision {
        let devices = 0..scenario.devices().len();
        let choices: Vec<Choice> = devices.map(|device| nearest_choice(scenario, device, constant)).collect();
        Decision::of_choices(scenario, "best-constant", &choices)
    }
}

impl Policy for BestConstant {
    fn name(&self) -> &'static str {
        "best-constant"
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        Ok(Self::with(scenario, best_constant_of(std::slice::from_ref(scenario))))
    }
}
