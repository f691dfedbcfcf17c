//! Models that boards may answer by: what each job has made of each board's student, and which of them was promoted
//! when.

use rusqlite::{OptionalExtension, Row, params};
use twin_shared::id::{BlobHash, DeviceId, JobId, ModelVersion};
use twin_shared::pipe::Score;

use super::{Store, StoreError};

/// One model of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRecord {
    /// Its version.
    pub version: ModelVersion,
    /// The job that made it.
    pub job: JobId,
    /// Epochs that it was trained.
    pub epochs: u32,
    /// The network's name.
    pub architecture: String,
    /// The student state in it.
    pub state: BlobHash,
    /// The file, among the device's blobs.
    pub bundle: BlobHash,
    /// What it scored on the device's held-out images when it was made.
    pub held_out: Score,
    /// Seconds since 1970 when it was made.
    pub made: i64,
}

impl Store {
    /// Takes a model in; the same one again changes nothing.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn add_model(&self, device: &DeviceId, model: &ModelRecord) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO model
                   (device, version, job, epochs, architecture, state, bundle, correct, total)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let values = params![
            device.as_str(),
            model.version.0,
            model.job.0,
            model.epochs,
            model.architecture,
            model.state.0,
            model.bundle.0,
            model.held_out.correct,
            model.held_out.total,
        ];
        self.asked(self.records.execute(sql, values)).map(drop)
    }

    /// A device's models, the oldest first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn models(&self, device: &DeviceId) -> Result<Vec<ModelRecord>, StoreError> {
        let sql = "SELECT version, job, epochs, architecture, state, bundle, correct, total, made
                   FROM model WHERE device = ?1 ORDER BY job, rowid";
        let mut statement = self.asked(self.records.prepare(sql))?;
        let rows = self.asked(statement.query_map([device.as_str()], model))?;
        rows.map(|row| self.asked(row)).collect()
    }

    /// A device's model: the one that is named, by a prefix that fits one alone, or the latest.
    ///
    /// # Errors
    /// When there is none, or the database refuses.
    pub fn model(&self, device: &DeviceId, named: Option<&str>) -> Result<ModelRecord, StoreError> {
        self.device(device)?;
        let mut models = self.models(device)?;
        let Some(named) = named else {
            return models.pop().ok_or_else(|| StoreError::NoModel(device.clone()));
        };
        let fits = |model: &ModelRecord| !named.is_empty() && model.version.to_string().starts_with(named);
        let mut fitting: Vec<_> = models.iter().filter(|model| fits(model)).cloned().collect();
        match (fitting.pop(), fitting.is_empty()) {
            (Some(model), true) => Ok(model),
            (Some(_), false) | (None, _) => {
                let known: Vec<_> = models.iter().map(|model| format!("{:.12}", model.version.to_string())).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(StoreError::UnknownModel { device: device.clone(), version: named.to_owned(), known })
            }
        }
    }

    /// A device answers by this model from now on.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn promote(&self, device: &DeviceId, version: ModelVersion) -> Result<(), StoreError> {
        let sql = "INSERT INTO promotion (device, version) VALUES (?1, ?2)";
        self.asked(self.records.execute(sql, params![device.as_str(), version.0])).map(drop)
    }

    /// The model that a device answers by.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn promoted(&self, device: &DeviceId) -> Result<Option<ModelRecord>, StoreError> {
        self.latest_promotion(device, i64::MAX)
    }

    /// The model that a device answered by before it first answered by this one: going back again and again leads to the
    /// first, and never forward to one that was given up.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn promoted_before(&self, device: &DeviceId, present: ModelVersion) -> Result<Option<ModelRecord>, StoreError> {
        let sql = "SELECT min(id) FROM promotion WHERE device = ?1 AND version = ?2";
        let first = self.records.query_row(sql, params![device.as_str(), present.0], |row| row.get(0));
        match self.asked(first)? {
            Some(first) => self.latest_promotion(device, first),
            None => Ok(None),
        }
    }

    /// The model of the latest promotion before this one.
    fn latest_promotion(&self, device: &DeviceId, before: i64) -> Result<Option<ModelRecord>, StoreError> {
        let sql = "SELECT m.version, m.job, m.epochs, m.architecture, m.state, m.bundle, m.correct, m.total, m.made
                   FROM promotion p JOIN model m ON m.device = p.device AND m.version = p.version
                   WHERE p.device = ?1 AND p.id < ?2 ORDER BY p.id DESC LIMIT 1";
        let row = self.records.query_row(sql, params![device.as_str(), before], model);
        self.asked(row.optional())
    }
}

fn model(row: &Row<'_>) -> rusqlite::Result<ModelRecord> {
    Ok(ModelRecord {
        version: ModelVersion(row.get(0)?),
        job: JobId(row.get(1)?),
        epochs: row.get(2)?,
        architecture: row.get(3)?,
        state: BlobHash(row.get(4)?),
        bundle: BlobHash(row.get(5)?),
        held_out: Score { correct: row.get(6)?, total: row.get(7)? },
        made: row.get(8)?,
    })
}
