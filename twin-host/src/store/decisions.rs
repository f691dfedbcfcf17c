//! The latest decision on each device, for `twin-host show`.

use std::path::PathBuf;

use rusqlite::{OptionalExtension, params};
use serde_json::{Value, json};
use twin_shared::id::{DeviceId, JobId};

use super::{Store, StoreError};
use crate::decide::Record;

/// The latest decision on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionRecord {
    /// The job.
    pub job: JobId,
    /// Its number within the job: the name of its files.
    pub number: u32,
    /// When, seconds since 1970.
    pub decided: i64,
    /// The device's part of the record, with the host's figures, the policy and its objective.
    pub record: Value,
}

impl Store {
    /// Keeps each device's part of a decision in place of an earlier one; all of them or none.
    ///
    /// # Errors
    /// When the database refuses.
    pub(crate) fn keep_decision(&self, job: JobId, number: u32, record: &Record) -> Result<(), StoreError> {
        let sql = "INSERT INTO decision (device, job, number, record) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (device) DO UPDATE SET job = excluded.job, number = excluded.number,
                   decided = unixepoch(), record = excluded.record";
        let transaction = self.asked(self.records.unchecked_transaction())?;
        for device in &record.devices {
            let text = json!({ "decision": record.summary(), "device": device }).to_string();
            self.asked(transaction.execute(sql, params![device.id, job.0, number, text]))?;
        }
        self.asked(transaction.commit())
    }

    /// The file that a decision's question was written to.
    #[must_use]
    pub fn decision_file(&self, decision: &DecisionRecord) -> PathBuf {
        self.job_directory(decision.job).join("decisions").join(format!("{:06}.toml", decision.number))
    }

    /// The latest decision on a device.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn decision(&self, device: &DeviceId) -> Result<Option<DecisionRecord>, StoreError> {
        let sql = "SELECT job, number, decided, record FROM decision WHERE device = ?1";
        let row = self.records.query_row(sql, [device.as_str()], |row| {
            Ok((JobId(row.get(0)?), row.get(1)?, row.get(2)?, row.get::<_, String>(3)?))
        });
        let Some((job, number, decided, text)) = self.asked(row.optional())? else { return Ok(None) };
        let record = serde_json::from_str(&text).map_err(|_| self.damaged(format!("the decision on {device}")))?;
        Ok(Some(DecisionRecord { job, number, decided, record }))
    }
}
