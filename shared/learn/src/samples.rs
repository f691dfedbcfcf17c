//! A twin's samples on the host, and a board's own: opened here, and reachable nowhere else.
//!
//! Everything that touches an image or a label is in this module and its children. What they hand out:
//! gradients ([`TwinSamples::gradient`]), pooled moments and gradients of a lockstep pass, features by position
//! ([`TwinSamples::features`]), counts, pixel sums and scores.
//!
//! No other crate reaches a sample:
//!
//! ```compile_fail
//! # fn images(samples: &twin_learn::TwinSamples) {
//! let set = &samples.set; // private
//! # }
//! ```
//!
//! ```compile_fail
//! # fn images(samples: &twin_learn::TwinSamples) {
//! let images = samples.images(&[0], None); // private
//! # }
//! ```
//!
//! ```compile_fail
//! # fn labels(samples: &twin_learn::TwinSamples) {
//! let labels = samples.labels(&[0]); // private
//! # }
//! ```

mod features;
mod gradient;
mod pass;
mod score;

use std::path::Path;

use tch::{Device, Kind, Tensor};
use twin_data::augment::Augmenter;
use twin_data::{IMAGE_BYTES, ImageSet, Normalisation, Part, PixelStatistics};

use crate::error::LearnError;
use crate::model::channels_last;

pub use gradient::Guide;
pub use pass::{MICRO_BATCH, Moments, NormGradient, Pass, norm_layers};

/// One twin's samples.
pub struct TwinSamples {
    set: ImageSet,
    /// Indices of what training may use, ascending.
    train: Vec<u32>,
    device: Device,
}

impl std::fmt::Debug for TwinSamples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TwinSamples({} samples)", self.set.len())
    }
}

impl TwinSamples {
    /// Opens an image set.
    ///
    /// # Errors
    /// When the file is not whole, or nothing of it is for training.
    pub fn open(path: &Path, device: Device) -> Result<Self, LearnError> {
        let set = ImageSet::read(path).map_err(LearnError::dataset(path))?;
        let train = set.indices(Part::Train);
        Ok(Self { set, train, device })
    }

    /// Number of classes, whether or not each has samples.
    #[must_use]
    pub const fn classes(&self) -> u16 {
        self.set.classes()
    }

    /// How its images are normalised unless a network says otherwise.
    #[must_use]
    pub const fn normalisation(&self) -> Normalisation {
        self.set.normalisation()
    }

    /// Indices of the samples of a part, ascending: positions, not content.
    #[must_use]
    pub fn indices(&self, part: Part) -> Vec<u32> {
        match part {
            Part::All | Part::Held | Part::Validation | Part::Test => self.set.indices(part),
            Part::Train => self.train.clone(),
        }
    }

    /// Number of samples that training uses.
    #[must_use]
    pub const fn train_count(&self) -> usize {
        self.train.len()
    }

    /// Training samples a class.
    #[must_use]
    pub fn train_label_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; usize::from(self.classes())];
        for &index in &self.train {
            counts[usize::from(self.set.label(index as usize))] += 1;
        }
        counts
    }

    /// Count, sum and square sum of its pixels.
    #[must_use]
    pub fn pixel_statistics(&self) -> PixelStatistics {
        self.set.pixel_statistics()
    }

    /// Images as a network takes them: `[n, 3, 32, 32]`, f32, channels last.
    fn images(
        &self,
        indices: &[u32],
        augmenter: Option<&Augmenter>,
        normalisation: Normalisation,
    ) -> Result<Tensor, LearnError> {
        let mut bytes = vec![0u8; indices.len() * IMAGE_BYTES];
        for (out, &index) in bytes.chunks_exact_mut(IMAGE_BYTES).zip(indices) {
            let image = self.set.image(index as usize);
            match augmenter {
                Some(augmenter) => {
                    let out = out.try_into().expect("a chunk is an image");
                    augmenter.apply(index, image, out);
                }
                None => out.copy_from_slice(image),
            }
        }
        let planes = Tensor::f_from_data_size(&bytes, &[indices.len() as i64, 3, 32, 32], Kind::Uint8)?;
        let planes = channels_last(&planes.f_to_device(self.device)?)?;
        let constant = |values: [f32; 3]| -> Result<Tensor, LearnError> {
            Ok(Tensor::f_from_slice(&values)?.f_reshape([1i64, 3, 1, 1])?.f_to_device(self.device)?)
        };
        let scale = normalisation.deviation.map(|deviation| 1.0 / (255.0 * deviation));
        let shift = std::array::from_fn(|c| -normalisation.mean[c] / normalisation.deviation[c]);
        let scaled = planes.f_to_kind(Kind::Float)?.f_mul_(&constant(scale)?)?.f_add_(&constant(shift)?)?;
        Ok(scaled)
    }

    /// Labels `[n]`, i64.
    fn labels(&self, indices: &[u32]) -> Result<Tensor, LearnError> {
        let labels: Vec<i64> = indices.iter().map(|&i| self.set.label(i as usize).into()).collect();
        Ok(Tensor::f_from_slice(&labels)?.f_to_device(self.device)?)
    }

    /// Refuses a network with fewer outputs than there are classes: its answers could not be right.
    ///
    /// # Errors
    /// Names both numbers.
    pub fn require_outputs(&self, outputs: i64) -> Result<(), LearnError> {
        if outputs < i64::from(self.classes()) {
            return Err(LearnError::Job(format!(
                "the classifier has {outputs} outputs, the dataset has {} classes",
                self.classes()
            )));
        }
        Ok(())
    }
}

/// The normalisation for one network over several twins: theirs where all agree, else that of their pixels pooled.
#[must_use]
pub fn common_normalisation(twins: &[TwinSamples]) -> Option<Normalisation> {
    let first = twins.first()?;
    if twins.iter().all(|twin| twin.normalisation() == first.normalisation()) {
        return Some(first.normalisation());
    }
    let pooled =
        twins.iter().map(TwinSamples::pixel_statistics).fold(PixelStatistics::default(), PixelStatistics::pooled);
    Some(pooled.normalisation())
}
