//! A board's student as one usable model: put together from the student's state, the teacher whose classifier it
//! reuses, the class names and the normalisation; and written for people.

mod onnx;
mod protobuf;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::Deserialize;
use twin_data::Normalisation;
use twin_data::blobs::{BlobError, Blobs};
use twin_data::bundle::{About, Bundle, BundleError, Weights};
use twin_shared::id::{BlobHash, DeviceId, JobId, ModelVersion};
use twin_shared::model::Architecture;
use twin_shared::plan::Method;

pub(crate) use onnx::onnx;

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file cannot be read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file is no state.
    #[error("{path}: {problem}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The parts make no model.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It cannot be put among the blobs.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// What a model is made of.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) device: DeviceId,
    pub(crate) job: JobId,
    pub(crate) epochs: u32,
    pub(crate) architecture: Architecture,
    pub(crate) method: Method,
    /// Class names by index.
    pub(crate) classes: Vec<String>,
    /// Training samples of each class of the board; classes beyond have none.
    pub(crate) label_counts: Vec<u32>,
    /// The teacher's weights, their file and their hash.
    pub(crate) teacher: (PathBuf, BlobHash),
    /// The student's state, its file and its hash.
    pub(crate) state: (PathBuf, BlobHash),
}

/// What the names of a teacher's classifier begin with, by network.
const CLASSIFIERS: [&str; 2] = ["fc.", "classifier."];

/// Makes a model and puts its file among the device's blobs; its version and its blob. Holds two copies of the student at
/// most, and takes its time: not for a thread that others wait for.
///
/// # Errors
/// As [`assemble`], or when the disk refuses.
pub(crate) fn make(parts: Parts, blobs: &Blobs) -> Result<(ModelVersion, BlobHash), ExportError> {
    let bundle = assemble(parts)?;
    let version = bundle.about.version();
    let bytes = bundle.to_bytes()?;
    drop(bundle);
    Ok((version, blobs.put(&bytes)?))
}

/// Puts a model together.
///
/// # Errors
/// When a file cannot be read, or the parts do not fit each other.
pub(crate) fn assemble(parts: Parts) -> Result<Bundle, ExportError> {
    let Parts { device, job, epochs, architecture, method, classes, mut label_counts, teacher, state } = parts;
    let (mut tensors, normalisation) = read(&state.0, |_| true)?;
    let method = match method {
        Method::SimKd => {
            let (mut teachers, _) = read(&teacher.0, |name| CLASSIFIERS.iter().any(|it| name.starts_with(it)))?;
            for part in ["weight", "bias"] {
                let own = CLASSIFIERS.iter().find_map(|classifier| teachers.remove(&format!("{classifier}{part}")));
                let tensor = own.ok_or_else(|| ExportError::State {
                    path: teacher.0.clone(),
                    problem: format!("it has no classifier's {part}"),
                })?;
                tensors.insert(format!("classifier.{part}"), tensor);
            }
            "simkd"
        }
        Method::Kd { .. } => "kd",
        Method::CrossEntropy => "cross-entropy",
    };
    let normalisation = normalisation.ok_or_else(|| ExportError::State {
        path: state.0.clone(),
        problem: "it does not say how images are normalised for it".into(),
    })?;
    label_counts.resize(classes.len(), 0);
    let about = About {
        architecture,
        method: method.into(),
        classes,
        normalisation,
        label_counts,
        teacher: teacher.1,
        state: state.1,
        device,
        job: job.0,
        epochs,
    };
    let bundle = Bundle { about, tensors };
    bundle.classifier()?;
    Ok(bundle)
}

/// What a trainer writes beside the tensors, as far as it matters here.
#[derive(Deserialize)]
struct Beside {
    normalisation: Option<Normalisation>,
}

/// The metadata's entry that a trainer writes.
const BESIDE: &str = "twinstill";

type Read = (BTreeMap<String, Weights>, Option<Normalisation>);

/// The tensors whose names are wanted.
fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Read, ExportError> {
    let bytes = fs::read(path).map_err(|error| ExportError::File { path: path.to_owned(), error })?;
    let wrong = |problem: String| ExportError::State { path: path.to_owned(), problem };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| wrong(error.to_string()))?;
    let beside = metadata.metadata().as_ref().and_then(|entries| entries.get(BESIDE));
    let beside = beside.map(|json| serde_json::from_str::<Beside>(json)).transpose();
    let normalisation = beside.map_err(|error| wrong(error.to_string()))?.and_then(|beside| beside.normalisation);
    let file = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter().filter(|(name, _)| wanted(name)) {
        if view.dtype() != Dtype::F32 {
            return Err(wrong(format!("tensor {name} is not of f32")));
        }
        let values = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        tensors.insert(name.to_owned(), Weights { shape: view.shape().to_vec(), values });
    }
    Ok((tensors, normalisation))
}

#[cfg(test)]
mod tests;
