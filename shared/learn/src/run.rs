//! A job as a sequence of steps that someone else paces.

use twin_shared::pipe::{LabelBlock, Outcome};

use crate::error::LearnError;

/// What a step brought.
#[derive(Debug, Default)]
pub struct Progress {
    /// The training loss of the step, where there is one.
    pub loss: Option<f32>,
    /// A block of labels that is now on disk.
    pub block: Option<LabelBlock>,
    /// The job is done, and this came out.
    pub outcome: Option<Outcome>,
}

/// A job that is prepared. Dropping it before its outcome writes nothing more.
pub trait Run {
    /// Steps until it is done, counted from its beginning or from its checkpoint.
    fn steps(&self) -> u32;

    /// Does the next one.
    ///
    /// # Errors
    /// When the job cannot go on; nothing of its output is written then.
    fn step(&mut self) -> Result<Progress, LearnError>;

    /// Writes a checkpoint, between two steps, if the job keeps one at such a place.
    ///
    /// # Errors
    /// When the disk refuses; the checkpoint before is left as it was.
    fn save(&self) -> Result<(), LearnError> {
        Ok(())
    }
}

/// Mean of the losses of an epoch, weighted by samples.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct MeanLoss {
    sum: f64,
    samples: u64,
}

impl MeanLoss {
    pub(crate) fn add(&mut self, loss: f64, samples: usize) {
        self.sum += loss * samples as f64;
        self.samples += samples as u64;
    }

    /// As numbers that a file keeps to the bit.
    pub(crate) fn to_bits(self) -> [u64; 2] {
        [self.sum.to_bits(), self.samples]
    }

    pub(crate) fn from_bits([sum, samples]: [u64; 2]) -> Self {
        Self { sum: f64::from_bits(sum), samples }
    }

    pub(crate) fn value(self) -> f32 {
        if self.samples == 0 { 0.0 } else { (self.sum / self.samples as f64) as f32 }
    }
}
