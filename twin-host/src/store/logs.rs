//! What boards have said to the operator, the latest of each.

use rusqlite::params;
use twin_shared::id::DeviceId;
use twin_shared::wire::{LogLevel, LogLine};

use super::{Store, StoreError};

/// Lines of a device that are kept.
const KEPT: i64 = 1000;

/// A line of a device's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Seconds since 1970 when it came.
    pub at: i64,
    /// `warning` or `error`.
    pub level: String,
    /// What the device said.
    pub text: String,
}

impl Store {
    /// Keeps a line; the oldest beyond a thousand of the device go.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn keep_log(&self, device: &DeviceId, line: &LogLine) -> Result<(), StoreError> {
        let level = match line.level {
            LogLevel::Warning => "warning",
            LogLevel::Error => "error",
        };
        let sql = "INSERT INTO log (device, level, text) VALUES (?1, ?2, ?3)";
        self.asked(self.records.execute(sql, params![device.as_str(), level, line.text.as_str()]))?;
        let sql = "DELETE FROM log WHERE device = ?1 AND id <=
                   (SELECT id FROM log WHERE device = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        self.asked(self.records.execute(sql, params![device.as_str(), KEPT])).map(drop)
    }

    /// The latest lines of a device, the oldest of them first.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn log(&self, device: &DeviceId, lines: u32) -> Result<Vec<LogRecord>, StoreError> {
        let sql = "SELECT at, level, text FROM
                   (SELECT id, at, level, text FROM log WHERE device = ?1 ORDER BY id DESC LIMIT ?2) ORDER BY id";
        let mut statement = self.asked(self.records.prepare(sql))?;
        let rows = statement.query_map(params![device.as_str(), lines], |row| {
            Ok(LogRecord { at: row.get(0)?, level: row.get(1)?, text: row.get(2)? })
        });
        self.asked(rows)?.map(|row| self.asked(row)).collect()
    }
}
