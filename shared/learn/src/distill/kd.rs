//! Classic distillation, Eq. (25)-(26).

use tch::{Kind, Tensor};

use super::cross_entropy::cross_entropy;
use crate::error::LearnError;

/// (1 - w) · cross-entropy + w · T² · KL(teacher ‖ student), both softened by T; the divergence is a mean over the
/// batch. Logits `[n, classes]` of student and teacher, labels `[n]` (i64), a scalar.
///
/// # Errors
/// When shapes do not fit.
pub fn kd(
    student: &Tensor,
    teacher: &Tensor,
    labels: &Tensor,
    temperature: f64,
    soft_weight: f64,
) -> Result<Tensor, LearnError> {
    let soft = |logits: &Tensor| -> Result<Tensor, LearnError> {
        Ok(logits.f_div_scalar(temperature)?.f_log_softmax(1, Kind::Float)?)
    };
    let (log_student, log_teacher) = (soft(student)?, soft(teacher)?);
    let divergence = log_teacher
        .f_exp()?
        .f_mul(&log_teacher.f_sub(&log_student)?)?
        .f_sum(Kind::Float)?
        .f_div_scalar(labels.size1()?)?;
    let hard = cross_entropy(student, labels)?.f_mul_scalar(1.0 - soft_weight)?;
    Ok(hard.f_add(&divergence.f_mul_scalar(soft_weight * temperature * temperature)?)?)
}
