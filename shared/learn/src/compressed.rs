//! A student state made fit to travel in few bytes: rounded to base + codes, with what was left out kept for the next.

use std::fs;
use std::path::Path;

use twin_shared::compress::encode;
use twin_shared::pipe::CompressPlan;

use crate::error::LearnError;
use crate::model::Model;
use crate::tensor_file::{self, Written, write_whole};

/// Writes the file that travels, what it leaves out, and the state that both sides adopt.
///
/// # Errors
/// When base or residual do not fit the student, or the disk refuses. The state is written last, so an epoch whose
/// state is there has the other two.
pub(crate) fn save(student: &Model, plan: &CompressPlan, out: &Path) -> Result<Written, LearnError> {
    student.save(out)?;
    let read = |path: &Path| fs::read(path).map_err(LearnError::io(path));
    let (base, fresh) = (read(Path::new(&plan.base))?, read(out)?);
    let residual = plan.residual.as_ref().map(|path| read(Path::new(path))).transpose()?;
    let encoded = encode(plan.compression, &base, &fresh, residual.as_deref())
        .map_err(|error| LearnError::Job(format!("{} against {}: {error}", out.display(), plan.base)))?;
    write_whole(Path::new(&plan.delta_out), &encoded.delta)?;
    write_whole(Path::new(&plan.residual_out), &encoded.residual)?;
    write_whole(out, &encoded.state)?;
    tensor_file::written(out, &encoded.state)
}
