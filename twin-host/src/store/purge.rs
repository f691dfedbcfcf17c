//! Forgetting a device: its twin, its blobs and every record of it go; what was learned from it stays, and is named.

use std::fs;
use std::io;

use twin_core::coordinator::JobProgress;
use twin_shared::id::{DeviceId, JobId};

use super::{Store, StoreError};

/// Tables with rows of a device, beside its own.
pub(super) const OF_DEVICE: [&str; 12] = [
    "twin",
    "member",
    "round",
    "model",
    "promotion",
    "log",
    "kept_sample",
    "kept_queue",
    "traffic",
    "decision",
    "waiting",
    "waiting_label",
];

impl Store {
    /// The jobs whose teachers were trained on a device's data.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn teachers_of(&self, device: &DeviceId) -> Result<Vec<JobId>, StoreError> {
        let used = |progress: &JobProgress| match progress {
            JobProgress::Teaching(twins) | JobProgress::Distilling { twins, .. } => {
                twins.iter().any(|(twin, _)| twin == device)
            }
            JobProgress::Gathering => false,
        };
        Ok(self.jobs()?.into_iter().filter(|record| used(&record.progress)).map(|record| record.job).collect())
    }

    /// Deletes a device for good: every record of it, and its directory with every blob.
    ///
    /// # Errors
    /// When it is unknown, or database or disk refuse. Records go first, all or none; a directory that is left is named
    /// and goes with the next try.
    pub fn purge(&mut self, device: &DeviceId) -> Result<(), StoreError> {
        self.device(device)?;
        let path = self.root.join("twin.sqlite");
        let mut write = || {
            let transaction = self.records.transaction()?;
            for table in OF_DEVICE {
                transaction.execute(&format!("DELETE FROM {table} WHERE device = ?1"), [device.as_str()])?;
            }
            transaction.execute("DELETE FROM device WHERE name = ?1", [device.as_str()])?;
            transaction.commit()
        };
        write().map_err(|error| StoreError::Records { path, error })?;
        let directory = self.twin_directory(device);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::Files { path: directory, error }),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
