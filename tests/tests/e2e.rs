//! Whole jobs with the programs as they are deployed, over real MQTT connections.

use twin_tests::{Fleet, programs_or_skip};

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
    // What the farewell itself takes is counted too, so the bytes are left out.
    let shown = || {
        let mut shown = fleet.show("left");
        assert!(shown.as_object_mut().expect("an object").remove("traffic").is_some(), "bytes are counted");
        shown
    };
    let before = shown();
    assert!(host.terminate(), "the host ends well on SIGTERM");
    assert_eq!(shown(), before, "a stopped host finds its twins again");
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

/// The host's compute is dear, so a board trains on itself while an epoch takes it less than minutes. Throttled to a
/// fraction of its clock, its student moves to the host; `show` says why, and the decision's scenario replays to the
/// same answer.
#[test]
fn a_throttled_board_sees_its_decision_change() {
    let folder = programs_or_skip!();
    let fleet = Fleet::new(folder.clone(), &["left"], "exact");
    let rewrite = |file: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(fleet.path(file)).expect("it is there");
        assert!(text.contains(from), "{file}: {text}");
        std::fs::write(fleet.path(file), text.replace(from, to)).expect("written");
    };
    // Board and host are one machine, so an epoch takes either the same time. At this price the host's is worth it from
    // some twelve times that: more than a busy machine makes of an epoch, and far less than the throttling does.
    let dear = "frequency_ghz = 4.0\ndecide_every_s = 1\n[scheduler.weights]\ncompute = 0.03\n";
    rewrite("host.toml", "frequency_ghz = 4.0\n", dear);
    rewrite("left/played.toml", "frequency_ghz = 2.0", "frequency_ghz = 40.0");
    let _host = fleet.serve(&["left"], 60);
    let mut agent = fleet.agent("left");
    fleet.wait_for("left", 1);
    let before = fleet.show("left");
    assert_eq!(before["student"]["site"], "local", "{before}");
    assert_eq!(before["decision"]["device"]["site"], "local", "{before}");
    agent.kill();
    rewrite("left/played.toml", "frequency_ghz = 40.0\nduty = 1.0", "frequency_ghz = 0.5\nduty = 0.0125");
    let _again = fleet.agent("left");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let after = loop {
        let shown = fleet.show("left");
        if shown["student"]["site"] == "host" {
            break shown;
        }
        let log = || std::fs::read_to_string(fleet.path("host.log")).unwrap_or_default();
        assert!(std::time::Instant::now() < until, "{shown}\n{}", log());
        std::thread::sleep(std::time::Duration::from_millis(300));
    };
    let (decision, device) = (&after["decision"], &after["decision"]["device"]);
    assert_eq!((&device["site"], &device["figures"]["frequency_ghz"]), (&"host".into(), &0.5.into()), "{after}");
    assert!(device["why"].as_str().is_some_and(|why| why.contains("trains on the host")), "{after}");
    assert!(decision["number"].as_u64() > before["decision"]["number"].as_u64(), "{after}");
    let scenario = decision["scenario"].as_str().expect("a path");
    let replayed = std::process::Command::new(folder.join("twin-host"))
        .args(["schedule", "--scenario", scenario, "--policy", "exact", "--format", "json"])
        .output()
        .expect("twin-host starts");
    let said = String::from_utf8_lossy(&replayed.stdout);
    let replayed: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(replayed["devices"][0]["site"], "host", "{replayed}");
    assert_eq!(replayed["objective"], decision["of"]["objective"], "{replayed}\n{after}");
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
