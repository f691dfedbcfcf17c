//! What a board answers.

use serde::{Deserialize, Serialize};

use crate::id::{BlobHash, JobId, RoundId};
use crate::model::Architecture;

/// `up/command`: how far the board is with a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`super::Command::id`].
    pub command: u64,
    /// How far.
    pub status: Status,
}

/// How far a board is with a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Status {
    /// It is being done.
    Accepted,
    /// Training.
    Running {
        /// Mini-batches done.
        step: u32,
        /// Mini-batches in all.
        steps: u32,
    },
    /// An epoch was trained here; its state is on its way as a blob.
    Trained(TrainedEpoch),
    /// It is done.
    Done,
    /// It cannot be done.
    Failed {
        /// What kind of failure.
        code: FailureCode,
        /// For people.
        message: heapless::String<200>,
    },
    /// What training takes here.
    Calibrated(BoardCalibration),
}

/// What training takes on a board, as measured with real steps. Without students: the board cannot say, for want of
/// a trainer or because a guard forbids to measure now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoardCalibration {
    /// LibTorch's version.
    pub libtorch: heapless::String<32>,
    /// The kernel's release.
    pub kernel: heapless::String<64>,
    /// Threads of a step.
    pub threads: u16,
    /// Samples of a mini-batch.
    pub batch: u32,
    /// Mean clock of the cores while it was measured, in the measure of the telemetry, MHz; `None` where unknown.
    pub megahertz: Option<u32>,
    /// Each student that was tried.
    pub students: heapless::Vec<StudentCalibration, 5>,
}

/// What one student takes on a board.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StudentCalibration {
    /// The student.
    pub architecture: Architecture,
    /// Median seconds of a training step over the samples of its mini-batch; what the duty cycle adds is in it. 0
    /// where it does not fit.
    pub seconds_per_sample: f32,
    /// Peak resident memory of the trainer, KiB; 0 where unknown.
    pub peak_memory_kib: u32,
    /// Whether it trained at all: one that did not is not given to this board.
    pub fits: bool,
}

/// An epoch trained on the board.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainedEpoch {
    /// The job.
    pub job: JobId,
    /// The epoch.
    pub round: RoundId,
    /// BLAKE3 of the student state.
    pub state: BlobHash,
    /// Samples trained on.
    pub samples: u32,
    /// Mean loss.
    pub loss: f32,
    /// From the first step to the last, pauses of the duty cycle included, milliseconds.
    pub training_ms: u64,
    /// Of that, waiting for labels, milliseconds.
    pub starved_ms: u64,
}

/// Kinds of failure that the host treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureCode {
    /// The board has no trainer, or it does not start.
    NoTrainer,
    /// The trainer ended: crashed, killed by the kernel, or out of memory. The student does not fit.
    TrainerDied,
    /// The trainer refused the job or failed in it.
    TrainerFailed,
    /// The board lacks what the order stands on: a dataset or a base state.
    Missing,
    /// A blob did not come whole.
    Transfer,
    /// The board's disk is full or broken.
    Storage,
    /// The owner or a guard forbids training now.
    Inhibited,
}

/// `up/log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// How bad.
    pub level: LogLevel,
    /// One line.
    pub text: heapless::String<240>,
}

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// The board goes on.
    Warning,
    /// Something was not done.
    Error,
}
