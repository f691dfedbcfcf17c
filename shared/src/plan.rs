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

/// How a student state travels: what its differences to a state that both sides hold are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Whole, in f32.
    #[default]
    None,
    /// Differences in bfloat16.
    Bf16,
    /// Differences in 255 steps, a step for each block of numbers.
    Int8,
    /// In 15 steps.
    Int4,
    /// In three.
    Int2,
}

impl Compression {
    /// Every kind, the most exact first.
    pub const ALL: [Self; 5] = [Self::None, Self::Bf16, Self::Int8, Self::Int4, Self::Int2];

    /// The name in configurations, files and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Int2 => "int2",
        }
    }
}

/// After which epochs a state is exchanged. Between them it stays where it was trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncEvery {
    /// After every so many epochs, and after the last.
    Epochs(core::num::NonZeroU32),
    /// After the last epoch only.
    Final,
}

impl SyncEvery {
    /// After every epoch.
    pub const EPOCH: Self = Self::Epochs(core::num::NonZeroU32::MIN);

    /// Whether the state is exchanged after this epoch, counted from 0, of so many.
    #[must_use]
    pub const fn is_due(self, epoch: u32, epochs: u32) -> bool {
        let last = epoch.saturating_add(1) >= epochs;
        match self {
            Self::Epochs(every) => last || (epoch + 1).is_multiple_of(every.get()),
            Self::Final => last,
        }
    }
}

/// A name that is no compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be none, bf16, int8, int4 or int2")]
pub struct UnknownCompression;

impl core::str::FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or(UnknownCompression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_exchanged_after_its_epochs_and_the_last() {
        let due = |every: SyncEvery| (0..7).filter(|&epoch| every.is_due(epoch, 7)).collect::<Vec<u32>>();
        assert_eq!(due(SyncEvery::EPOCH), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(due(SyncEvery::Epochs(3.try_into().expect("not 0"))), [2, 5, 6]);
        assert_eq!(due(SyncEvery::Final), [6]);
    }

    #[test]
    fn a_compression_reads_back() {
        for compression in Compression::ALL {
            assert_eq!(compression.name().parse(), Ok(compression));
        }
        assert!("int3".parse::<Compression>().is_err());
    }

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
