//! The database's tables, and how an older database becomes a new one.

use rusqlite::Connection;

/// The schema of this program: the number of steps below.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Each step brings a database of the version before to the next. A released step is never changed.
const STEPS: [&str; 1] = ["
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    CREATE TABLE device (
        name TEXT PRIMARY KEY,
        key BLOB NOT NULL,
        enrolled INTEGER NOT NULL DEFAULT (unixepoch()),
        revoked INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE twin (
        device TEXT PRIMARY KEY,
        dataset_version BLOB,
        dataset_blob BLOB,
        train INTEGER,
        held INTEGER,
        labels TEXT,
        document INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE job (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        spec TEXT NOT NULL,
        started INTEGER NOT NULL DEFAULT (unixepoch()),
        outcome TEXT
    ) STRICT;
    CREATE TABLE round (
        job INTEGER NOT NULL REFERENCES job (id),
        device TEXT NOT NULL,
        round INTEGER NOT NULL,
        architecture TEXT NOT NULL,
        site TEXT NOT NULL,
        state BLOB NOT NULL,
        loss REAL NOT NULL,
        total_s REAL NOT NULL,
        PRIMARY KEY (job, device, round)
    ) STRICT;
"];

/// What became of a migration.
pub(super) enum Migration {
    /// The database has this program's schema.
    Done,
    /// It has a later one.
    Newer(i64),
}

/// Brings a database to this program's schema, a step a transaction.
pub(super) fn migrate(records: &mut Connection) -> rusqlite::Result<Migration> {
    let found: i64 = records.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Ok(Migration::Newer(found));
    }
    for (step, next) in STEPS.iter().zip(1..).skip(usize::try_from(found).unwrap_or(0)) {
        let transaction = records.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", next)?;
        transaction.commit()?;
    }
    Ok(Migration::Done)
}
