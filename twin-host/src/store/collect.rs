//! Which blobs of a twin must stay, and the removal of the others.
//!
//! A blob stays while a record names it: as the twin's dataset or the one that a job's teacher is trained over, as the
//! pictures that a board shows, as the state or bundle of a model, as the latest state of a job's student, or as anything that a job goes on from. A job
//! that runs removes what it alone has named as soon as it names it no more. What nobody ever named (a board's
//! difference to a state, what a killed host was about to write down) goes when it was left alone for a day.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use twin_data::blobs::{BlobError, Blobs};
use twin_shared::id::{BlobHash, DeviceId};

use super::{JobState, Store, StoreError};

/// What is left alone for so long is not about to be named, and a part will not be gone on with.
const SETTLED: Duration = Duration::from_secs(24 * 3600);

/// Held by whoever removes blobs, and by whoever copies those that the records name.
const LOCK: &str = "collect.lock";

/// The right to remove blobs.
#[derive(Debug, Clone)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held, not read")] Arc<File>);

/// The blobs of a device that records name.
#[derive(Debug)]
pub(crate) struct Named {
    blobs: BTreeSet<BlobHash>,
    _turn: Turn,
}

impl Named {
    /// Removes the others, as far as they are settled; how many.
    pub(crate) fn sweep(&self, blobs: &Blobs) -> Result<usize, BlobError> {
        blobs.retain_settled(|blob| self.blobs.contains(blob), SETTLED)
    }
}

impl Store {
    /// The right to remove blobs; `None` while a copy of the data directory is made.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn turn_to_collect(&self) -> Result<Option<Turn>, StoreError> {
        let lock = self.lock_file()?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Turn(Arc::new(lock)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(StoreError::Files { path: self.root.join(LOCK), error }),
        }
    }

    /// Has blobs stay for as long as the file is held.
    pub(super) fn keep_all(&self) -> Result<File, StoreError> {
        let lock = self.lock_file()?;
        lock.lock().map_err(|error| StoreError::Files { path: self.root.join(LOCK), error })?;
        Ok(lock)
    }

    fn lock_file(&self) -> Result<File, StoreError> {
        let path = self.root.join(LOCK);
        File::create(&path).map_err(|error| StoreError::Files { path, error })
    }

    /// The device's blobs that records name, to be kept when the others are removed.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub(crate) fn named(&self, device: &DeviceId, turn: &Turn) -> Result<Named, StoreError> {
        Ok(Named { blobs: self.named_blobs(device)?, _turn: turn.clone() })
    }

    /// Removes these blobs of a device, but for those that a record names, or `wanted`. Returns those that stay.
    ///
    /// # Errors
    /// When database or disk refuse.
    pub(crate) fn remove_unnamed(
        &self,
        device: &DeviceId,
        blobs: BTreeSet<BlobHash>,
        wanted: &BTreeSet<BlobHash>,
        _turn: &Turn,
    ) -> Result<BTreeSet<BlobHash>, StoreError> {
        let named = self.named_blobs(device)?;
        let (stay, go): (BTreeSet<_>, BTreeSet<_>) =
            blobs.into_iter().partition(|blob| named.contains(blob) || wanted.contains(blob));
        let all = self.blobs(device)?;
        go.iter().try_for_each(|blob| all.remove(blob))?;
        Ok(stay)
    }

    fn named_blobs(&self, device: &DeviceId) -> Result<BTreeSet<BlobHash>, StoreError> {
        let mut named = BTreeSet::new();
        named.extend(self.twin(device)?.dataset().map(|dataset| dataset.blob));
        named.extend(self.waiting_blob(device)?);
        named.extend(self.models(device)?.into_iter().flat_map(|model| [model.state, model.bundle]));
        for record in self.jobs()? {
            named.extend(self.student_of(record.job, device)?.map(|student| student.state));
            named.extend(self.member(record.job, device)?.iter().flat_map(twin_core::coordinator::Progress::blobs));
            // A finished job is not gone on with, and a teacher's successor starts from its weights alone.
            if record.state != JobState::Finished {
                named.extend(record.progress.dataset(device));
            }
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Advance, ModelRecord};
    use super::*;
    use std::time::SystemTime;
    use twin_core::coordinator::JobProgress;
    use twin_shared::id::{DatasetVersion, JobId, ModelVersion};
    use twin_shared::pipe::Score;
    use twin_shared::wire::seal::DeviceKey;

    const TWO_DAYS: Duration = Duration::from_secs(48 * 3600);

    /// A device with a blob for each reason to stay, and one for none; the job that is not over.
    struct Scene {
        directory: tempfile::TempDir,
        store: Store,
        device: DeviceId,
        job: JobId,
        named: BTreeSet<BlobHash>,
        taught: BlobHash,
        stray: BlobHash,
    }

    fn scene() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let device: DeviceId = "board1".parse().unwrap();
        store.enroll(&device, &DeviceKey::new([1; 32])).unwrap();
        let blobs = store.blobs(&device).unwrap();
        let put = |text: &str| {
            let blob = blobs.put(text.as_bytes()).unwrap();
            let file = File::options().write(true).open(blobs.path(&blob)).unwrap();
            file.set_modified(SystemTime::now() - TWO_DAYS).unwrap();
            blob
        };
        let (dataset, taught, state, bundle) = (put("dataset"), put("older dataset"), put("state"), put("bundle"));
        store.hold_dataset(&device, DatasetVersion(dataset.0), dataset).unwrap();
        let job = store.queue_job("", &[], None).unwrap();
        let progress = JobProgress::Teaching(vec![(device.clone(), taught)]);
        store.advance_job(job, &Advance { job: Some(&progress), ..Advance::default() }).unwrap();
        let model = ModelRecord {
            version: ModelVersion([1; 32]),
            job,
            epochs: 1,
            architecture: "vgg8".into(),
            state,
            bundle,
            held_out: Score { correct: 0, total: 0 },
            made: 0,
        };
        store.add_model(&device, &model).unwrap();
        let stray = put("stray");
        Scene { directory, store, device, job, named: [dataset, taught, state, bundle].into(), taught, stray }
    }

    #[test]
    fn what_a_record_names_stays_and_the_rest_goes_when_it_is_settled() {
        let Scene { directory: _directory, store, device, job, named, taught, stray } = scene();
        let blobs = store.blobs(&device).unwrap();
        let young = blobs.put(b"not named yet").unwrap();
        let turn = store.turn_to_collect().unwrap().unwrap();
        assert_eq!(store.named(&device, &turn).unwrap().sweep(&blobs).unwrap(), 1);
        assert!(!blobs.contains(&stray) && blobs.contains(&young));
        assert!(named.iter().all(|blob| blobs.contains(blob)), "{named:?}");
        store.set_job_state(job, JobState::Finished, None).unwrap();
        assert_eq!(store.named(&device, &turn).unwrap().sweep(&blobs).unwrap(), 1);
        assert!(!blobs.contains(&taught), "nothing is taught over it any more");
    }

    #[test]
    fn a_job_removes_of_its_own_what_nothing_else_names() {
        let Scene { directory: _directory, store, device, named, stray, .. } = scene();
        let blobs = store.blobs(&device).unwrap();
        let wanted = blobs.put(b"still to be scored").unwrap();
        let all: BTreeSet<BlobHash> = named.iter().copied().chain([stray, wanted]).collect();
        let turn = store.turn_to_collect().unwrap().unwrap();
        let stay = store.remove_unnamed(&device, all.clone(), &[wanted].into(), &turn).unwrap();
        assert_eq!(stay, all.iter().copied().filter(|blob| *blob != stray).collect());
        assert!(stay.iter().all(|blob| blobs.contains(blob)) && !blobs.contains(&stray));
    }

    #[test]
    fn nothing_is_removed_while_a_copy_is_made() {
        let Scene { directory, store, .. } = scene();
        let other = Store::open(directory.path()).unwrap();
        let kept = other.keep_all().unwrap();
        assert!(store.turn_to_collect().unwrap().is_none());
        drop(kept);
        assert!(store.turn_to_collect().unwrap().is_some());
    }
}
