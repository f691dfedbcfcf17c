//! Checkpoints of jobs that train one network over many epochs: its state, the momentum, and how far it is.

use std::fmt::Debug;
use std::path::Path;

use crate::error::LearnError;
use crate::model::Model;
use crate::run::MeanLoss;
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
    write(path, About { done: Some(done), job: Some(job.to_owned()), ..About::default() }, model, optimiser)
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
    let file = TensorFile::read(path)?;
    let done = match &file.about {
        About { done: Some(done), job: Some(theirs), .. } if theirs == job => *done,
        About { .. } => {
            return Err(LearnError::Job(format!(
                "{} is a checkpoint of another job; remove it, or name another file",
                path.display()
            )));
        }
    };
    Ok(Some((read(file, fresh, optimiser)?, done)))
}

/// Writes model and momentum after `done` mini-batches of an epoch, and their loss.
///
/// # Errors
/// When the disk refuses; the checkpoint before is left as it was.
pub(crate) fn save_within_epoch(
    path: &Path,
    job: &str,
    model: &Model,
    optimiser: &Sgd,
    done: u32,
    loss: MeanLoss,
) -> Result<(), LearnError> {
    let about = About { done: Some(done), job: Some(job.to_owned()), loss: Some(loss.to_bits()), ..About::default() };
    write(path, about, model, Some(optimiser))
}

/// Goes on within an epoch from a checkpoint of this very job: gives the model, the mini-batches done and their loss,
/// and fills in the momentum. What another epoch left says nothing.
///
/// # Errors
/// When the file is not whole.
pub(crate) fn resume_within_epoch(
    path: &Path,
    job: &str,
    fresh: &Model,
    optimiser: &mut Sgd,
) -> Result<Option<(Model, u32, MeanLoss)>, LearnError> {
    if !path.exists() {
        return Ok(None);
    }
    let file = TensorFile::read(path)?;
    match file.about.clone() {
        About { done: Some(done), job: Some(theirs), loss: Some(loss), .. } if theirs == job => {
            Ok(Some((read(file, fresh, Some(optimiser))?, done, MeanLoss::from_bits(loss))))
        }
        About { .. } => Ok(None),
    }
}

fn write(path: &Path, about: About, model: &Model, optimiser: Option<&Sgd>) -> Result<(), LearnError> {
    let about = About { normalisation: model.normalisation, ..about };
    let momentum: Vec<_> = optimiser
        .iter()
        .flat_map(|sgd| sgd.named(model))
        .map(|(name, tensor)| (format!("{MOMENTUM}{name}"), tensor))
        .collect();
    let tensors = model.named().chain(momentum.iter().map(|(name, tensor)| (name.as_str(), *tensor)));
    tensor_file::write(path, &about, tensors).map(|_| ())
}

fn read(mut file: TensorFile, fresh: &Model, optimiser: Option<&mut Sgd>) -> Result<Model, LearnError> {
    if let Some(optimiser) = optimiser {
        optimiser.restore(fresh, |name, shape| file.take(&format!("{MOMENTUM}{name}"), shape))?;
    }
    Model::from_file(file, Some(fresh.architecture()), fresh.place())
}
