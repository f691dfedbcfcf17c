//! `fl-max`: the student with the most work for all, as federated averaging needs one; sites by Q-learning, shares by
//! Problem 3.

use super::one_model::Extreme;
use super::{Policy, PolicyError};
use crate::scheduler::decision::Decision;
use crate::scheduler::problem::Scenario;
use crate::scheduler::q_table::QTable;
use rand_chacha::ChaCha8Rng;

/// The policy `fl-max`, with a table trained on scenarios under [`Extreme::Most`].
#[derive(Debug, Clone)]
pub struct FlMax {
    /// The trained table.
    pub table: QTable,
}

impl Policy for FlMax {
    fn name(&self) -> &'static str {
        "fl-max"
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        self.table.decide(&Extreme::Most.restrict(scenario.clone())?, self.name())
    }

    fn table(&self) -> Option<&QTable> {
        Some(&self.table)
    }
}
