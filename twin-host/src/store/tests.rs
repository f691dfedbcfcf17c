use super::*;

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

#[test]
fn a_restart_finds_devices_twins_and_counts() {
    let directory = tempfile::tempdir().unwrap();
    let (version, blob) = (DatasetVersion([1; 32]), BlobHash([2; 32]));
    let counts = DatasetCounts { train: 9, held: 1, labels: vec![4, 5] };
    {
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.begin_epoch().unwrap(), 1);
        store.enroll(&device("board1"), &DeviceKey::new([3; 32])).unwrap();
        store.hold_dataset(&device("board1"), version, blob).unwrap();
        store.count_dataset(&device("board1"), &counts).unwrap();
        store.keep_document(&device("board1"), 41).unwrap();
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
