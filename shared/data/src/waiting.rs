//! Pictures that wait for a label, as a board shows them to its host where its owner lets it, and the labels that come
//! back.

use std::collections::BTreeMap;

use crate::image_set::{IMAGE_BYTES, Image, SampleHash};

/// Pictures that are shown at a time; the others follow when these have their labels.
pub const MOST: usize = 100;
/// Longest file of waiting pictures, bytes.
pub const MAX_BYTES: u64 = (MAGIC.len() + MOST * IMAGE_BYTES) as u64;
/// Longest list of labels, bytes: a hundred names of the longest kind fit many times.
pub const MAX_LABELS: u64 = 1 << 20;

const MAGIC: &[u8; 8] = b"twinwait";

/// Why a file is none of these.
#[derive(Debug, thiserror::Error)]
pub enum WaitingError {
    /// Not waiting pictures.
    #[error("{0} bytes are no waiting pictures")]
    Pictures(usize),
    /// Not a list of labels.
    #[error("not a list of labels: {0}")]
    Labels(#[from] serde_json::Error),
    /// A sample's name is none.
    #[error("not a list of labels: {0:?} is no sample")]
    Sample(String),
}

/// The file of these pictures; of none it is a file too, which says so.
#[must_use]
pub fn to_bytes(pictures: &[Image]) -> Vec<u8> {
    MAGIC.iter().chain(pictures.iter().flatten()).copied().collect()
}

/// Reads such a file.
///
/// # Errors
/// When it is none, or of more than [`MOST`].
pub fn from_bytes(bytes: &[u8]) -> Result<Vec<Image>, WaitingError> {
    let wrong = || WaitingError::Pictures(bytes.len());
    let (images, rest) = bytes.strip_prefix(MAGIC).ok_or_else(wrong)?.as_chunks::<IMAGE_BYTES>();
    if !rest.is_empty() || images.len() > MOST {
        return Err(wrong());
    }
    Ok(images.to_vec())
}

/// Labels by the pictures that they are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(pub BTreeMap<SampleHash, String>);

impl Labels {
    /// As JSON: class names by samples, each of 32 hexadecimal digits.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let named: BTreeMap<String, &String> =
            self.0.iter().map(|(sample, class)| (sample.to_string(), class)).collect();
        serde_json::to_vec(&named).expect("names serialise")
    }

    /// Reads that.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_json(bytes: &[u8]) -> Result<Self, WaitingError> {
        let named: BTreeMap<String, String> = serde_json::from_slice(bytes)?;
        let sample = |name: String| SampleHash::from_hex(&name).ok_or(WaitingError::Sample(name));
        let labels = named.into_iter().map(|(name, class)| Ok((sample(name)?, class)));
        labels.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_and_labels_read_back_and_other_files_are_refused() {
        let pictures: Vec<Image> = (0..3).map(|grey| [grey; IMAGE_BYTES]).collect();
        let bytes = to_bytes(&pictures);
        assert_eq!(from_bytes(&bytes).expect("pictures"), pictures);
        assert!(from_bytes(&to_bytes(&[])).expect("none").is_empty());
        let many = vec![pictures[0]; MOST + 1];
        assert_eq!(to_bytes(&many[1..]).len() as u64, MAX_BYTES);
        for wrong in [&b""[..], b"twinwai", &bytes[..bytes.len() - 1], &bytes[1..], &to_bytes(&many)] {
            assert!(from_bytes(wrong).is_err());
        }
        let labels = Labels(pictures.iter().map(|image| (SampleHash::of(image), "cat".to_owned())).collect());
        assert_eq!(Labels::from_json(&labels.to_json()).expect("labels"), labels);
        for wrong in ["", "[]", "{\"ab\":\"cat\"}", "{\"zz\":1}"] {
            assert!(Labels::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
