//! How a student's epoch is trained: the words that assignments on the wire and jobs of the trainer share.

use serde::{Deserialize, Serialize};

/// Random order and augmentation of one epoch: a pure function of these numbers and the sample's index, so a board
/// and its twin see the same batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPlan {
    /// The job's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u32,
    /// Samples a mini-batch.
    pub batch: u32,
    /// What is done to each image.
    pub augmentation: Augmentation,
}

/// Augmentation of training images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Zero padding on every side before a random crop back to the image's size, pixels; 0 is no crop.
    pub crop_padding: u8,
    /// Whether half of the images are mirrored left to right. Wrong for digits.
    pub flip: bool,
}

/// Stochastic gradient descent with Nesterov momentum; the learning rate is divided by 5 at 45, 60, 75 and 90 % of
/// the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Learning rate of the first epochs.
    pub learning_rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Epochs in all: the schedule's length.
    pub epochs: u32,
}

impl Recipe {
    /// The students' recipe for a number of epochs.
    #[must_use]
    pub const fn student(epochs: u32) -> Self {
        Self { learning_rate: 0.05, momentum: 0.9, weight_decay: 7.5e-4, epochs }
    }

    /// The learning rate of an epoch, counted from 0.
    #[must_use]
    pub fn learning_rate_at(&self, epoch: u32) -> f64 {
        let passed = [45u64, 60, 75, 90].into_iter().filter(|p| 100 * u64::from(epoch) >= p * u64::from(self.epochs));
        passed.fold(self.learning_rate, |rate, _| rate / 5.0)
    }
}

/// What a student learns by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Method {
    /// SimKD, Eq. (27): the projected last feature map against the teacher's; the teacher's classifier is reused.
    SimKd,
    /// Classic distillation, Eq. (25)-(26): hard labels and T² · KL(teacher ‖ student), both softened by T.
    Kd {
        /// The temperature.
        temperature: f32,
        /// Weight of the soft term; the hard term has one less this.
        soft_weight: f32,
    },
    /// Cross-entropy on the hard labels alone: the student without a teacher.
    CrossEntropy,
}

/// Form of the teacher's labels: `Map` and `Vector` for SimKD, `Logits` for classic distillation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelKind {
    /// The last feature map before pooling, `[256, 8, 8]`.
    Map,
    /// The pooled feature vector, `[256]`.
    Vector,
    /// The classifier's outputs before the softmax, `[classes]`.
    Logits,
}

/// Number format of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelPrecision {
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
    /// 8-bit with a least value and a step a sample.
    Int8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_drops_at_its_four_marks() {
        let recipe = Recipe::student(20);
        let rates: Vec<f64> = [0, 8, 9, 12, 15, 18].into_iter().map(|e| recipe.learning_rate_at(e)).collect();
        let expected = [0.05, 0.05, 0.01, 0.002, 0.0004, 0.000_08];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
    }
}
