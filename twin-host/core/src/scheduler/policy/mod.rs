//! Policies: ways from a scenario to a decision, one file each, behind one trait.

pub mod all_host;
pub mod all_local;
pub mod best_constant;
pub mod dual;
pub mod exact;
pub mod fl_max;
pub mod fl_min;
pub mod kind;
pub mod one_model;
mod one_site;
pub mod q_learning;
pub mod q_learning_only;
pub mod random;

pub use all_host::AllHost;
pub use all_local::AllLocal;
pub use best_constant::BestConstant;
pub use dual::Dual;
pub use exact::Exact;
pub use fl_max::FlMax;
pub use fl_min::FlMin;
pub use kind::{PolicyKind, UnknownPolicy};
pub use q_learning::QLearning;
pub use q_learning_only::QLearningOnly;
pub use random::Random;

use super::decision::Decision;
use super::problem::Scenario;
use super::q_table::QTable;
use rand_chacha::ChaCha8Rng;

/// A way to decide.
pub trait Policy {
    /// The name it is selected by.
    fn name(&self) -> &'static str;

    /// Decides for every device of the scenario; chance, if the policy needs any, comes from `rng` alone.
    ///
    /// # Errors
    /// If the policy cannot answer this scenario.
    fn decide(&self, scenario: &Scenario, rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError>;

    /// The table that it decides by, if it has one: kept, it decides the same again.
    fn table(&self) -> Option<&QTable> {
        None
    }
}

/// Why a policy has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Federated averaging needs one student that all boards can hold.
    #[error("{policy} needs one student that every device may have; these devices share none")]
    NoCommonModel {
        /// The policy.
        policy: &'static str,
    },
    /// A table was trained for other students than the scenario has.
    #[error("the table was trained for {trained} students and the scenario has {given}; train it again")]
    OtherModels {
        /// Students at training.
        trained: usize,
        /// Students of the scenario.
        given: usize,
    },
    /// A joint table was trained for another number of devices.
    #[error("the joint table was trained for {trained} devices and the scenario has {given}; use `q-learning`")]
    OtherDevices {
        /// Devices at training.
        trained: usize,
        /// Devices of the scenario.
        given: usize,
    },
    /// The joint action space grows as a power of the devices.
    #[error(
        "a joint table for {devices} devices would have {actions} actions; at most {most} are handled: use `q-learning`"
    )]
    TooManyActions {
        /// Devices asked for.
        devices: usize,
        /// How many joint actions that makes, saturated.
        actions: u64,
        /// How many there may be.
        most: u64,
    },
}
