//! `q-learning` and `q-learning-joint`: the paper's method. A Q-table chooses students and sites, Problem 3 gives the
//! shares, and the objective it reaches is the reward.
//!
//! The joint form is the paper's own; the sequential form decides one device after another and so scales.

use super::{Policy, PolicyError};
use crate::scheduler::decision::Decision;
use crate::scheduler::family::Family;
use crate::scheduler::learning::{QConfig, Trained, TrainingError, train};
use crate::scheduler::problem::Scenario;
use crate::scheduler::q_table::{Form, QTable};
use rand_chacha::ChaCha8Rng;

/// The policies `q-learning` and `q-learning-joint`, by the form of the table.
#[derive(Debug, Clone)]
pub struct QLearning {
    /// The trained table.
    pub table: QTable,
}

impl QLearning {
    /// Trains a table over a distribution of scenarios.
    ///
    /// # Errors
    /// See [`train`].
    pub fn train(
        family: &Family,
        config: &QConfig,
        rng: &mut ChaCha8Rng,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Trained, TrainingError> {
        train(family, Ok, config, rng, progress)
    }
}

impl Policy for QLearning {
    fn name(&self) -> &'static str {
        match self.table.form {
            Form::Sequential => "q-learning",
            Form::Joint { .. } => "q-learning-joint",
        }
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        self.table.decide(scenario, self.name())
    }

    fn table(&self) -> Option<&QTable> {
        Some(&self.table)
    }
}
