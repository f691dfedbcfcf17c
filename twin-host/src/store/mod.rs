//! Twins on disk: records in SQLite, blobs beside it by their hash.
//!
//! ```text
//! DATA_DIR/twin.sqlite             devices, twins, jobs, epochs
//! DATA_DIR/twins/DEVICE/blobs/     the device's dataset and student states, private to its twin
//! DATA_DIR/authority/              the certificate authority
//! DATA_DIR/jobs/JOB/               the teacher and what is being worked on
//! ```
//!
//! A record is committed with `synchronous = FULL` before anything that depends on it is acknowledged.

mod backup;
mod classes;
mod collect;
mod decisions;
mod devices;
mod jobs;
mod logs;
mod models;
mod purge;
mod samples;
mod schema;
mod traffic;
mod waiting;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use decisions::DecisionRecord;
use rusqlite::{Connection, OptionalExtension, params};
use twin_core::experience::Experience;
use twin_core::twin::{DatasetCounts, Twin, TwinDataset};
use twin_data::blobs::{BlobError, Blobs};
use twin_data::classes::ClassError;
use twin_shared::id::{BlobHash, DatasetVersion, DeviceId, JobId};

pub use devices::{Credential, DeviceRecord};

pub use backup::{BackupError, restore};
pub(crate) use collect::Named;
pub(crate) use jobs::Advance;
pub use jobs::{JobRecord, JobState, StudentRecord};
pub use models::ModelRecord;

/// The host's memory.
#[derive(Debug)]
pub struct Store {
    records: Connection,
    root: PathBuf,
}

/// Why the store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused.
    #[error("{path}: {error}")]
    Records {
        /// The database.
        path: PathBuf,
        /// What it said.
        error: rusqlite::Error,
    },
    /// The file system refused.
    #[error("{path}: {error}")]
    Files {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A blob could not be read or written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The database was written by a later version.
    #[error("{path} has schema {found}, this program knows up to {known}: use the newer program")]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// No such job.
    #[error("no job {0}; twin-host job list shows them")]
    UnknownJob(JobId),
    /// A device has no model yet.
    #[error("{0} has no model yet: one is made of its student when a job is finished")]
    NoModel(DeviceId),
    /// A device has no such model.
    #[error("{device} has no model {version}, or several that begin so; it has: {known}")]
    UnknownModel {
        /// Whose.
        device: DeviceId,
        /// What was asked for.
        version: String,
        /// What there is.
        known: String,
    },
    /// A class that cannot be.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// No such device.
    #[error("no device {0} is enrolled; enrolled: {1}")]
    UnknownDevice(DeviceId, String),
    /// A value in the database that cannot be.
    #[error("{path}: {what} is damaged")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Which value.
        what: String,
    },
}

impl Store {
    /// Opens a data directory, making it where it is missing; readable by its owner only.
    ///
    /// # Errors
    /// When it cannot be made or read, or was written by a later version.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let files = |error| StoreError::Files { path: root.clone(), error };
        fs::create_dir_all(&root).map_err(files)?;
        private(&root).map_err(files)?;
        let path = root.join("twin.sqlite");
        let refused = |error| StoreError::Records { path: path.clone(), error };
        let mut records = Connection::open(&path).map_err(refused)?;
        records.pragma_update(None, "journal_mode", "WAL").map_err(refused)?;
        records.pragma_update(None, "synchronous", "FULL").map_err(refused)?;
        records.busy_timeout(std::time::Duration::from_secs(5)).map_err(refused)?;
        match schema::migrate(&mut records).map_err(refused)? {
            schema::Migration::Done => Ok(Self { records, root }),
            schema::Migration::Newer(found) => Err(StoreError::Newer { path, found, known: schema::VERSION }),
        }
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Counts the host's starts; the new number.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn begin_epoch(&self) -> Result<u64, StoreError> {
        let sql = "INSERT INTO counter (name, value) VALUES ('epoch', 1)
                   ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
        self.asked(self.records.query_row(sql, [], |row| row.get::<_, i64>(0))).map(i64::unsigned_abs)
    }

    /// What is known of a device's twin.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn twin(&self, device: &DeviceId) -> Result<Twin, StoreError> {
        let sql = "SELECT dataset_version, dataset_blob, train, held, labels, document, experience FROM twin
                   WHERE device = ?1";
        let row = self.records.query_row(sql, [device.as_str()], |row| {
            let dataset: (Option<[u8; 32]>, Option<[u8; 32]>) = (row.get(0)?, row.get(1)?);
            let counts: (Option<u32>, Option<u32>, Option<String>) = (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((dataset, counts, row.get::<_, i64>(5)?, row.get::<_, Option<String>>(6)?))
        });
        let Some((dataset, counts, document, experience)) = self.asked(row.optional())? else {
            return Ok(Twin::new(None, 0));
        };
        let counts = match counts {
            (Some(train), Some(held), Some(labels)) => {
                let labels =
                    serde_json::from_str(&labels).map_err(|_| self.damaged(format!("the label counts of {device}")))?;
                Some(DatasetCounts { train, held, labels })
            }
            _ => None,
        };
        let dataset = match dataset {
            (Some(version), Some(blob)) => {
                Some(TwinDataset { version: DatasetVersion(version), blob: BlobHash(blob), counts })
            }
            _ => None,
        };
        let mut twin = Twin::new(dataset, document.unsigned_abs());
        if let Some(text) = experience {
            twin.experience =
                serde_json::from_str(&text).map_err(|_| self.damaged(format!("what was learnt of {device}")))?;
        }
        Ok(twin)
    }

    /// What was learnt of a device from now on.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn keep_experience(&self, device: &DeviceId, experience: &Experience) -> Result<(), StoreError> {
        let text = serde_json::to_string(experience).expect("numbers and names serialise");
        let sql = "INSERT INTO twin (device, experience) VALUES (?1, ?2)
                   ON CONFLICT (device) DO UPDATE SET experience = excluded.experience";
        self.asked(self.records.execute(sql, params![device.as_str(), text])).map(drop)
    }

    /// A twin holds a dataset from now on; counts of an earlier one are forgotten.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn hold_dataset(&self, device: &DeviceId, version: DatasetVersion, blob: BlobHash) -> Result<(), StoreError> {
        let sql = "INSERT INTO twin (device, dataset_version, dataset_blob) VALUES (?1, ?2, ?3)
                   ON CONFLICT (device) DO UPDATE SET dataset_version = excluded.dataset_version,
                   dataset_blob = excluded.dataset_blob, train = NULL, held = NULL, labels = NULL";
        self.asked(self.records.execute(sql, params![device.as_str(), version.0, blob.0])).map(drop)
    }

    /// A twin's dataset was counted.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn count_dataset(&self, device: &DeviceId, counts: &DatasetCounts) -> Result<(), StoreError> {
        let labels = serde_json::to_string(&counts.labels).expect("numbers serialise");
        let sql = "UPDATE twin SET train = ?2, held = ?3, labels = ?4 WHERE device = ?1";
        self.asked(self.records.execute(sql, params![device.as_str(), counts.train, counts.held, labels])).map(drop)
    }

    /// A device's own blobs.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn blobs(&self, device: &DeviceId) -> Result<Blobs, StoreError> {
        Ok(Blobs::open(self.twin_directory(device).join("blobs"))?)
    }

    /// Where the certificate authority's files lie.
    #[must_use]
    pub fn authority_directory(&self) -> PathBuf {
        self.root.join("authority")
    }

    /// Where a twin's files lie.
    #[must_use]
    pub fn twin_directory(&self, device: &DeviceId) -> PathBuf {
        self.root.join("twins").join(device.as_str())
    }

    /// Where a job's files lie.
    #[must_use]
    pub fn job_directory(&self, job: JobId) -> PathBuf {
        self.root.join("jobs").join(job.to_string())
    }

    /// The weights of a job's teacher.
    #[must_use]
    pub fn teacher(&self, job: JobId) -> PathBuf {
        self.job_directory(job).join("teacher.safetensors")
    }

    /// Puts the teacher that a trainer has written in its place; its hash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn place_teacher(&self, job: JobId, written: &Path) -> Result<BlobHash, StoreError> {
        let place = self.teacher(job);
        let files = |error| StoreError::Files { path: place.clone(), error };
        let mut file = fs::File::open(written).map_err(files)?;
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut file, &mut hasher).map_err(files)?;
        file.sync_all().map_err(files)?;
        fs::rename(written, &place).map_err(files)?;
        fs::File::open(self.job_directory(job)).and_then(|directory| directory.sync_all()).map_err(files)?;
        Ok(BlobHash(*hasher.finalize().as_bytes()))
    }

    /// Removes what a job needs only while it is not over: its teacher's checkpoint, and its students' momentum.
    ///
    /// # Errors
    /// When the database or the disk refuses.
    pub(crate) fn clear_job(&self, job: JobId) -> Result<(), StoreError> {
        let mut directories = vec![self.job_directory(job)];
        directories.extend(self.devices()?.iter().map(|record| self.twin_directory(&record.device)));
        for directory in directories.into_iter().filter(|directory| directory.is_dir()) {
            let files = |error| StoreError::Files { path: directory.clone(), error };
            for entry in fs::read_dir(&directory).map_err(files)? {
                let path = entry.map_err(files)?.path();
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                let momentum = name.starts_with(&format!("job{job}.")) && name.ends_with(".momentum");
                if momentum || name.ends_with(".checkpoint") {
                    fs::remove_file(&path).map_err(files)?;
                }
            }
        }
        Ok(())
    }

    /// An empty directory for what the trainers of this life of the host write; those of earlier lives go.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn begin_work(&self, life: u64) -> Result<PathBuf, StoreError> {
        let all = self.root.join("work");
        let files = |error| StoreError::Files { path: all.clone(), error };
        match fs::remove_dir_all(&all) {
            // A trainer that outlives its host by a step may be writing there; its life's directory goes with the next.
            Err(error)
                if error.kind() != io::ErrorKind::NotFound && error.kind() != io::ErrorKind::DirectoryNotEmpty =>
            {
                return Err(files(error));
            }
            Ok(()) | Err(_) => {}
        }
        let own = all.join(life.to_string());
        fs::create_dir_all(&own).map_err(files)?;
        Ok(own)
    }

    fn asked<T>(&self, answer: rusqlite::Result<T>) -> Result<T, StoreError> {
        answer.map_err(|error| StoreError::Records { path: self.root.join("twin.sqlite"), error })
    }

    fn damaged(&self, what: String) -> StoreError {
        StoreError::Damaged { path: self.root.join("twin.sqlite"), what }
    }

    fn unknown(&self, device: &DeviceId) -> StoreError {
        let known = self.devices().unwrap_or_default();
        let names: Vec<&str> = known.iter().map(|record| record.device.as_str()).collect();
        StoreError::UnknownDevice(device.clone(), if names.is_empty() { "none".into() } else { names.join(", ") })
    }
}

/// Keys and datasets are nobody else's business.
fn private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests;
