//! What the host has learnt of a device by working with it: what epochs take there, how good its students became, and
//! how it keeps deadlines. It outlives connections, jobs and restarts.

mod accuracy;
mod speed;

pub use accuracy::{Accuracies, Estimate, Scored};
pub use speed::{Speed, SpeedSource, Speeds};

use serde::{Deserialize, Serialize};

/// Everything learnt of one device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Experience {
    /// What epochs take on the board.
    pub speeds: Speeds,
    /// How good its students became.
    pub accuracies: Accuracies,
    /// Epochs that were not back by their deadline.
    pub missed_deadlines: u32,
    /// Of those, epochs whose state came later and was still taken.
    pub taken_late: u32,
}
