use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use twin_core::coordinator::{Coordinator, JobProgress, JobSpec};
use twin_shared::plan::{Augmentation, Compression, LabelKind, Method, Recipe, SyncEvery};
use twin_shared::wire::seal::DeviceKey;

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
        score_every: 0,
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
        let job = store.queue_job("", &[], None).unwrap();
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
    let (first, second) = (store.queue_job("a", &[], None).unwrap(), store.queue_job("b", &[], None).unwrap());
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

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn classes_keep_their_index_and_a_longer_list_widens_the_latest_job() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!((store.classes().unwrap().version(), store.classes().unwrap().count()), (0, 0));
    store.add_classes(names(&["cat", "dog"])).unwrap();
    assert!(matches!(store.add_classes(names(&["bird", "Dog"])), Err(StoreError::Class(_))));
    let list = store.add_classes(names(&["bird"])).unwrap();
    assert_eq!((list.version(), list.names()), (2, names(&["cat", "dog", "bird"]).as_slice()));
    assert_eq!(store.classes().unwrap(), list);

    let counted = store.queue_job("a", &names(&["0", "1"]), None).unwrap();
    store.set_job_state(counted, JobState::Finished, None).unwrap();
    assert_eq!(store.widened(&list).unwrap(), None);
    let listed = store.queue_job("b", &names(&["cat", "dog"]), None).unwrap();
    assert_eq!(store.widened(&list).unwrap(), None, "it is not finished");
    store.set_job_state(listed, JobState::Finished, None).unwrap();
    assert_eq!(store.widened(&list).unwrap(), Some(listed));
    let wider = store.job(store.widen_job(listed).unwrap()).unwrap();
    assert_eq!((wider.parent, wider.spec.as_str(), wider.classes.len()), (Some(listed), "b", 3));
}

fn model(version: u8, correct: u32) -> ModelRecord {
    ModelRecord {
        version: twin_shared::id::ModelVersion([version; 32]),
        job: JobId(version.into()),
        epochs: 2,
        architecture: "vgg8".into(),
        state: BlobHash([version; 32]),
        bundle: BlobHash([version; 32]),
        held_out: twin_shared::pipe::Score { correct, total: 10 },
        made: 0,
    }
}

#[test]
fn models_are_promoted_and_gone_back_from() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let name = device("board1");
    store.enroll(&name, &DeviceKey::new([3; 32])).unwrap();
    let none = store.model(&name, None).unwrap_err().to_string();
    assert!(none.starts_with("board1 has no model yet"), "{none}");
    for version in [1, 2, 3] {
        store.add_model(&name, &model(version, 5)).unwrap();
        store.add_model(&name, &model(version, 9)).unwrap();
    }
    assert_eq!(store.models(&name).unwrap().len(), 3);
    assert_eq!(store.model(&name, None).unwrap().version, model(3, 5).version);
    assert_eq!(store.model(&name, Some("0202")).unwrap().held_out.correct, 5, "the first one stays");
    for wrong in ["", "0", "ff"] {
        assert!(matches!(store.model(&name, Some(wrong)), Err(StoreError::UnknownModel { .. })), "{wrong}");
    }
    assert_eq!(store.promoted(&name).unwrap(), None);
    for version in [1, 3, 3] {
        store.promote(&name, model(version, 0).version).unwrap();
    }
    let present = store.promoted(&name).unwrap().unwrap().version;
    assert_eq!(present, model(3, 0).version);
    assert_eq!(store.promoted_before(&name, present).unwrap().map(|m| m.version), Some(model(1, 0).version));
}

#[test]
fn a_copy_is_put_back_and_a_damaged_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (data, copy, again) =
        (directory.path().join("data"), directory.path().join("copy"), directory.path().join("again"));
    let store = Store::open(&data).unwrap();
    store.enroll(&device("board1"), &DeviceKey::new([3; 32])).unwrap();
    let blob = store.blobs(&device("board1")).unwrap().put(b"a dataset").unwrap();
    let job = store.queue_job("spec", &[], None).unwrap();
    fs::write(store.teacher(job), b"weights").unwrap();
    store.begin_work(1).unwrap();
    store.back_up(&copy).unwrap();
    assert!(matches!(store.back_up(&copy), Err(BackupError::Exists(_))));
    assert!(!copy.join("work").exists());
    restore(&copy, &again).unwrap();
    let restored = Store::open(&again).unwrap();
    assert_eq!(restored.job(job).unwrap().spec, "spec");
    assert_eq!(fs::read(restored.teacher(job)).unwrap(), b"weights");
    assert!(restored.blobs(&device("board1")).unwrap().contains(&blob));
    assert!(matches!(restore(&copy, &again), Err(BackupError::Exists(_))));
    fs::write(copy.join("twins/board1/blobs").join(blob.to_string()), b"another").unwrap();
    let other = directory.path().join("other");
    assert!(matches!(restore(&copy, &other), Err(BackupError::Blob(_))));
    assert!(!other.exists() && fs::read_dir(directory.path()).unwrap().count() == 3, "nothing half done");
    assert!(matches!(restore(directory.path(), &other), Err(BackupError::NoBackup(_))));
}

#[test]
fn a_purged_device_leaves_nothing_but_the_teachers_that_learned_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    let (gone, stays) = (device("gone"), device("stays"));
    for (name, byte) in [(&gone, 1), (&stays, 2)] {
        store.enroll(name, &DeviceKey::new([byte; 32])).unwrap();
        store.hold_dataset(name, DatasetVersion([byte; 32]), BlobHash([byte; 32])).unwrap();
        store.blobs(name).unwrap().put(&[byte]).unwrap();
        store.add_model(name, &model(byte, 1)).unwrap();
    }
    let job = store.queue_job("", &[], None).unwrap();
    let twins = vec![(gone.clone(), BlobHash([1; 32]))];
    store.advance_job(job, &Advance { job: Some(&JobProgress::Teaching(twins)), ..Advance::default() }).unwrap();
    assert_eq!((store.teachers_of(&gone).unwrap(), store.teachers_of(&stays).unwrap()), (vec![job], vec![]));
    let tables = "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name = 'device'";
    let mut statement = store.records.prepare(tables).unwrap();
    let mut known: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    drop(statement);
    known.sort_unstable();
    let mut emptied = purge::OF_DEVICE.to_vec();
    emptied.sort_unstable();
    assert_eq!(known, emptied, "a table with rows of devices that a purge would leave");
    store.purge(&gone).unwrap();
    assert!(matches!(store.purge(&gone), Err(StoreError::UnknownDevice(..))));
    assert!(!store.twin_directory(&gone).exists() && store.twin_directory(&stays).exists());
    assert!(store.twin(&gone).unwrap().dataset().is_none() && store.twin(&stays).unwrap().dataset().is_some());
    assert_eq!((store.models(&gone).unwrap().len(), store.models(&stays).unwrap().len()), (0, 1));
    assert_eq!(store.teachers_of(&gone).unwrap(), [job]);
}
