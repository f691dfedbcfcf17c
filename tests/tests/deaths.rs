//! A board's trainer dies in the middle of an epoch, in every way that trainers do, with host and agent as they are
//! deployed: the cause is told, the student is marked as not fitting, the host trains the epoch, and the agent goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use twin_tests::{Fleet, Play, programs_or_skip};

/// A control group that may hold little memory; it goes with the test.
struct SmallRoom(PathBuf);

impl SmallRoom {
    /// `None` where this machine gives none. Version 1 or 2 of control groups.
    fn new(bytes: u64) -> Option<Self> {
        let places = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        places.into_iter().find_map(|(place, limit)| {
            // Only below a control group of the kernel's, never in a folder that merely has its name.
            fs::metadata(Path::new(place).join("cgroup.procs")).ok()?;
            let group = Path::new(place).join(format!("twin-deaths-{}", std::process::id()));
            fs::create_dir(&group).ok()?;
            let room = Self(group);
            let file = room.0.join(limit);
            (file.is_file() && fs::write(file, bytes.to_string()).is_ok()).then_some(room)
        })
    }
}

impl Drop for SmallRoom {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A fleet of one board whose trainer is started by this script's lines and fails in every epoch.
fn fleet(programs: &Path, fault: &str, lines: &str, trainer: &str) -> Fleet {
    let stand_in = PathBuf::from(env!("CARGO_BIN_EXE_stand-in-trainer"));
    let play = Play { tls: true, ..Play::carried(stand_in.clone(), 1 << 16) };
    let fleet = Fleet::played(programs.to_owned(), &["left"], "all-local", play);
    let script = fleet.path("left/trainer");
    let text = format!("#!/bin/sh\n{lines}\nSTAND_IN_FAULT={fault} exec {} \"$@\"\n", stand_in.display());
    fs::write(&script, text).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("made executable");
    let file = fleet.path("left/played.toml");
    let config = fs::read_to_string(&file).expect("the fleet wrote it");
    let ours = format!("[trainer]\nprogram = {:?}\n", stand_in);
    assert!(config.contains(&ours), "{config}");
    fs::write(&file, config.replace(&ours, &format!("[trainer]\nprogram = {script:?}\n{trainer}\n"))).expect("written");
    fleet
}

/// Runs two epochs with such a trainer. What the board said of the trainer's end is held against `cause`.
fn survives(fleet: &Fleet, cause: &str) {
    let _host = fleet.serve(&["left"], 2);
    let mut agent = fleet.agent("left");
    fleet.wait_for("left", 2);
    let told = || format!("{}\n{}", fleet.agent_log("left"), fleet.host_log());
    let shown = fleet.show("left");
    assert_eq!(shown["student"]["site"], "host", "{shown}\n{}", told());
    assert!(fleet.agent_log("left").contains(cause), "no {cause:?} in\n{}", told());
    assert!(fleet.host_log().contains(cause), "the host does not hear of {cause:?}:\n{}", told());
    let kept = fs::read_to_string(fleet.path("left/data/calibration.json")).expect("the board keeps what it knows");
    assert!(kept.contains(cause), "{kept}");
    let until = Instant::now() + Duration::from_secs(60);
    let is_marked = |shown: &Value| {
        let students = shown["learnt"]["calibration"]["students"].as_array().cloned().unwrap_or_default();
        students.iter().any(|student| student["fits"] == false)
    };
    loop {
        let shown = fleet.show("left");
        if is_marked(&shown) {
            break;
        }
        assert!(Instant::now() < until, "the student is not marked: {shown}\n{}", told());
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(agent.is_running(), "{}", told());
    assert!(agent.terminate(), "{}", told());
}

#[test]
fn a_crash_costs_an_epoch() {
    let programs = programs_or_skip!();
    survives(&fleet(&programs, "crash", "", ""), "it crashed or was ended: signal 6");
}

#[test]
fn an_end_with_a_status_costs_an_epoch() {
    let programs = programs_or_skip!();
    survives(&fleet(&programs, "exit", "", ""), "it ended with status 3");
}

#[test]
fn a_trainer_that_hangs_is_ended() {
    let programs = programs_or_skip!();
    survives(&fleet(&programs, "stall", "", "stall_s = 3"), "it said nothing for 3 s and was ended");
}

#[test]
fn a_trainer_over_its_limit_is_ended() {
    let programs = programs_or_skip!();
    survives(&fleet(&programs, "memory", "", "memory_limit_mib = 64"), "64 are allowed");
}

#[test]
fn a_trainer_that_the_kernel_kills_for_memory_is_told_from_others() {
    let programs = programs_or_skip!();
    let Some(room) = SmallRoom::new(48 << 20) else {
        eprintln!("skipped: no control group with a limit of memory is to be had here");
        return;
    };
    let enter = format!("echo $$ > {}", room.0.join("cgroup.procs").display());
    survives(&fleet(&programs, "memory", &enter, ""), "killed by the kernel: memory ran out");
}
