//! Gradients of a student on a mini-batch of its own samples.

use tch::Tensor;
use twin_data::augment::Augmenter;
use twin_shared::plan::{LabelKind, Method};

use super::TwinSamples;
use crate::distill::cross_entropy::cross_entropy;
use crate::distill::kd::kd;
use crate::distill::simkd::{map_loss, vector_loss};
use crate::error::LearnError;
use crate::model::Model;
use crate::zoo::{Mode, pooled};

/// What a student is guided by on a mini-batch.
#[derive(Debug, Clone, Copy)]
pub enum Guide<'a> {
    /// The hard labels alone.
    Labels,
    /// A teacher that is here.
    Teacher(&'a Model, LabelKind),
    /// A teacher's labels that were computed before: `[n, c, s, s]`, `[n, c]` or `[n, classes]`.
    Given(&'a Tensor, LabelKind),
}

impl TwinSamples {
    /// Loss and gradients, in the order of [`Model::trained`], of a student on the samples `indices`. Batch norm
    /// takes its statistics from them and updates the running ones.
    ///
    /// # Errors
    /// When method, guide and student do not fit together.
    pub fn gradient(
        &self,
        student: &Model,
        method: Method,
        guide: Guide<'_>,
        indices: &[u32],
        augmenter: &Augmenter,
    ) -> Result<(f64, Vec<Tensor>), LearnError> {
        let own = student.normalisation.unwrap_or(self.normalisation());
        let images = self.images(indices, Some(augmenter), own)?;
        let guidance = match guide {
            Guide::Labels => None,
            Guide::Given(labels, kind) => Some((labels.shallow_clone(), kind)),
            Guide::Teacher(teacher, kind) => {
                let theirs = teacher.normalisation.unwrap_or(own);
                let seen =
                    if theirs == own { images.shallow_clone() } else { self.images(indices, Some(augmenter), theirs)? };
                Some((labels_of(teacher, kind, &seen)?, kind))
            }
        };
        let outputs = student.forward(&images, Mode::Train)?;
        let loss = match (method, guidance) {
            (Method::SimKd, Some((map, LabelKind::Map))) => map_loss(&outputs.head, &map)?,
            (Method::SimKd, Some((vector, LabelKind::Vector))) => vector_loss(&outputs.head, &vector)?,
            (Method::Kd { temperature, soft_weight }, Some((logits, LabelKind::Logits))) => {
                self.require_outputs(student.classes()?)?;
                let labels = self.labels(indices)?;
                kd(&outputs.head, &logits, &labels, temperature.into(), soft_weight.into())?
            }
            (Method::CrossEntropy, None) => {
                self.require_outputs(student.classes()?)?;
                cross_entropy(&outputs.head, &self.labels(indices)?)?
            }
            (method, guidance) => {
                let kind = guidance.map(|(_, kind)| kind);
                return Err(LearnError::Job(format!("{method:?} cannot be guided by labels of kind {kind:?}")));
            }
        };
        let trained: Vec<&Tensor> = student.trained().map(|(_, tensor)| tensor).collect();
        let gradients = Tensor::f_run_backward(&[&loss], &trained, false, false)?;
        Ok((loss.f_double_value(&[])?, gradients))
    }
}

/// What a teacher says about images, without gradients.
pub(super) fn labels_of(teacher: &Model, kind: LabelKind, images: &Tensor) -> Result<Tensor, LearnError> {
    let outputs = teacher.evaluate(images)?;
    match kind {
        LabelKind::Map => Ok(outputs.features),
        LabelKind::Vector => tch::no_grad(|| pooled(&outputs.features)),
        LabelKind::Logits => teacher.classes().map(|_| outputs.head),
    }
}
