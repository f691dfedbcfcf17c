//! Samples that a board kept while the host was out of reach.

use std::io;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};
use twin_shared::id::{BlobHash, DeviceId};
use twin_shared::wire::codec;
use twin_shared::wire::telemetry::batch::{Batch, MAX_KEPT_BYTES};

use super::{Store, StoreError};

/// Samples of one device that are kept: a month at one every five seconds, some 50 MB. The oldest go.
const MOST: i64 = 500_000;

/// Largest number of a sample that is taken: at one a second, 30,000 years.
const LARGEST: u64 = 1 << 40;

/// Queues of one device that are known: a board makes a new one when its memory card is written anew.
const QUEUES: i64 = 256;

/// What is there of one board's time without its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptSamples {
    /// Samples that are here.
    pub samples: u64,
    /// Samples that the board dropped for want of room.
    pub dropped: u64,
}

impl Store {
    /// Takes in a batch of kept samples, of which it may know some already, and removes its blob.
    ///
    /// # Errors
    /// When the database or the disk refuses. A batch that is none is no error: it is told, and removed.
    pub fn keep_samples(&self, device: &DeviceId, blob: &BlobHash, now: SystemTime) -> Result<(), StoreError> {
        let blobs = self.blobs(device)?;
        let path = blobs.path(blob);
        let bytes = match std::fs::read(&path) {
            // It was taken in already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|error| StoreError::Files { path, error })?,
        };
        match Batch::open(&bytes) {
            Ok(batch) if batch.header().first <= LARGEST => self.asked(insert(&self.records, device, batch, now))?,
            Ok(batch) => tracing::warn!(%device, number = batch.header().first, "no board has taken so many samples"),
            Err(error) => tracing::warn!(%device, %error, "kept samples are no such thing"),
        }
        Ok(blobs.remove(blob)?)
    }

    /// What there is of a board's time without its host.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn kept_samples(&self, device: &DeviceId) -> Result<KeptSamples, StoreError> {
        let sql = "SELECT (SELECT count(*) FROM kept_sample WHERE device = ?1),
                   (SELECT coalesce(sum(dropped), 0) FROM kept_queue WHERE device = ?1)";
        let row =
            self.records.query_row(sql, [device.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        let (samples, dropped) = self.asked(row)?;
        Ok(KeptSamples { samples: samples.unsigned_abs(), dropped: dropped.unsigned_abs() })
    }
}

fn insert(records: &Connection, device: &DeviceId, batch: Batch<'_>, now: SystemTime) -> rusqlite::Result<()> {
    let header = batch.header();
    let device = device.as_str();
    // SQLite's integers have a sign; a queue's random number is a name, and the bits are what counts.
    let (queue, first) = (header.queue.cast_signed(), header.first.cast_signed());
    let transaction = records.unchecked_transaction()?;
    let sql = "INSERT INTO kept_queue (device, queue, next, dropped) SELECT ?1, ?2, 0, 0
               WHERE (SELECT count(*) FROM kept_queue WHERE device = ?1) < ?3 ON CONFLICT DO NOTHING";
    transaction.execute(sql, params![device, queue, QUEUES])?;
    let sql = "SELECT next FROM kept_queue WHERE device = ?1 AND queue = ?2";
    let known = transaction.query_row(sql, params![device, queue], |row| row.get::<_, i64>(0)).optional()?;
    let Some(known) = known else {
        tracing::warn!(device, "kept samples of one queue too many");
        return Ok(());
    };
    let mut next = first;
    {
        let sql = "INSERT INTO kept_sample (device, queue, number, taken_ms, sample) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT DO NOTHING";
        let mut statement = transaction.prepare(sql)?;
        for kept in batch {
            let Ok(kept) = kept else {
                tracing::warn!(device, "a batch of kept samples ends in its middle");
                break;
            };
            let ago = Duration::from_millis(header.clock_ms.saturating_sub(kept.time_ms));
            let taken = now.checked_sub(ago).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            let taken = i64::try_from(taken.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
            let mut buffer = [0; MAX_KEPT_BYTES];
            let sample: &[u8] = codec::encode(&kept.sample, &mut buffer).unwrap_or_default();
            statement.execute(params![device, queue, next, taken, sample])?;
            next += 1;
        }
    }
    // Numbers between what was known and what begins here never come: the board had no room for them.
    let sql = "UPDATE kept_queue SET dropped = dropped + max(0, ?3 - next), next = max(next, ?4)
               WHERE device = ?1 AND queue = ?2";
    if next > known {
        transaction.execute(sql, params![device, queue, first, next])?;
    }
    let sql = "DELETE FROM kept_sample WHERE device = ?1 AND taken_ms <=
               (SELECT taken_ms FROM kept_sample WHERE device = ?1 ORDER BY taken_ms DESC LIMIT 1 OFFSET ?2)";
    transaction.execute(sql, params![device, MOST])?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use super::*;
    use twin_shared::wire::seal::DeviceKey;
    use twin_shared::wire::telemetry::Telemetry;
    use twin_shared::wire::telemetry::batch::{Header, KeptSample};

    const CLOCK: u64 = 5_000_000;

    /// A batch of samples `numbers`, one taken each second, by a clock that is decades behind.
    fn batch(queue: u64, numbers: std::ops::Range<u64>) -> Vec<u8> {
        let header = Header { queue, first: numbers.start, clock_ms: CLOCK };
        let mut bytes = codec::encode(&header, &mut [0; 64]).unwrap().to_vec();
        for number in numbers {
            let kept = KeptSample {
                time_ms: (CLOCK - 100_000).saturating_add(number.saturating_mul(1000)),
                sample: Telemetry::default(),
            };
            bytes.extend_from_slice(codec::encode(&kept, &mut [0; MAX_KEPT_BYTES]).unwrap());
        }
        bytes
    }

    struct Host {
        store: Store,
        device: DeviceId,
        _folder: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let device: DeviceId = "board1".parse().unwrap();
            store.enroll(&device, &DeviceKey::new([3; 32])).unwrap();
            Self { store, device, _folder: folder }
        }

        fn take(&self, bytes: &[u8]) -> KeptSamples {
            let blob = self.store.blobs(&self.device).unwrap().put(bytes).unwrap();
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            self.store.keep_samples(&self.device, &blob, now).unwrap();
            assert!(!self.store.blobs(&self.device).unwrap().contains(&blob), "the blob goes");
            self.store.kept_samples(&self.device).unwrap()
        }
    }

    #[test]
    fn what_comes_twice_is_kept_once_and_what_never_comes_was_dropped() {
        let host = Host::new();
        assert_eq!(host.take(&batch(1, 0..10)), KeptSamples { samples: 10, dropped: 0 });
        assert_eq!(host.take(&batch(1, 0..10)), KeptSamples { samples: 10, dropped: 0 });
        assert_eq!(host.take(&batch(1, 5..15)), KeptSamples { samples: 15, dropped: 0 });
        assert_eq!(host.take(&batch(1, 20..22)), KeptSamples { samples: 17, dropped: 5 });
        // A board whose memory card was written anew counts from 0.
        assert_eq!(host.take(&batch(2, 1..3)), KeptSamples { samples: 19, dropped: 6 });
        let sql = "SELECT min(taken_ms) FROM kept_sample";
        let first: i64 = host.store.records.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(first, 1_800_000_000_000 - 100_000, "by the host's clock");
    }

    #[test]
    fn what_is_no_batch_is_refused_without_harm() {
        let host = Host::new();
        assert_eq!(host.take(&[0xff; 40]), KeptSamples::default());
        let cut = batch(1, 0..3);
        assert_eq!(host.take(&cut[..cut.len() - 1]).samples, 2);
        assert_eq!(host.take(&batch(u64::MAX, u64::MAX - 1..u64::MAX)).samples, 2, "a number beyond reason");
        assert_eq!(host.take(&batch(u64::MAX, 0..1)).samples, 3);
        for queue in 0..300 {
            host.take(&batch(queue, 0..1));
        }
        let queues: i64 =
            host.store.records.query_row("SELECT count(*) FROM kept_queue", [], |row| row.get(0)).unwrap();
        assert_eq!(queues, QUEUES);
    }
}
