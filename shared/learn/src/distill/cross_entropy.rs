//! Cross-entropy on hard labels.

use tch::Tensor;

use crate::error::LearnError;

/// Mean over the batch of -log softmax(z)_y: logits `[n, classes]`, labels `[n]` (i64), a scalar.
///
/// # Errors
/// When shapes do not fit.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, LearnError> {
    Ok(sum(logits, labels)?.f_div_scalar(labels.size1()?)?)
}

/// The same, summed.
///
/// # Errors
/// When shapes do not fit.
pub fn sum(logits: &Tensor, labels: &Tensor) -> Result<Tensor, LearnError> {
    let log = logits.f_log_softmax(1, logits.f_kind()?)?;
    let own = log.f_gather(1, &labels.f_unsqueeze(1)?, false)?;
    Ok(own.f_sum(logits.f_kind()?)?.f_neg()?)
}
