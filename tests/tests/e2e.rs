//! Whole jobs with the programs as they are deployed, over real MQTT connections.

use twin_tests::{Fleet, programs};

/// The programs, or a word that the test was skipped.
macro_rules! programs_or_skip {
    () => {
        match programs() {
            Some(folder) => folder,
            None => {
                eprintln!("skipped: TWIN_PROGRAMS is not set; scripts/test sets it");
                return;
            }
        }
    };
}

/// Runs two epochs with a policy that forces the site, and looks at what the store holds afterwards and after a
/// restart.
fn forced(policy: &str, site: &str) {
    let fleet = Fleet::new(programs_or_skip!(), &["left", "right"], policy);
    let mut host = fleet.serve(&["left", "right"], 2);
    let _agents = [fleet.agent("left"), fleet.agent("right")];
    for board in ["left", "right"] {
        fleet.wait_for(board, 2);
        let shown = fleet.show(board);
        assert_eq!(shown["student"]["site"], site, "{shown}");
        assert_eq!(shown["student"]["network"], "vgg8");
        let dataset = &shown["dataset"];
        let samples = dataset["train"].as_u64().zip(dataset["held_out"].as_u64()).map(|(train, held)| train + held);
        assert_eq!(samples, Some(24), "{shown}");
    }
    let before = fleet.show("left");
    assert!(host.terminate(), "the host ends well on SIGTERM");
    assert_eq!(fleet.show("left"), before, "a stopped host finds its twins again");
}

#[test]
fn students_train_on_their_boards() {
    forced("all-local", "local");
}

#[test]
fn students_train_on_the_host() {
    forced("all-host", "host");
}

#[test]
fn a_board_that_dies_does_not_hold_up_the_other() {
    let fleet = Fleet::new(programs_or_skip!(), &["left", "right"], "all-local");
    let _host = fleet.serve(&["left", "right"], 3);
    let _left = fleet.agent("left");
    let mut right = fleet.agent("right");
    fleet.wait_for("right", 1);
    right.kill();
    fleet.wait_for("left", 3);
}

#[test]
fn a_board_that_was_killed_comes_back_to_its_epoch() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-local");
    let _host = fleet.serve(&["left"], 3);
    let mut agent = fleet.agent("left");
    fleet.wait_for("left", 1);
    agent.kill();
    let _again = fleet.agent("left");
    fleet.wait_for("left", 3);
}

#[test]
fn what_is_wrong_is_one_line_and_status_2() {
    let folder = programs_or_skip!();
    let fleet = Fleet::new(folder.clone(), &["left"], "all-host");
    std::fs::write(fleet.path("bad.toml"), "[scheduler]\nbandwith_hz = 1.0\n").expect("written");
    let bad = fleet.path("bad.toml");
    let done = std::process::Command::new(folder.join("twin-host"))
        .args(["serve", "--config", &bad])
        .output()
        .expect("twin-host starts");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("bandwith_hz") && said.contains("bandwidth_hz"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}
