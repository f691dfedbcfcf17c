//! A board's commands and its life without a host, with the programs as they are deployed.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use twin_tests::{Fleet, programs_or_skip};

/// Most bytes of the agent's program, and of its memory while it is idle and connected.
const LARGEST_PROGRAM: u64 = 10_000_000;
const LARGEST_RESIDENT_KIB: u64 = 12_000_000 / 1024;

/// Waits for something that comes by itself.
fn wait(what: &str, seconds: u64, mut come: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !come() {
        assert!(Instant::now() < until, "{what}: not within {seconds} s");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn says(file: &str, text: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|log| log.contains(text))
}

/// Changes a board's configuration.
fn change(fleet: &Fleet, board: &str, from: &str, to: &str) {
    let file = PathBuf::from(fleet.path(board)).join("played.toml");
    let text = fs::read_to_string(&file).expect("enrolled");
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).expect("written");
}

fn checks(said: &str) -> Vec<(String, Option<bool>)> {
    let told: Value = serde_json::from_str(said.split("twin-agent:").next().unwrap_or_default()).expect("JSON");
    let checks = told["checks"].as_array().expect("a list");
    checks.iter().map(|check| (check["check"].as_str().expect("a name").to_owned(), check["works"].as_bool())).collect()
}

#[test]
fn connect_says_what_works_and_what_does_not() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-host");
    let mut host = fleet.serve_on();
    wait("the host", 60, || fleet.ask_agent("left", &["connect", "--test"]).0 == Some(0));
    let (status, said) = fleet.ask_agent("left", &["connect", "--test", "--format", "json"]);
    assert_eq!(status, Some(0), "{said}");
    let names = ["credentials", "address", "broker", "host", "round trip", "throughput", "access rules"];
    assert_eq!(checks(&said), names.map(|name| (name.to_owned(), Some(true))), "{said}");
    println!("{said}");
    assert!(!Path::new(&fleet.path("left")).join("data/connect-test").exists(), "nothing stays behind");

    // Its certificate lets it in; what it seals by a wrong key nobody takes, and it cannot read what the host says.
    let key = Path::new(&fleet.path("left")).join("sealing.key");
    let own = fs::read(&key).expect("enrolled");
    fs::write(&key, "0".repeat(64)).expect("written");
    let (status, said) = fleet.ask_agent("left", &["connect", "--test", "--format", "json"]);
    assert_eq!(status, Some(1), "{said}");
    assert_eq!(checks(&said)[2..4], [("broker".to_owned(), Some(true)), ("host".to_owned(), Some(false))], "{said}");
    fs::write(&key, own).expect("written");

    assert!(host.terminate());
    let (status, said) = fleet.ask_agent("left", &["connect", "--test", "--format", "json"]);
    assert_eq!(status, Some(1), "{said}");
    let expected = [Some(true), Some(false), None, None, None, None, None];
    assert_eq!(checks(&said).into_iter().map(|(_, works)| works).collect::<Vec<_>>(), expected, "{said}");
}

#[test]
fn calibrate_measures_once_and_marks_what_does_not_fit() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-host");
    let ask = |more: &[&str]| {
        let (status, said) =
            fleet.ask_agent("left", &[&["calibrate", "--batch", "2", "--format", "json"], more].concat());
        assert_eq!(status, Some(0), "{said}");
        serde_json::from_str::<Value>(&said).expect("JSON")
    };
    let first = ask(&[]);
    let students = first["students"].as_array().expect("a list");
    assert_eq!(students.len(), 4, "{first}");
    for student in students {
        assert!(student["fits"] == true && student["seconds_per_step"].as_f64() > Some(0.0), "{student}");
        assert!(student["seconds_per_epoch"].as_f64() >= student["seconds_per_step"].as_f64(), "{student}");
        assert!(student["peak_memory_bytes"].as_u64() > Some(50 << 20), "{student}");
    }
    println!("{first:#}");
    assert_eq!(ask(&[]), first, "what holds is not measured again");

    change(&fleet, "left", "threads = 1\n", "threads = 1\nmemory_limit_mib = 16\n");
    let limited = ask(&["--again"]);
    let students = limited["students"].as_array().expect("a list");
    assert!(students.iter().all(|student| student["fits"] == false), "{limited}");
    assert!(students[0]["why"].as_str().expect("a reason").contains("MiB of memory, 16 are allowed"), "{limited}");
    assert!(students[1]["why"].as_str().expect("a reason").contains("MiB of memory, 16 are allowed"), "{limited}");
    assert!(students[2]["why"].as_str().expect("a reason").starts_with("not tried"), "{limited}");
}

#[test]
fn sigterm_saves_the_epoch_and_the_next_life_goes_on_without_a_host() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-local");
    // A board so slow that an epoch of three steps has a middle.
    change(&fleet, "left", "duty = 1.0", "duty = 0.02");
    let mut host = fleet.serve(&["left"], 1);
    let mut agent = fleet.agent("left");
    let log = format!("{}/agent.log", fleet.path("left"));
    let work = PathBuf::from(fleet.path("left")).join("data/work");
    let checkpoint = || {
        let entries = fs::read_dir(&work).expect("a folder").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("checkpoint-")).count()
    };
    wait("the epoch", 240, || says(&log, "an epoch is trained here"));
    wait("the trainer", 60, || says(&log, "the trainer is ready"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(agent.terminate(), "{}", fs::read_to_string(&log).unwrap_or_default());
    assert_eq!(checkpoint(), 1, "{}", fs::read_to_string(&log).unwrap_or_default());
    host.kill();

    change(&fleet, "left", "duty = 0.02", "duty = 1.0");
    let _agent = fleet.agent("left");
    wait("the epoch, without a host", 120, || says(&log, "an epoch is trained here") && checkpoint() == 0);
    assert!(!says(&log, "connected to the broker"));
}

/// Bytes that a process has written to files, pipes and sockets.
fn written(process: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{process}/io")).expect("the kernel counts");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("it counts this");
    line.parse().expect("a number")
}

/// The processes that a process has started.
fn children(process: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |child: &u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parent == Some(process)
    };
    numbers.filter(is_child).collect()
}

#[test]
fn another_program_holds_training_and_an_epoch_writes_little() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-local");
    let inhibit = fleet.path("inhibit");
    change(&fleet, "left", "[trainer]\n", &format!("[guard]\ninhibit_file = {inhibit:?}\n[trainer]\n"));
    fs::write(&inhibit, "").expect("written");
    let _host = fleet.serve(&["left"], 1);
    let agent = fleet.agent("left");
    let log = format!("{}/agent.log", fleet.path("left"));
    wait("the epoch", 240, || says(&log, "an epoch is trained here"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(says(&log, "the inhibit file is there"));
    assert_eq!(fleet.show("left")["student"], Value::Null, "no step was made");
    fs::remove_file(&inhibit).expect("removed");
    fleet.wait_for("left", 1);

    let trainer = children(agent.id());
    assert_eq!(trainer.len(), 1, "it waits for the next epoch");
    let total = written(agent.id()) + written(trainer[0]);
    let blobs = files(&PathBuf::from(fleet.path("left")).join("data/blobs"));
    let state = blobs.iter().map(|(_, bytes, _)| *bytes).max().expect("a state");
    println!("an epoch: {total} bytes written, the network included, for a student state of {state}");
    // In: the base. Out to the disk: state and momentum; to the host: the state again. Beside that the dataset, once,
    // labels and words.
    assert!(total <= 4 * state + (2 << 20), "{total} for a state of {state}");
}

#[test]
fn what_was_measured_without_the_host_reaches_it_later() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-host");
    let kept = || fleet.show("left")["samples_from_offline"].clone();
    assert_eq!(kept()["samples"], 0);
    let _agent = fleet.agent("left");
    std::thread::sleep(Duration::from_secs(4));
    let _host = fleet.serve_on();
    // Storage is written once a minute, and only what is stored is sent.
    wait("the samples", 150, || kept()["samples"].as_u64() >= Some(3));
    assert_eq!(kept()["dropped"], 0);
}

/// Every file below a folder, with its length and the time of its last change.
fn files(folder: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let data = entry.metadata().expect("there");
        match data.is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push((entry.path(), data.len(), data.modified().expect("known"))),
        }
    }
    found.sort();
    found
}

/// Ends with its owner.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_resident_process_is_small() {
    let folder = programs_or_skip!();
    let Some(program) = std::env::var_os("TWIN_RELEASE_AGENT").map(PathBuf::from) else {
        eprintln!("skipped: TWIN_RELEASE_AGENT is not set; scripts/test sets it");
        return;
    };
    let bytes = fs::metadata(&program).expect("built").len();
    let fleet = Fleet::new(folder, &["left"], "all-host");
    let _host = fleet.serve_on();
    let socket = PathBuf::from(fleet.path("notify"));
    let manager = UnixDatagram::bind(&socket).expect("bound");
    manager.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let config = PathBuf::from(fleet.path("left")).join("played.toml");
    let began = Instant::now();
    let agent = Command::new(&program)
        .arg("run")
        .arg("--config")
        .arg(config)
        .env("NOTIFY_SOCKET", &socket)
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let agent = Agent(agent);
    let told = |wanted: &str| {
        let mut buffer = [0; 256];
        loop {
            let length = manager.recv(&mut buffer).expect("told within a minute");
            if String::from_utf8_lossy(&buffer[..length]).starts_with(wanted) {
                return;
            }
        }
    };
    told("READY=1");
    let ready = began.elapsed();
    told("STATUS=connected");
    // What was sampled before the connection is sent first.
    std::thread::sleep(Duration::from_secs(6));
    let before = files(&PathBuf::from(fleet.path("left")).join("data"));
    // Some samples, pings and replies later.
    std::thread::sleep(Duration::from_secs(12));
    let after = files(&PathBuf::from(fleet.path("left")).join("data"));
    assert_eq!(before, after, "an idle agent that is connected writes nothing");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.0.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let resident: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    println!(
        "twin-agent: {bytes} bytes of program, {resident} KiB resident when idle and connected, ready after {ready:?}"
    );
    assert!(bytes <= LARGEST_PROGRAM, "{bytes}");
    assert!(resident <= LARGEST_RESIDENT_KIB, "{resident} KiB");
}
