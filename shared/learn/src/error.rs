//! What can go wrong in training.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong in training, each with its operands.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// A dataset is not what it should be.
    #[error("dataset {path}: {source}")]
    Dataset {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: twin_data::DataError,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is no safetensors, or one cut short.
    #[error("{path} is not a whole safetensors file: {problem}")]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        problem: String,
    },
    /// Tensor names of no network of the zoo.
    #[error("{path} holds no network of the zoo: {problem}")]
    UnknownNetwork {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// A tensor that the network has and the file lacks.
    #[error("{path} lacks tensor `{name}` of shape {expected:?}")]
    TensorMissing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        expected: Vec<i64>,
    },
    /// A tensor of another shape than the network's.
    #[error("{path}: tensor `{name}` has shape {actual:?}, the network has {expected:?}")]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape in the network.
        expected: Vec<i64>,
        /// Shape in the file.
        actual: Vec<i64>,
    },
    /// A tensor that the network does not have.
    #[error("{path}: tensor `{name}` belongs to no layer of this network")]
    TensorUnknown {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that holds a number which is none.
    #[error("{path}: tensor `{name}` holds a value that is not finite")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A block of labels that cannot be used.
    #[error("labels {path}: {problem}")]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A job that makes no sense.
    #[error("{0}")]
    Job(String),
    /// The loss is no number any more.
    #[error(
        "training diverged: the loss of step {step} is {loss}; a lower learning rate than {learning_rate} may help"
    )]
    Diverged {
        /// Step within the epoch, from 0.
        step: u32,
        /// The loss.
        loss: f64,
        /// The learning rate.
        learning_rate: f64,
    },
    /// LibTorch refused an operation.
    #[error("LibTorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
}

/// LibTorch appends a C++ backtrace to its messages.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

impl LearnError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn dataset(path: &Path) -> impl FnOnce(twin_data::DataError) -> Self {
        let path = path.to_owned();
        move |source| Self::Dataset { path, source }
    }
}
