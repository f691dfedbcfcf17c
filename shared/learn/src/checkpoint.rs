//! Checkpoints of jobs that train one network over many epochs: its state, the momentum, and how far it is.

use std::fmt::Debug;
use std::path::Path;

use crate::error::LearnError;
use crate::model::Model;
use crate::sgd::Sgd;
use crate::tensor_file::{self, About, TensorFile};

/// Prefix of the momentum's names.
const MOMENTUM: &str = "momentum.";

/// Names a job by everything that decides its course.
#[must_use]
pub fn fingerprint(job: &impl Debug) -> String {
    blake3::hash(format!("{job:?}").as_bytes()).to_hex().as_str()[..32].to_owned()
}

/// Writes model and momentum after `done` epochs or rounds.
///
/// # Errors
/// When the disk refuses; the checkpoint before is left as it was.
pub fn save(path: &Path, job: &str, model: &Model, optimiser: Option<&Sgd>, done: u32) -> Result<(), LearnError> {
    let about = About { normalisation: model.normalisation, done: Some(done), job: Some(job.to_owned()) };
    let momentum: Vec<_> = optimiser
        .iter()
        .flat_map(|sgd| sgd.named(model))
        .map(|(name, tensor)| (format!("{MOMENTUM}{name}"), tensor))
        .collect();
    let tensors = model.named().chain(momentum.iter().map(|(name, tensor)| (name.as_str(), *tensor)));
    tensor_file::write(path, &about, tensors).map(|_| ())
}

/// Goes on from a checkpoint where there is one: gives the model and the epochs or rounds done, and fills in the
/// momentum.
///
/// # Errors
/// When the file is not whole, or another job's.
pub fn resume(
    path: &Path,
    job: &str,
    fresh: &Model,
    optimiser: Option<&mut Sgd>,
) -> Result<Option<(Model, u32)>, LearnError> {
    if !path.exists() {
        return Ok(None);
    }
    let mut file = TensorFile::read(path)?;
    let done = match &file.about {
        About { done: Some(done), job: Some(theirs), .. } if theirs == job => *done,
        About { .. } => {
            return Err(LearnError::Job(format!(
                "{} is a checkpoint of another job; remove it, or name another file",
                path.display()
            )));
        }
    };
    if let Some(optimiser) = optimiser {
        optimiser.restore(fresh, |name, shape| file.take(&format!("{MOMENTUM}{name}"), shape))?;
    }
    Ok(Some((Model::from_file(file, fresh.device())?, done)))
}
