//! What can be wrong with a dataset.

use std::io;
use std::path::{Path, PathBuf};

use crate::image_set::{MAX_BYTES, VERSION};

/// What is wrong with a dataset.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not an image set, or one of another version.
    #[error("not an image set of version {VERSION}: {0}")]
    Foreign(&'static str),
    /// The length does not fit what the header says, or is no whole number of records.
    #[error("{what} is cut short or has bytes too many: {actual} bytes where {expected} belong")]
    Length {
        /// What was read.
        what: String,
        /// Bytes that belong there.
        expected: u64,
        /// Bytes that are there.
        actual: u64,
    },
    /// More bytes than [`MAX_BYTES`].
    #[error("{what} has {bytes} bytes, more than the limit of {MAX_BYTES}")]
    TooLarge {
        /// What was read.
        what: String,
        /// Its size.
        bytes: u64,
    },
    /// A label that is not below the number of classes.
    #[error("sample {index} has label {label}, but there are {classes} classes")]
    LabelOutOfRange {
        /// Which sample.
        index: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: u32,
    },
    /// No samples at all, or none in a part that is needed.
    #[error("{0} has no samples")]
    Empty(String),
    /// A class without samples where every class is needed.
    #[error("class {class} has no samples")]
    EmptyClass {
        /// Which one.
        class: u16,
    },
    /// A mean or standard deviation that is no usable number.
    #[error("normalisation of channel {channel} is unusable: mean {mean}, standard deviation {deviation}")]
    Normalisation {
        /// The channel.
        channel: usize,
        /// Its mean.
        mean: f32,
        /// Its standard deviation.
        deviation: f32,
    },
    /// A text file with a line that is not what it should be.
    #[error("{what}, line {line}: {problem}")]
    Line {
        /// The file's kind.
        what: &'static str,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A split that cannot be made.
    #[error("{0}")]
    Split(String),
}

impl DataError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}
