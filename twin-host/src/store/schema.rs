//! The database's tables, and how an older database becomes a new one.

use rusqlite::Connection;

/// The schema of this program: the number of steps below.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Each step brings a database of the version before to the next. A released step is never changed.
const STEPS: [&str; 8] = [
    "
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
",
    // Jobs that outlive the host. What ran under a host that could not resume it is over.
    "
    ALTER TABLE job ADD COLUMN state TEXT NOT NULL DEFAULT 'stopped';
    ALTER TABLE job ADD COLUMN progress TEXT;
    ALTER TABLE job ADD COLUMN objective REAL;
    UPDATE job SET state = 'finished' WHERE outcome = 'finished';
    UPDATE job SET state = 'failed' WHERE outcome NOT IN ('finished', 'stopped');
    CREATE TABLE member (
        job INTEGER NOT NULL REFERENCES job (id),
        device TEXT NOT NULL,
        progress TEXT NOT NULL,
        PRIMARY KEY (job, device)
    ) STRICT;
    CREATE TABLE log (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        device TEXT NOT NULL,
        at INTEGER NOT NULL DEFAULT (unixepoch()),
        level TEXT NOT NULL,
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX log_of_device ON log (device, id);
    CREATE TABLE class (
        position INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE model (
        device TEXT NOT NULL,
        version BLOB NOT NULL,
        job INTEGER NOT NULL,
        epochs INTEGER NOT NULL,
        architecture TEXT NOT NULL,
        state BLOB NOT NULL,
        bundle BLOB NOT NULL,
        correct INTEGER NOT NULL,
        total INTEGER NOT NULL,
        made INTEGER NOT NULL DEFAULT (unixepoch()),
        PRIMARY KEY (device, version)
    ) STRICT;
    CREATE TABLE promotion (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        device TEXT NOT NULL,
        version BLOB NOT NULL,
        at INTEGER NOT NULL DEFAULT (unixepoch())
    ) STRICT;
",
    // Samples that a board kept while the host was out of reach. A queue's numbers say which are known already, and
    // those that never came were dropped.
    "
    CREATE TABLE kept_sample (
        device TEXT NOT NULL,
        queue INTEGER NOT NULL,
        number INTEGER NOT NULL,
        taken_ms INTEGER NOT NULL,
        sample BLOB NOT NULL,
        PRIMARY KEY (device, queue, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX kept_sample_age ON kept_sample (device, taken_ms);
    CREATE TABLE kept_queue (
        device TEXT NOT NULL,
        queue INTEGER NOT NULL,
        next INTEGER NOT NULL,
        dropped INTEGER NOT NULL,
        PRIMARY KEY (device, queue)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE traffic (
        device TEXT NOT NULL,
        day INTEGER NOT NULL,
        use TEXT NOT NULL,
        up INTEGER NOT NULL,
        down INTEGER NOT NULL,
        PRIMARY KEY (device, day, use)
    ) STRICT;
",
    // The names of a job's classes, and the job whose teacher its own goes on from.
    "
    ALTER TABLE job ADD COLUMN classes TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE job ADD COLUMN parent INTEGER REFERENCES job (id);
",
    // What was learnt of devices, and why they got what they got.
    "
    ALTER TABLE twin ADD COLUMN experience TEXT;
    CREATE TABLE decision (
        device TEXT PRIMARY KEY,
        job INTEGER NOT NULL REFERENCES job (id),
        number INTEGER NOT NULL,
        decided INTEGER NOT NULL DEFAULT (unixepoch()),
        record TEXT NOT NULL
    ) STRICT;
",
    // Certificates, and keys that devices change over to while they work.
    "
    ALTER TABLE device ADD COLUMN certificate BLOB;
    ALTER TABLE device ADD COLUMN authority BLOB;
    ALTER TABLE device ADD COLUMN expires INTEGER;
    ALTER TABLE device ADD COLUMN next_key BLOB;
    ALTER TABLE device ADD COLUMN next_certificate BLOB;
    ALTER TABLE device ADD COLUMN next_authority BLOB;
    ALTER TABLE device ADD COLUMN next_expires INTEGER;
    ALTER TABLE device ADD COLUMN renew INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE broker_name (name TEXT PRIMARY KEY) STRICT;
",
    // Pictures that boards let their host label, and the labels that it has given them.
    "
    CREATE TABLE waiting (device TEXT PRIMARY KEY, blob BLOB NOT NULL) STRICT;
    CREATE TABLE waiting_label (
        device TEXT NOT NULL,
        sample BLOB NOT NULL,
        class TEXT NOT NULL,
        PRIMARY KEY (device, sample)
    ) STRICT, WITHOUT ROWID;
",
];

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
    advance(records, found, VERSION)?;
    Ok(Migration::Done)
}

/// Takes the steps between two versions, each a transaction.
pub(super) fn advance(records: &mut Connection, from: i64, to: i64) -> rusqlite::Result<()> {
    for (step, next) in STEPS.iter().zip(1..).filter(|(_, next)| (from + 1..=to).contains(next)) {
        let transaction = records.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", next)?;
        transaction.commit()?;
    }
    Ok(())
}
