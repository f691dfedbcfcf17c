//! Kills the agent's own way of writing at every single write, and looks at what is left.
//!
//! Run without a harness: the program starts itself under `strace`, which kills it at the n-th call of each kind that
//! changes a file, for every kind and every n. Whatever the moment, what was acknowledged before is there, nothing is
//! there in part, and a new life goes on from it. From the trace of a whole run it is read too that nothing is
//! acknowledged before it was flushed: a kill spares what the kernel still holds, a power cut does not.

#![allow(clippy::print_stdout, reason = "a program without a harness says itself what it did")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use twin_agent::backlog::{Backlog, Clocks, Flush};
use twin_agent::calibration::{Calibration, Conditions};
use twin_agent::durable;
use twin_agent::identity::Births;
use twin_agent::workspace::Workspace;
use twin_data::blobs::Blobs;
use twin_shared::id::{BlobHash, DatasetVersion, JobId, RoundId};
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::{Manifest, Purpose};

/// Set for the program that is killed: the folder that it works on.
const FOLDER: &str = "TWIN_POWER_CUT_FOLDER";

/// Calls that change files.
const CALLS: [&str; 14] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "rename",
    "renameat2",
    "ftruncate",
    "unlink",
    "unlinkat",
    "link",
    "linkat",
    "mkdir",
    "rmdir",
    "copy_file_range",
];

/// Rounds of the work; the second finds what the first left.
const ROUNDS: u32 = 2;

const CHUNK: usize = 1 << 14;

fn main() -> ExitCode {
    match env::var_os(FOLDER) {
        Some(folder) => {
            work(Path::new(&folder));
            ExitCode::SUCCESS
        }
        None => test(),
    }
}

fn test() -> ExitCode {
    // A list of the program's tests is asked for by some runners.
    if env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let probe = Command::new("strace").args(["-e", "trace=none", "true"]).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        println!("skipped: strace is not here or may not trace; .ci/run installs it");
        return ExitCode::SUCCESS;
    }
    let whole = tempfile::tempdir().expect("a folder");
    let trace = whole.path().join("trace");
    let (acknowledged, ended) = run(&whole.path().join("data"), &["-y", "-o", &trace.display().to_string()]);
    assert!(ended, "undisturbed it ends well");
    assert_eq!(acknowledged.len(), 8 * ROUNDS as usize, "{acknowledged:?}");
    let trace = fs::read_to_string(trace).expect("a trace");
    nothing_is_acknowledged_before_it_is_flushed(&trace);

    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in trace.lines() {
        if let Some(call) = CALLS.iter().find(|call| line.starts_with(&format!("{call}("))) {
            *counts.entry(call).or_default() += 1;
        }
    }
    let mut kills = 0;
    for (call, count) in &counts {
        for n in 1..=*count {
            let folder = tempfile::tempdir().expect("a folder");
            let data = folder.path().join("data");
            let inject = format!("inject={call}:signal=KILL:when={n}");
            let (acknowledged, ended) = run(&data, &["-o", "/dev/null", "-e", &inject]);
            assert!(!ended, "{call} {n}: it was killed");
            kills += 1;
            look(&data, &acknowledged, &format!("killed at {call} {n}"));
            let (acknowledged, ended) = run(&data, &["-o", "/dev/null"]);
            assert!(ended, "killed at {call} {n}: the next life goes on");
            look(&data, &acknowledged, &format!("the life after a kill at {call} {n}"));
        }
    }
    println!("killed at every one of {kills} writes: {counts:?}");
    ExitCode::SUCCESS
}

/// Runs the work under strace; what it acknowledged, and whether it ended well.
fn run(folder: &Path, options: &[&str]) -> (Vec<String>, bool) {
    let done = Command::new("strace")
        .args(["-e", &format!("trace={}", CALLS.join(","))])
        .args(options)
        .arg(env::current_exe().expect("a path"))
        .env(FOLDER, folder)
        .stderr(Stdio::null())
        .output()
        .expect("strace was here a moment ago");
    let said = String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect();
    (said, done.status.success())
}

/// What the agent writes in its life, each thing acknowledged once it is done.
fn work(folder: &Path) {
    fs::create_dir_all(folder).expect("made");
    let blobs = Blobs::open(folder.join("blobs")).expect("opened");
    let workspace = Workspace::open(folder.join("work")).expect("opened");
    let mut births = Births::open(folder.join("births")).expect("readable");
    let mut backlog = Backlog::restore(1 << 16, 7, &stored(folder));
    let start = Instant::now();
    for round in 0..ROUNDS {
        println!("birth {}", births.take().expect("written"));
        durable::replace(&folder.join("memory"), &memory(round)).expect("written");
        println!("memory {round}");
        blobs.put(&content(round)).expect("put");
        println!("blob {round}");
        let manifest = manifest(round);
        for offset in [CHUNK, 0] {
            let bytes = &chunks(round)[offset..offset + CHUNK];
            blobs.write_chunk(&manifest, offset as u64, bytes).expect("written");
        }
        blobs.finish(&manifest).expect("whole");
        println!("chunks {round}");
        workspace.prepare(JobId(1), RoundId(round), &BlobHash([0; 32])).expect("prepared");
        let labels = blobs.path(&BlobHash::of(&content(round)));
        workspace.place_labels(&labels, JobId(1), RoundId(round), 0).expect("placed");
        println!("labels {round}");
        let state = workspace.state(JobId(1), RoundId(round));
        fs::write(&state, state_of(round)).expect("written");
        blobs.adopt(&state).expect("adopted");
        println!("state {round}");
        let elapsed = Duration::from_secs(60 * u64::from(round));
        backlog.push(elapsed, &Telemetry::default());
        let flush = backlog.flush(start + elapsed, Clocks { elapsed, unix_ms: 0 }).expect("one is new");
        match flush {
            Flush::Replace(whole) => durable::replace(&folder.join("backlog"), &whole),
            Flush::Append(more) => durable::append(&folder.join("backlog"), &more),
        }
        .expect("written");
        println!("backlog {}", backlog.len());
        Calibration::new(format!("2.9.{round}"), conditions()).keep(folder).expect("written");
        println!("calibration {round}");
    }
}

/// What was acknowledged is there, and nothing is there in part.
fn look(folder: &Path, acknowledged: &[String], when: &str) {
    let last = |what: &str| {
        let said = acknowledged.iter().rev().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        said.map(|number| number.parse::<u64>().expect("a number"))
    };
    if !folder.exists() {
        assert!(acknowledged.is_empty(), "{when}");
        return;
    }
    let mut births = Births::open(folder.join("births")).unwrap_or_else(|error| panic!("{when}: {error}"));
    assert!(births.take().expect("written") > last("birth").unwrap_or(0), "{when}: a birth comes twice");
    let remembered = durable::read(&folder.join("memory")).expect("readable");
    let known = (0..ROUNDS).find(|round| remembered.as_ref() == Some(&memory(*round)));
    assert!(remembered.is_none() || known.is_some(), "{when}: the memory is there in part");
    // A later life begins with round 0 again: its memory may be older, never torn.
    assert!(known.is_some() || last("memory").is_none(), "{when}: the memory is gone");
    if let Ok(blobs) = Blobs::open(folder.join("blobs")) {
        for entry in fs::read_dir(folder.join("blobs")).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            if let Some(blob) = name.to_str().and_then(BlobHash::from_hex) {
                assert_eq!(blobs.rehash(&blob).expect("readable"), blob, "{when}: a blob in part");
            }
        }
        for (what, content) in [("blob", content as fn(u32) -> Vec<u8>), ("chunks", chunks), ("state", state_of)] {
            for round in 0..ROUNDS {
                let said = last(what).is_some_and(|last| u64::from(round) <= last);
                assert!(!said || blobs.contains(&BlobHash::of(&content(round))), "{when}: {what} {round} is gone");
            }
        }
        if let Some(round) = last("labels").and_then(|round| u32::try_from(round).ok()) {
            let workspace = Workspace::open(folder.join("work")).expect("opened");
            let found = workspace.labels_at_hand(JobId(1), RoundId(round)).expect("readable");
            let whole = [(0, BlobHash::of(&content(round)))];
            // The next round's room is made by taking this one's away.
            assert!(found == whole || round + 1 < ROUNDS, "{when}: {found:?}");
        }
    }
    let backlog = Backlog::restore(1 << 16, 7, &stored(folder));
    assert!(backlog.len() as u64 >= last("backlog").unwrap_or(0), "{when}: samples are gone");
    let kept = Calibration::kept(folder, &conditions());
    assert!(kept.is_some() || last("calibration").is_none(), "{when}: the calibration is gone");
}

/// Reads a trace with the paths of its descriptors.
fn nothing_is_acknowledged_before_it_is_flushed(trace: &str) {
    let (mut dirty, mut unsettled): (BTreeSet<String>, BTreeSet<String>) = (BTreeSet::new(), BTreeSet::new());
    let mut renames = 0;
    for line in trace.lines() {
        let Some((call, rest)) = line.split_once('(') else { continue };
        let descriptor =
            || rest.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path.to_owned());
        let quoted: Vec<&str> = rest.split('"').skip(1).step_by(2).collect();
        match call {
            "write" if rest.starts_with("1<") => {
                // Labels are a second name of a blob that is flushed: without the name they are named again.
                let own = |path: &&String| !path.contains("/work/");
                let left: Vec<_> = dirty.iter().chain(&unsettled).filter(own).collect();
                assert!(left.is_empty(), "{line}: {left:?} is not flushed");
            }
            "write" | "pwrite64" | "ftruncate" => dirty.extend(descriptor()),
            "fsync" | "fdatasync" => {
                let path = descriptor().expect("a path");
                dirty.remove(&path);
                unsettled.remove(&path);
            }
            // What is gone again has nothing to be flushed.
            "unlink" | "unlinkat" => {
                if let [.., path] = quoted[..] {
                    dirty.remove(path);
                }
            }
            "rename" => {
                let [from, to] = quoted[..] else { panic!("{line}") };
                if !from.contains("/work/labels") {
                    assert!(!dirty.contains(from), "{line}: renamed before it was flushed");
                    let folder = Path::new(to).parent().map(PathBuf::from).unwrap_or_default();
                    unsettled.insert(folder.display().to_string());
                    renames += 1;
                }
            }
            _ => {}
        }
    }
    assert!(renames >= 6 * ROUNDS, "{renames} files took their places");
}

fn memory(round: u32) -> Vec<u8> {
    vec![u8::try_from(round).expect("few"); 700]
}

fn content(round: u32) -> Vec<u8> {
    format!("labels of round {round}").into_bytes()
}

fn state_of(round: u32) -> Vec<u8> {
    format!("state of round {round}").into_bytes()
}

fn chunks(round: u32) -> Vec<u8> {
    vec![0xa0 | u8::try_from(round).expect("few"); 2 * CHUNK]
}

fn manifest(round: u32) -> Manifest {
    let purpose = Purpose::Dataset(DatasetVersion([0; 32]));
    Manifest { blob: BlobHash::of(&chunks(round)), size: 2 * CHUNK as u64, chunk: CHUNK as u32, purpose }
}

fn conditions() -> Conditions {
    Conditions { kernel: "6.6".to_owned(), threads: 4, batch: 64, trainer: (0, 0) }
}

fn stored(folder: &Path) -> Vec<u8> {
    durable::read(&folder.join("backlog")).expect("readable").unwrap_or_default()
}
