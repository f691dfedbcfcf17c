//! What comes out of a trainer's jobs.

use serde::{Deserialize, Serialize};

use crate::id::{BlobHash, ModelVersion};

/// Correct answers out of a number of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Score {
    /// Correct answers.
    pub correct: u32,
    /// Samples.
    pub total: u32,
}

impl Score {
    /// The fraction correct; `None` of no samples.
    #[must_use]
    pub fn fraction(self) -> Option<f64> {
        (self.total > 0).then(|| f64::from(self.correct) / f64::from(self.total))
    }
}

/// What a device's student scores on a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceScores {
    /// On the device's own classes, best answer.
    pub private_top1: Score,
    /// On the device's own classes, among the best five.
    pub private_top5: Score,
    /// On the device's own classes, with logits adjusted by the device's own label frequencies.
    pub private_personal: Score,
    /// On the classes that the device holds none of.
    pub unseen_top1: Score,
}

/// See [`Job::Evaluate`](super::Job::Evaluate).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// On every sample, best answer.
    pub full_top1: Score,
    /// On every sample, among the best five.
    pub full_top5: Score,
    /// For each entry of [`EvaluateJob::devices`](super::EvaluateJob::devices).
    pub devices: Vec<DeviceScores>,
}

/// What came out of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Weights were written (teacher, FedAvg).
    Weights {
        /// BLAKE3 of the file.
        hash: BlobHash,
        /// Mean training loss of the last epoch.
        loss: f32,
    },
    /// A student state was written (initialisation, epoch).
    Student {
        /// Hash of its canonical list of tensors.
        version: ModelVersion,
        /// BLAKE3 of the file.
        hash: BlobHash,
        /// Length of the file, bytes.
        bytes: u64,
        /// Mean training loss; zero for an initialisation.
        loss: f32,
        /// Samples trained on.
        samples: u32,
    },
    /// All blocks of labels were written.
    Labels {
        /// How many.
        blocks: u32,
    },
    /// Scores.
    Evaluation(Evaluation),
    /// Counts of a dataset.
    Counts {
        /// Samples that are trained on.
        train: u32,
        /// Samples held out.
        held: u32,
        /// Training samples of each class.
        labels: Vec<u32>,
    },
    /// Calibration.
    Calibration {
        /// Median seconds of a step.
        seconds_per_step: f64,
        /// Peak resident memory of the process, bytes; `None` where the system does not say.
        peak_memory: Option<u64>,
    },
}
