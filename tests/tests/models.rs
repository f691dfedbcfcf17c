//! Which model a board answers by, where there is none, a worse one, and one that nobody has; nothing is trained here.

use std::time::{Duration, Instant};

use twin_host::store::{ModelRecord, Store};
use twin_shared::id::{DeviceId, JobId, ModelVersion};
use twin_shared::pipe::Score;
use twin_tests::{Fleet, programs_or_skip};

/// What a command that fails says: one line.
fn refused(fleet: &Fleet, arguments: &[&str]) -> String {
    let (done, said) = fleet.host(arguments);
    assert!(!done && said.trim_end().lines().count() == 1, "{arguments:?}: {said}");
    said
}

/// A model of the first job, by the number that its version is made of.
fn add(store: &Store, device: &DeviceId, number: u8, correct: u32, total: u32) -> String {
    let bundle = store.blobs(device).expect("blobs").put(&[number]).expect("put");
    let version = ModelVersion([number; 32]);
    let model = ModelRecord {
        version,
        job: JobId(1),
        epochs: 1,
        architecture: "vgg8".into(),
        state: bundle,
        bundle,
        held_out: Score { correct, total },
        made: 0,
    };
    store.add_model(device, &model).expect("added");
    version.to_string()
}

#[test]
fn what_cannot_be_promoted_or_exported_is_refused_in_one_line_and_changes_nothing() {
    let fleet = Fleet::new(programs_or_skip!(), &["left", "right"], "all-host");
    let left: DeviceId = "left".parse().expect("a name");
    let store = Store::open(fleet.path("host")).expect("a store");
    let text = fleet.job_text(&["left"], 1);
    store.queue_job(&text, &["a".into(), "b".into()], None).expect("queued");
    store.set_job_state(JobId(1), twin_host::store::JobState::Stopped, None).expect("stopped");
    let good = add(&store, &left, 0xa1, 95, 100);
    let nearly = add(&store, &left, 0xb2, 93, 100);
    let worse = add(&store, &left, 0xc3, 90, 100);

    // Nobody's, no one's, and not yet.
    for command in ["promote", "rollback"] {
        let said = refused(&fleet, &[command, "left"]);
        assert!(said.contains("no twin-host serves"), "{said}");
    }
    let out = fleet.path("out");
    for format in ["safetensors", "onnx"] {
        let said = refused(&fleet, &["export", "right", "--format", format, "--out", &out]);
        assert!(said.contains("right has no model yet"), "{said}");
        let said = refused(&fleet, &["export", "nobody", "--format", format, "--out", &out]);
        assert!(said.contains("nobody"), "{said}");
        let said = refused(&fleet, &["export", "left", "--version", "ffff", "--format", format, "--out", &out]);
        assert!(said.contains("left has no model ffff") && said.contains(&good[..12]), "{said}");
    }
    assert!(!std::fs::exists(&out).expect("asked"), "a file without a model");

    let mut host = fleet.serve_idle(&[]);
    let socket = fleet.path("host/control.sock");
    let began = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the host does not serve: {}", fleet.host_log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let promoted = || store.promoted(&left).expect("asked").map(|model| model.version.to_string());
    let done = |arguments: &[&str], version: &str| {
        let (done, said) = fleet.host(arguments);
        assert!(done && said.contains(version), "{arguments:?}: {said}");
        assert_eq!(promoted().as_deref(), Some(version));
    };
    done(&["promote", "left", "a1a1"], &good);
    assert!(refused(&fleet, &["rollback", "left"]).contains("left has no earlier model to go back to"));
    let said = refused(&fleet, &["promote", "left", "c3"]);
    for part in [&good[..12], "95 of 100", &worse[..12], "90 of 100", "2.0 %", "models.most_lost"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert_eq!(promoted().as_ref(), Some(&good));
    // As much as may be lost.
    done(&["promote", "left", "b2"], &nearly);
    // The owner's word counts, where it is given for one model by name; then back to the one before.
    done(&["rollback", "left", "c3"], &worse);
    done(&["rollback", "left"], &nearly);
    done(&["rollback", "left"], &good);
    assert!(refused(&fleet, &["rollback", "left"]).contains("left has no earlier model to go back to"));
    let said = refused(&fleet, &["rollback", "left", "ffff"]);
    assert!(said.contains("left has no model ffff"), "{said}");
    assert!(refused(&fleet, &["promote", "right"]).contains("right has no model yet"));
    assert!(refused(&fleet, &["rollback", "nobody"]).contains("nobody"));
    assert_eq!(promoted(), Some(good));
    assert!(host.terminate());
}
