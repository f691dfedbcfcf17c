//! Jobs by the commands that people and scripts use, on the programs as they are deployed.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use twin_data::bundle::Bundle;
use twin_tests::{Fleet, programs_or_skip};

/// What a command says in JSON.
fn json(fleet: &Fleet, arguments: &[&str]) -> Value {
    let (done, said) = fleet.host(&[arguments, &["--format", "json"]].concat());
    assert!(done, "{arguments:?}: {said}");
    serde_json::from_str(&said).expect("JSON")
}

/// What a command that fails says: one line.
fn refused(fleet: &Fleet, arguments: &[&str]) -> String {
    let (done, said) = fleet.host(arguments);
    assert!(!done && said.trim_end().lines().count() == 1, "{arguments:?}: {said}");
    said
}

fn wait_for(fleet: &Fleet, what: &str, until: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let status = json(fleet, &["job", "status"]);
        if until(&status) {
            return status;
        }
        let log = || std::fs::read_to_string(fleet.path("host.log")).unwrap_or_default();
        assert!(began.elapsed() < Duration::from_secs(240), "no {what}: {status}\n{}", log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_job_is_started_watched_paused_and_leaves_models() {
    let fleet = Fleet::new(programs_or_skip!(), &["left", "right"], "all-host");
    fleet.write_job(&["left"], 3);
    let job = fleet.path("job.toml");
    let nobody = refused(&fleet, &["job", "start", &job]);
    assert!(nobody.contains("no twin-host serves"), "{nobody}");

    let mut host = fleet.serve_on();
    let _agents = [fleet.agent("left"), fleet.agent("right")];
    wait_until_served(&fleet);
    assert!(refused(&fleet, &["job", "pause", "7"]).contains("no job 7"));
    std::fs::write(fleet.path("foreign.toml"), fleet.job_text(&["nobody"], 1)).expect("written");
    assert!(refused(&fleet, &["job", "start", &fleet.path("foreign.toml")]).contains("nobody is not enrolled"));
    assert_eq!(json(&fleet, &["job", "start", &job])["job"], 1);

    // It rests where it is, a start of the host does not wake it, and it goes on in the same place.
    wait_for(&fleet, "first epoch", |status| status["devices"][0]["epochs"].as_u64() >= Some(1));
    assert!(fleet.host(&["job", "pause"]).0);
    let paused = wait_for(&fleet, "pause", |status| status["state"] == "paused");
    assert!(host.terminate());
    host = fleet.serve_on();
    wait_until_served(&fleet);
    assert_eq!(json(&fleet, &["job", "status"])["devices"], paused["devices"]);
    assert!(refused(&fleet, &["export", "left", "--format", "onnx", "--out", "x"]).contains("left has no model yet"));
    assert!(fleet.host(&["job", "resume"]).0);

    // A watcher hears the rest, an object a line.
    let (done, told) = fleet.host(&["job", "status", "--watch", "--format", "json"]);
    assert!(done, "{told}");
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(events.iter().all(|event| event["job"] == 1 && event["at"].is_f64()), "{told}");
    assert_eq!(events.last().map(|event| &event["state"]), Some(&Value::from("finished")), "{told}");
    assert!(events.iter().any(|event| event["event"] == "model" && event["device"] == "left"), "{told}");

    // The one who took part has a model, and can go nowhere back from it.
    let models = json(&fleet, &["models", "left"]);
    let version = models["models"][0]["version"].as_str().expect("a model").to_owned();
    let out = fleet.path("left.safetensors");
    assert!(fleet.host(&["export", "left", "--format", "safetensors", "--out", &out]).0);
    let bundle = Bundle::from_bytes(&std::fs::read(Path::new(&out)).expect("written")).expect("a bundle");
    assert_eq!((bundle.about.version().to_string(), bundle.about.epochs), (version.clone(), 3));
    assert!(fleet.host(&["export", "left", "--format", "onnx", "--out", &fleet.path("left.onnx")]).0);
    assert!(refused(&fleet, &["promote", "right"]).contains("right has no model yet"));
    assert!(fleet.host(&["promote", "left"]).0);
    assert_eq!(json(&fleet, &["models", "left"])["models"][0]["promoted"], true);
    assert!(refused(&fleet, &["rollback", "left"]).contains("no earlier model"));
    assert!(refused(&fleet, &["rollback", "left", "ffff"]).contains("has no model ffff"));

    // A copy made while the host serves is a host's data.
    let (copy, again) = (fleet.path("copy"), fleet.path("again"));
    assert!(fleet.host(&["backup", "--out", &copy]).0);
    let (done, said) = fleet.host(&["restore", &copy, "--data-dir", &again]);
    assert!(done, "{said}");
    assert!(fleet.host(&["models", "left", "--data-dir", &again]).1.contains(&version[..12]));

    let learned = refused(&fleet, &["forget", "left"]);
    assert!(learned.contains("teachers of jobs 1"), "{learned}");
    assert!(fleet.host(&["forget", "left", "--purge"]).0);
    assert!(!Path::new(&fleet.path("host/twins/left")).exists());
    assert!(host.terminate());
}

fn wait_until_served(fleet: &Fleet) {
    let socket = fleet.path("host/control.sock");
    let began = Instant::now();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the host does not serve");
        std::thread::sleep(Duration::from_millis(100));
    }
}
