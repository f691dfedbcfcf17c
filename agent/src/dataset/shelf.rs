//! Which versions of the dataset there were: enough to say what changed since any of the last ones.
//!
//! ```text
//! DATA_DIR/datasets/versions.json       the versions, newest last
//! DATA_DIR/datasets/VERSION.samples     labels and hashes of a version's samples
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twin_data::manifest::Manifest;
use twin_shared::id::{BlobHash, DatasetVersion};

use crate::durable;

/// Versions that are remembered: a twin that is further behind gets the whole dataset.
const REMEMBERED: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Shelf {
    folder: PathBuf,
}

/// A version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// 64 hexadecimal digits; the name of its blob too.
    pub(super) version: String,
    pub(super) bytes: u64,
    pub(super) samples: u32,
    /// What it was made of; empty where that is not known.
    pub(super) source: String,
}

impl Record {
    /// Its blob. A name that is none is nobody's blob.
    pub(super) fn blob(&self) -> BlobHash {
        BlobHash::from_hex(&self.version).unwrap_or(BlobHash([0; 32]))
    }
}

impl Shelf {
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The versions, newest last. A list that cannot be read is as good as none: the dataset is sent whole then.
    pub(super) fn records(&self) -> io::Result<Vec<Record>> {
        let bytes = durable::read(&self.folder.join("versions.json"))?.unwrap_or_else(|| b"[]".to_vec());
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "the list of dataset versions is not readable and is forgotten");
            Vec::new()
        }))
    }

    /// Remembers a version as the newest.
    pub(super) fn put(&self, record: Record, manifest: &Manifest) -> io::Result<()> {
        durable::replace(&self.samples(&record.version), &manifest.to_bytes())?;
        let mut records = self.records()?;
        records.retain(|known| known.version != record.version);
        records.push(record);
        let forgotten: Vec<Record> = records.drain(..records.len().saturating_sub(REMEMBERED)).collect();
        durable::replace(&self.folder.join("versions.json"), &serde_json::to_vec(&records)?)?;
        for old in forgotten {
            match fs::remove_file(self.samples(&old.version)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The samples of a version, if it is remembered.
    pub(super) fn manifest(&self, version: DatasetVersion) -> Option<Manifest> {
        let bytes = fs::read(self.samples(&version.to_string())).ok()?;
        Manifest::from_bytes(version, &bytes)
    }

    fn samples(&self, version: &str) -> PathBuf {
        self.folder.join(format!("{version}.samples"))
    }
}
