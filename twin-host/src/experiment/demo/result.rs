//! What a demo run came to: all that its table, CSV and page are made from.

use serde::Serialize;
use twin_shared::pipe::{DeviceScores, Score};

/// Images that no board holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scored {
    /// The test set, whose figures are the demo's.
    Test,
    /// Others of the same number: what recipes are chosen by, so that nothing is chosen by the test set.
    Validation,
}

impl Scored {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Validation => "validation",
        }
    }
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DemoResult {
    /// What stands for what: how emulated gigahertz map to this machine's cores.
    pub(crate) scale: String,
    /// The job's seed.
    pub(crate) seed: u64,
    /// What everything is scored on.
    pub(crate) scored: Scored,
    /// The teacher's score.
    pub(crate) teacher: TeacherResult,
    /// Which policy decided.
    pub(crate) policy: String,
    /// Eq. (6) summed over devices at the first decision.
    pub(crate) objective: f64,
    /// A board each.
    pub(crate) boards: Vec<BoardResult>,
    /// Images that were scored on.
    pub(crate) samples: u32,
    /// Wall time of each stage, seconds, in their order.
    pub(crate) stages: Vec<(String, f64)>,
    /// Epochs after which board and twin were found equal, of all that were done.
    pub(crate) equal_epochs: u32,
}

/// The teacher.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TeacherResult {
    pub(crate) network: String,
    pub(crate) epochs: u32,
    pub(crate) full_top1: Score,
}

/// One board.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BoardResult {
    pub(crate) name: String,
    /// Emulated compute, GHz, as telemetry said it.
    pub(crate) frequency_ghz: f64,
    /// Emulated link, bits a second.
    pub(crate) link_bits_per_second: f64,
    /// The classes that it holds, with its training samples of each.
    pub(crate) classes: Vec<(u16, u32)>,
    /// The network that was assigned.
    pub(crate) student: String,
    /// `local` or `host`, in the last epoch.
    pub(crate) site: String,
    /// f, GHz.
    pub(crate) frequency_given_ghz: f64,
    /// b, Hz.
    pub(crate) bandwidth_hz: f64,
    /// Mean over epochs.
    pub(crate) delay: DelayResult,
    /// An epoch each: the curves.
    pub(crate) epochs: Vec<EpochResult>,
    /// At the end, by method.
    pub(crate) distilled: MethodScores,
    pub(crate) alone: MethodScores,
    pub(crate) fedavg: MethodScores,
    /// Payload bytes that crossed the network.
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
}

/// Delays of an epoch, seconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct DelayResult {
    /// Eq. (2)-(5), term by term, as predicted.
    pub(crate) teacher_s: f64,
    pub(crate) label_s: f64,
    pub(crate) student_s: f64,
    pub(crate) model_s: f64,
    /// Their sum: the delay of Eq. (6).
    pub(crate) predicted_s: f64,
    /// With overlap.
    pub(crate) pipelined_s: f64,
    /// From assignment to the end of training, as measured.
    pub(crate) training_s: f64,
    /// From the end of training until the other side held the state.
    pub(crate) transfer_s: f64,
    /// From assignment until both sides had confirmed.
    pub(crate) measured_s: f64,
}

/// One epoch of a board's curve.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EpochResult {
    /// From 1.
    pub(crate) epoch: u32,
    pub(crate) loss: f32,
    pub(crate) measured_s: f64,
    /// Scores on the test set, in those epochs that were scored.
    pub(crate) distilled: Option<MethodScores>,
    pub(crate) alone: Option<MethodScores>,
}

/// A student's scores on the test set.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct MethodScores {
    /// On all classes.
    pub(crate) full_top1: Score,
    pub(crate) full_top5: Score,
    /// On the board's own classes.
    pub(crate) device: DeviceScores,
}
