//! `manifest.json`: which pictures of a folder belong to the dataset.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Change, FolderError, replace};
use crate::classes::{ClassError, ClassList, check_names};
use crate::image_set::SampleHash;

/// The manifest's name in its folder.
pub const MANIFEST: &str = "manifest.json";
/// Longest manifest that is read, bytes: a million pictures.
const MAX_BYTES: u64 = 256 << 20;
const VERSION: u32 = 1;

/// A picture of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its class.
    pub class: String,
    /// Its file's name in the class's folder.
    pub file: String,
    /// Length of the file.
    pub bytes: u64,
    /// When the file was written, nanoseconds since 1970.
    pub modified: u64,
    /// The image that it becomes.
    #[serde(with = "hex")]
    pub sample: SampleHash,
}

/// The list of a dataset's pictures, in order of class and name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FolderManifest {
    /// The pictures.
    pub pictures: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    pictures: Vec<Entry>,
}

impl FolderManifest {
    pub(super) fn read(file: &Path) -> Result<Option<Self>, FolderError> {
        let wrong = |problem: String| FolderError::Manifest { path: file.to_owned(), problem };
        match fs::metadata(file) {
            Ok(data) if data.len() > MAX_BYTES => return Err(wrong(format!("{} bytes", data.len()))),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FolderError::io(file)(error)),
        }
        let bytes = fs::read(file).map_err(FolderError::io(file))?;
        let written: Written = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if written.version != VERSION {
            return Err(wrong(format!("version {} is not {VERSION}", written.version)));
        }
        let classes: BTreeSet<&str> = written.pictures.iter().map(|entry| entry.class.as_str()).collect();
        check_names(classes).map_err(|error| wrong(error.to_string()))?;
        // A name that leads elsewhere would let a manifest reach files beyond the folder.
        let leads_away = |file: &str| file.is_empty() || file.starts_with('.') || file.contains('/');
        if let Some(entry) = written.pictures.iter().find(|entry| leads_away(&entry.file)) {
            return Err(wrong(format!("{:?} is no file's name", entry.file)));
        }
        Ok(Some(Self { pictures: written.pictures }))
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), FolderError> {
        let written = Written { version: VERSION, pictures: self.pictures.clone() };
        let mut bytes = serde_json::to_vec_pretty(&written).map_err(io::Error::from).map_err(FolderError::io(file))?;
        bytes.push(b'\n');
        replace(file, &bytes)
    }

    /// The index of every class that occurs.
    ///
    /// # Errors
    /// When one is not in the list; the first of them is named.
    pub fn labels(&self, classes: &ClassList) -> Result<BTreeMap<&str, u16>, ClassError> {
        let names: BTreeSet<&str> = self.pictures.iter().map(|entry| entry.class.as_str()).collect();
        names.into_iter().map(|name| Ok((name, classes.index(name)?))).collect()
    }

    /// What leads from this list to another, by samples.
    #[must_use]
    pub fn change_to(&self, other: &Self) -> Change {
        let by_sample = |manifest: &Self| -> BTreeMap<SampleHash, String> {
            manifest.pictures.iter().map(|entry| (entry.sample, entry.class.clone())).collect()
        };
        let (before, after) = (by_sample(self), by_sample(other));
        Change {
            added: after.keys().filter(|sample| !before.contains_key(sample)).count(),
            deleted: before.keys().filter(|sample| !after.contains_key(sample)).count(),
            relabelled: after
                .iter()
                .filter(|(sample, class)| before.get(sample).is_some_and(|was| was != *class))
                .count(),
        }
    }
}

mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::image_set::SampleHash;

    pub(super) fn serialize<S: Serializer>(hash: &SampleHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SampleHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        SampleHash::from_hex(&text).ok_or_else(|| D::Error::custom("a sample is 32 hexadecimal digits"))
    }
}
