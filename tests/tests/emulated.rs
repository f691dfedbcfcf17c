//! The programs as they are built for boards, under an emulated processor, against the host on this machine: samples,
//! an epoch that is trained there, and the student's state back with an equal hash.
//!
//! `TWIN_EMULATED_PROGRAMS` names the folder that `scripts/cross-build aarch64-unknown-linux-gnu --programs` wrote, as
//! `scripts/test-emulated` sets it; `TWIN_EMULATED_CPU` the processor (cortex-a72).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use twin_shared::id::BlobHash;
use twin_tests::{Fleet, Running, programs_or_skip};

#[test]
fn a_whole_board_trains_an_epoch_under_emulation() {
    let programs = programs_or_skip!();
    let Some(board) = std::env::var_os("TWIN_EMULATED_PROGRAMS").map(PathBuf::from) else {
        eprintln!("skipped: TWIN_EMULATED_PROGRAMS is not set; scripts/test-emulated sets it");
        return;
    };
    let board = board.canonicalize().expect("the folder is there");
    let cpu = std::env::var("TWIN_EMULATED_CPU").unwrap_or_else(|_| "cortex-a72".into());
    let fleet = Fleet::new(programs, &["left"], "all-local");
    // Programs that an emulated one starts are the machine's own, so the trainer is started by way of the emulator again.
    let script = fleet.path("left/trainer");
    let text =
        format!("#!/bin/sh\nexec qemu-aarch64-static -cpu {cpu} {} \"$@\"\n", board.join("twin-trainer").display());
    fs::write(&script, text).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("made executable");
    let file = fleet.path("left/played.toml");
    let config = fs::read_to_string(&file).expect("the fleet wrote it");
    let lines = config.lines().map(|line| {
        let is_trainer = line.starts_with("program = ");
        if is_trainer { format!("program = {script:?}\n") } else { format!("{line}\n") }
    });
    fs::write(&file, lines.collect::<String>()).expect("written");
    // Emulated, an epoch takes as long as it takes.
    let job = fleet.job_text(&["left"], 1).replacen("patience_s = 60", "patience_s = 900\ndeadline_factor = 1000.0", 1);
    fs::write(fleet.path("job.toml"), job).expect("written");
    let arguments = ["serve", "--config", &fleet.path("host.toml"), "--job", &fleet.path("job.toml")];
    let host_log = fleet.path("host.log");
    let _host = Running::start(&fleet.program("twin-host"), &arguments, Path::new(&host_log));
    let log = fleet.path("left/agent.log");
    let agent = board.join("twin-agent").display().to_string();
    let variables = [("OMP_NUM_THREADS", "1".to_owned())];
    let arguments = ["-cpu", &cpu, &agent, "run", "--config", &file];
    let mut agent = Running::start_with(Path::new("qemu-aarch64-static"), &arguments, Path::new(&log), &variables);
    let (began, patience) = (Instant::now(), Duration::from_secs(900));
    let told = || format!("{}\n{}", fleet.agent_log("left"), fleet.host_log());
    while fleet.show("left")["student"]["epochs"].as_u64() < Some(1) {
        assert!(agent.is_running(), "the agent has ended:\n{}", told());
        assert!(began.elapsed() < patience, "no epoch:\n{}", told());
        std::thread::sleep(Duration::from_millis(500));
    }
    let shown = fleet.show("left");
    println!("an epoch under {cpu} after {:.0} s: {shown}", began.elapsed().as_secs_f64());
    assert_eq!(shown["student"]["site"], "local", "{shown}\n{}", told());
    assert!(shown["traffic"]["total"]["telemetry"]["up_bytes"].as_u64() > Some(0), "{shown}");
    let state = shown["student"]["state"].as_str().expect("a hash");
    for side in ["left/data/blobs", "host/twins/left/blobs"] {
        let bytes = fs::read(Path::new(&fleet.path(side)).join(state)).expect("both sides have it");
        assert_eq!(BlobHash::of(&bytes).to_string(), state, "{side}");
    }
    assert!(agent.terminate(), "it ends on SIGTERM:\n{}", told());
}
