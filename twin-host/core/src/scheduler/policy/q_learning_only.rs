//! `q-learning-only`: the paper's baseline without convex allocation. The action holds a level of compute and one of
//! bandwidth as well; the levels' weights are normalised to the budgets, all of which are given out.

use super::{Policy, PolicyError};
use crate::scheduler::decision::Decision;
use crate::scheduler::problem::Scenario;
use crate::scheduler::q_table::QTable;
use rand_chacha::ChaCha8Rng;

/// The policy `q-learning-only`, with a table trained by [`crate::scheduler::learning::QConfig::only`].
#[derive(Debug, Clone)]
pub struct QLearningOnly {
    /// The trained table.
    pub table: QTable,
}

impl Policy for QLearningOnly {
    fn name(&self) -> &'static str {
        "q-learning-only"
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        self.table.decide(scenario, self.name())
    }

    fn table(&self) -> Option<&QTable> {
        Some(&self.table)
    }
}
