//! The host is killed again and again in the middle of a job, as a power cut would. Everything that it acknowledged is
//! there afterwards, the same job goes on by itself, and the students end as they would have without.
//!
//! `TWIN_KILLS` says how often (scripts/soak: 100), `TWIN_SEED` when; the seed is printed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use twin_tests::{Fleet, Running, programs};

const BOARDS: [&str; 2] = ["left", "right"];
const EPOCHS: u32 = 3;

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// A line for whoever looks at the test.
fn tell(line: &str) {
    // A test runner that reads no more is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A fleet whose training is the same to the bit every time: one thread, and sites that a policy has frozen.
fn fleet(folder: std::path::PathBuf, policy: &str) -> Fleet {
    let fleet = Fleet::new(folder, &BOARDS, policy);
    let config = fs::read_to_string(fleet.path("host.toml")).expect("written");
    let config = config.replace("teacher_threads = 2", "teacher_threads = 1");
    fs::write(fleet.path("host.toml"), config).expect("written");
    fleet
}

/// All jobs, as `job list` tells them; none before the host has taken one in.
fn jobs(fleet: &Fleet) -> Vec<Value> {
    let (done, said) = fleet.host(&["job", "list", "--format", "json"]);
    assert!(done, "{said}");
    let listed: Value = serde_json::from_str(&said).expect("JSON");
    listed["jobs"].as_array().expect("a list").clone()
}

fn wait_until_finished(fleet: &Fleet) -> Duration {
    let (began, patience) = (Instant::now(), Duration::from_secs(1200));
    loop {
        let latest = jobs(fleet).pop().unwrap_or(Value::Null);
        if latest["state"] == "finished" {
            return began.elapsed();
        }
        let log = || fs::read_to_string(fleet.path("host.log")).unwrap_or_default();
        let goes_on = latest.is_null() || latest["state"] == "running" || latest["state"] == "queued";
        assert!(goes_on, "{latest}\n{}", log());
        assert!(began.elapsed() < patience, "not finished: {latest}\n{}", log());
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The students at the end.
fn students(fleet: &Fleet) -> Vec<Value> {
    BOARDS.iter().map(|board| fleet.show(board)["student"].clone()).collect()
}

/// What a dead host's data must bear out: every blob is what its name says, every epoch that was recorded has its
/// student there, and nothing that was recorded before is gone.
fn check(fleet: &Fleet, seen: &mut BTreeMap<&str, ((u64, u64), Value)>) {
    for board in BOARDS {
        let shown = fleet.show(board);
        let blobs = Path::new(&fleet.path("host")).join("twins").join(board).join("blobs");
        for entry in fs::read_dir(&blobs).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if name.len() == 64 {
                let hash = blake3::hash(&fs::read(&path).expect("readable")).to_hex();
                assert_eq!(hash.as_str(), name, "{}", path.display());
            }
        }
        let student = &shown["student"];
        // A new job's student counts from one again; until it has an epoch, the former job's is shown.
        let done = (student["job"].as_u64().unwrap_or(0), student["epochs"].as_u64().unwrap_or(0));
        if let Some(state) = student["state"].as_str() {
            assert!(blobs.join(state).is_file(), "{board} has no state {state}");
        }
        let (before, dataset) = seen.entry(board).or_insert(((0, 0), Value::Null));
        assert!(done >= *before, "{board} was at job and epoch {before:?} and is at {done:?}");
        assert!(dataset.is_null() || *dataset == shown["dataset"]["version"], "{board} has lost its dataset");
        (*before, *dataset) = (done, shown["dataset"]["version"].clone());
    }
}

fn killed(policy: &str) {
    let Some(folder) = programs() else {
        tell("skipped: TWIN_PROGRAMS is not set; scripts/test sets it");
        return;
    };
    let undisturbed = fleet(folder.clone(), policy);
    let mut host = undisturbed.serve(&BOARDS, EPOCHS);
    let agents = BOARDS.map(|board| undisturbed.agent(board));
    let took = wait_until_finished(&undisturbed);
    let expected = students(&undisturbed);
    assert!(host.terminate(), "the host ends well on SIGTERM");
    drop(agents);

    let kills = from_environment("TWIN_KILLS", 3);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seed = from_environment("TWIN_SEED", now);
    tell(&format!("{policy}: {kills} kills, TWIN_SEED={seed}"));
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let fleet = fleet(folder, policy);
    let mut host = fleet.serve(&BOARDS, EPOCHS);
    let mut agents = BOARDS.map(|board| fleet.agent(board));
    let mut seen = BTreeMap::new();
    for kill in 0..kills {
        // The whole job's length at first, so that every stage is met; a finished one is begun anew below.
        std::thread::sleep(took.mul_f64(chance.random_range(0.0..1.0)));
        host.kill();
        if kill % 4 == 3 {
            // A board that lost its host again and again waits for up to a minute; one that is started anew does not.
            // Ended first: of two agents on the same data the second gives up.
            agents.iter_mut().for_each(Running::kill);
            agents = BOARDS.map(|board| fleet.agent(board));
        }
        check(&fleet, &mut seen);
        let jobs = jobs(&fleet);
        let over = jobs.iter().filter(|job| job["state"] == "finished").count();
        assert!(
            jobs.iter().all(|job| ["finished", "running", "queued"].contains(&job["state"].as_str().unwrap_or("")))
        );
        host = if jobs.is_empty() {
            tell(&format!("kill {kill}: before the job was taken in"));
            fleet.serve(&BOARDS, EPOCHS)
        } else if over == jobs.len() {
            tell(&format!("kill {kill}: after the end; the job is begun anew"));
            assert_eq!(ends(&students(&fleet)), ends(&expected));
            fleet.serve(&BOARDS, EPOCHS)
        } else {
            assert_eq!(jobs.len() - over, 1, "one job goes on: {jobs:?}");
            fleet.serve_on()
        };
    }
    wait_until_finished(&fleet);
    drop(agents);
    assert_eq!(ends(&students(&fleet)), ends(&expected));
}

/// What must be the same, whichever job it was.
fn ends(students: &[Value]) -> Vec<(&Value, &Value, &Value)> {
    students.iter().map(|student| (&student["epochs"], &student["site"], &student["state"])).collect()
}

#[test]
fn a_host_killed_at_random_moments_goes_on_with_students_on_boards() {
    killed("all-local");
}

#[test]
fn a_host_killed_at_random_moments_goes_on_with_students_of_its_own() {
    killed("all-host");
}
