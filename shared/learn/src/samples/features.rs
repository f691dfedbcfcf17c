//! A teacher's features of a twin's samples, by position.

use tch::Tensor;
use twin_data::augment::Augmenter;
use twin_shared::plan::LabelKind;

use super::TwinSamples;
use super::gradient::labels_of;
use crate::error::LearnError;
use crate::model::Model;

impl TwinSamples {
    /// What a teacher says about the augmented samples `indices`: `[n, c, s, s]`, `[n, c]` or `[n, classes]`.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn features(
        &self,
        teacher: &Model,
        kind: LabelKind,
        indices: &[u32],
        augmenter: &Augmenter,
    ) -> Result<Tensor, LearnError> {
        let normalisation = teacher.normalisation.unwrap_or(self.normalisation());
        labels_of(teacher, kind, &self.images(indices, Some(augmenter), normalisation)?)
    }

    /// BLAKE3 over these indices (u32, little endian) and the first one's augmented image: equal on two machines
    /// only if they would train on the same batch.
    #[must_use]
    pub fn batch_digest(&self, indices: &[u32], augmenter: &Augmenter) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("twinstill batch digest v1");
        for index in indices {
            hasher.update(&index.to_le_bytes());
        }
        if let Some(&first) = indices.first() {
            hasher.update(augmenter.image(first, self.set.image(first as usize)).as_slice());
        }
        *hasher.finalize().as_bytes()
    }
}
