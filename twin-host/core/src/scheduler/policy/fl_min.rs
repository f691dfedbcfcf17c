//! `fl-min`: the student with the least work for all, as federated averaging needs one; sites by Q-learning, shares by
//! Problem 3.

use super::one_model::Extreme;
use super::{Policy, PolicyError};
use crate::scheduler::decision::Decision;
use crate::scheduler::problem::Scenario;
use crate::scheduler::q_table::QTable;
use rand_chacha::ChaCha8Rng;

/// The policy `fl-min`, with a table trained on scenarios under [`Extreme::Least`].
#[derive(Debug, Clone)]
pub struct FlMin {
    /// The trained table.
    pub table: QTable,
}

impl Policy for FlMin {
    fn name(&self) -> &'static str {
        "fl-min"
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        self.table.decide(&Extreme::Least.restrict(scenario.clone())?, self.name())
    }

    fn table(&self) -> Option<&QTable> {
        Some(&self.table)
    }
}
