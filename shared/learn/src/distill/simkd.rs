//! SimKD, Eq. (27): the student's projected map against the teacher's last feature map.

use tch::{Reduction, Tensor};

use crate::error::LearnError;
use crate::zoo::pooled;

/// Mean squared error between the projected map `[n, t, s, s]` and the teacher's map `[n, t, s', s']`, which is
/// average-pooled to the student's side if larger. A scalar.
///
/// # Errors
/// When shapes do not fit.
pub fn map_loss(projected: &Tensor, teacher: &Tensor) -> Result<Tensor, LearnError> {
    let side = projected.size4()?.3;
    let teacher =
        if teacher.size4()?.3 > side { teacher.f_adaptive_avg_pool2d([side; 2])? } else { teacher.shallow_clone() };
    same_shape(&projected.size(), &teacher.size())?;
    Ok(projected.f_mse_loss(&teacher, Reduction::Mean)?)
}

/// Mean squared error between the projected map `[n, t, s, s]`, average-pooled, and the teacher's pooled vector
/// `[n, t]`. A scalar.
///
/// # Errors
/// When shapes do not fit.
pub fn vector_loss(projected: &Tensor, teacher: &Tensor) -> Result<Tensor, LearnError> {
    let student = pooled(projected)?;
    same_shape(&student.size(), &teacher.size())?;
    Ok(student.f_mse_loss(teacher, Reduction::Mean)?)
}

/// LibTorch would broadcast instead.
fn same_shape(student: &[i64], teacher: &[i64]) -> Result<(), LearnError> {
    if student == teacher {
        Ok(())
    } else {
        Err(LearnError::Job(format!(
            "the student's projection has shape {student:?}, the teacher's labels have {teacher:?}"
        )))
    }
}
