//! Bytes carried, by device, day and use.

use rusqlite::params;
use twin_shared::id::DeviceId;

use super::{Store, StoreError};
use crate::traffic::{Carried, Day, Entry, Use};

impl Store {
    /// Adds what was carried.
    ///
    /// # Errors
    /// When the database refuses; nothing is added then.
    pub fn add_traffic(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let added = self.records.transaction().and_then(|transaction| {
            for ((device, day, used), carried) in entries {
                let sql = "INSERT INTO traffic (device, day, use, up, down) VALUES (?1, ?2, ?3, ?4, ?5)
                           ON CONFLICT (device, day, use) DO UPDATE SET up = up + excluded.up, down = down + excluded.down";
                let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
                let values = params![device.as_str(), day.0, used.name(), number(carried.up), number(carried.down)];
                transaction.execute(sql, values)?;
            }
            transaction.commit()
        });
        self.asked(added)
    }

    /// What was carried for a device since a day, by use.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn traffic(&self, device: &DeviceId, since: Day) -> Result<Vec<(Use, Carried)>, StoreError> {
        let sql = "SELECT coalesce(sum(up), 0), coalesce(sum(down), 0) FROM traffic
                   WHERE device = ?1 AND use = ?2 AND day >= ?3";
        let of = |used: Use| {
            let row = self.records.query_row(sql, params![device.as_str(), used.name(), since.0], |row| {
                Ok(Carried { up: row.get::<_, i64>(0)?.unsigned_abs(), down: row.get::<_, i64>(1)?.unsigned_abs() })
            });
            Ok((used, self.asked(row)?))
        };
        Use::ALL.into_iter().map(of).collect()
    }
}
