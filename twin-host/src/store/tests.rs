use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use twin_core::coordinator::{Coordinator, JobProgress, JobSpec};
use twin_shared::plan::{Augmentation, Compression, LabelKind, Method, Recipe, SyncEvery};

use super::*;

fn spec(job: JobId) -> JobSpec {
    JobSpec {
        job,
        seed: 1,
        method: Method::SimKd,
        labels: LabelKind::Vector,
        recipe: Recipe::student(2),
        batch: 8,
        batches_per_block: 1,
        compression: Compression::None,
        sync_every: SyncEvery::EPOCH,
        metered: BTreeSet::new(),
        augmentation: Augmentation { crop_padding: 0, flip: false },
        patience: Duration::from_secs(1),
        deadline_factor: 2.0,
        decide_every: Duration::from_secs(1),
    }
}

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

#[test]
fn a_restart_finds_devices_twins_and_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (version, blob) = (DatasetVersion([1; 32]), BlobHash([2; 32]));
    let counts = DatasetCounts { train: 9, held: 1, labels: vec![4, 5] };
    {
        let mut store = Store::open(directory.path()).unwrap();
        assert_eq!(store.begin_epoch().unwrap(), 1);
        store.enroll(&device("board1"), &DeviceKey::new([3; 32])).unwrap();
        store.hold_dataset(&device("board1"), version, blob).unwrap();
        store.count_dataset(&device("board1"), &counts).unwrap();
        let job = store.queue_job("").unwrap();
        let member =
            Coordinator::new(spec(job), BTreeMap::from([(device("board1"), Twin::new(None, 0))]), Duration::ZERO);
        let progress = member.members()[&device("board1")].progress();
        let name = device("board1");
        let advance = Advance { members: vec![(&name, &progress, 41)], ..Advance::default() };
        store.advance_job(job, &advance).unwrap();
    }
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.begin_epoch().unwrap(), 2);
    assert_eq!(store.device(&device("board1")).unwrap().key.expose(), &[3; 32]);
    let mut twin = store.twin(&device("board1")).unwrap();
    assert_eq!(twin.dataset(), Some(&TwinDataset { version, blob, counts: Some(counts) }));
    assert_eq!(twin.next_document(), 42);
}

#[test]
fn a_new_dataset_forgets_the_counts_of_the_old() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let name = device("board1");
    store.hold_dataset(&name, DatasetVersion([1; 32]), BlobHash([1; 32])).unwrap();
    store.count_dataset(&name, &DatasetCounts { train: 1, held: 0, labels: vec![1] }).unwrap();
    store.hold_dataset(&name, DatasetVersion([2; 32]), BlobHash([2; 32])).unwrap();
    assert_eq!(store.twin(&name).unwrap().counts(), None);
}

#[test]
fn an_unknown_device_is_named_with_those_that_are_known() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.enroll(&device("board1"), &DeviceKey::new([3; 32])).unwrap();
    let error = store.revoke(&device("board2")).unwrap_err().to_string();
    assert_eq!(error, "no device board2 is enrolled; enrolled: board1");
    store.revoke(&device("board1")).unwrap();
    assert!(store.device(&device("board1")).unwrap().revoked);
}

#[test]
fn a_later_schema_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    Store::open(directory.path()).unwrap().records.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(StoreError::Newer { found: 99, .. })));
}

#[test]
fn others_cannot_look_into_the_data_directory() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("data")).unwrap();
    assert_eq!(fs::metadata(store.root()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn jobs_take_turns_and_the_one_that_ran_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    let (first, second) = (store.queue_job("a").unwrap(), store.queue_job("b").unwrap());
    assert_eq!(store.next_job().unwrap().map(|job| job.job), Some(first));
    store.set_job_state(second, JobState::Running, None).unwrap();
    let teaching = JobProgress::Teaching(vec![(device("board1"), BlobHash([1; 32]))]);
    store.advance_job(second, &Advance { job: Some(&teaching), ..Advance::default() }).unwrap();
    drop(store);
    let store = Store::open(directory.path()).unwrap();
    let next = store.next_job().unwrap().unwrap();
    assert_eq!((next.job, next.spec.as_str(), next.progress), (second, "b", teaching));
    store.set_job_state(second, JobState::Paused, None).unwrap();
    store.set_job_state(first, JobState::Stopped, Some("why")).unwrap();
    assert_eq!(store.next_job().unwrap(), None);
    assert_eq!(store.job(first).unwrap().outcome.as_deref(), Some("why"));
    assert_eq!(store.job(JobId(9)).unwrap_err().to_string(), "no job 9; twin-host job list shows them");
}

#[test]
fn an_older_database_keeps_its_jobs_and_resumes_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("twin.sqlite");
    let mut old = Connection::open(&path).unwrap();
    schema::advance(&mut old, 0, 1).unwrap();
    old.execute_batch(
        "INSERT INTO job (spec, outcome) VALUES ('a', 'finished'), ('b', 'no board brought its dataset in time'),
         ('c', NULL)",
    )
    .unwrap();
    drop(old);
    let states: Vec<_> = Store::open(directory.path()).unwrap().jobs().unwrap().iter().map(|job| job.state).collect();
    assert_eq!(states, [JobState::Finished, JobState::Failed, JobState::Stopped]);
}

#[test]
fn a_thousand_lines_of_a_board_are_kept() {
    use twin_shared::wire::{LogLevel, LogLine};
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.records.pragma_update(None, "synchronous", "OFF").unwrap();
    for k in 0..1003 {
        let text = heapless::String::try_from(k.to_string().as_str()).unwrap();
        store.keep_log(&device("board1"), &LogLine { level: LogLevel::Warning, text }).unwrap();
    }
    let lines = store.log(&device("board1"), 2000).unwrap();
    assert_eq!((lines.len(), lines[0].text.as_str(), lines[999].text.as_str()), (1000, "3", "1002"));
    assert_eq!(store.log(&device("board2"), 10).unwrap(), []);
}
