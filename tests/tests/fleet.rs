//! A fleet's life with the programs as they are deployed: lists of boards, and cards that take another's place.

use std::fs;
use std::time::{Duration, Instant};

use twin_tests::{Fleet, programs_or_skip};

/// Longer than anything here takes on the slowest machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(240);

/// Waits until a board's agent has said this.
fn until(fleet: &Fleet, folder: &str, said: &str) {
    let began = Instant::now();
    while !fleet.agent_log(folder).contains(said) {
        assert!(began.elapsed() < PATIENCE, "{folder} has not said {said:?}: {}", fleet.agent_log(folder));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a command that fails says: one line.
fn refused(fleet: &Fleet, arguments: &[&str]) -> String {
    let (done, said) = fleet.host(arguments);
    assert!(!done && said.trim_end().lines().count() == 1, "{arguments:?}: {said}");
    said
}

#[test]
fn another_card_goes_on_in_the_place_of_one_that_died() {
    let fleet = Fleet::new(programs_or_skip!(), &["left"], "all-local");
    let nobody = refused(&fleet, &["replace", "right", "--out", &fleet.path("none")]);
    assert!(nobody.contains("right"), "{nobody}");
    let mut host = fleet.serve(&["left"], 3);
    let mut died = fleet.agent("left");
    fleet.wait_for("left", 1);
    died.kill();
    let before = fleet.show("left");

    let folder = fleet.path("card");
    let (done, said) = fleet.host(&["replace", "left", "--out", &folder]);
    assert!(done && said.contains("holds the images of the twin"), "{said}");
    let images = |folder: &str| fs::read(fleet.path(&format!("{folder}/dataset.twinset"))).expect("there");
    assert!(images("card") == images("left"), "the card has other images than its twin");
    // Whoever has the old keys is out, also while the new card is on its way.
    let mut stolen = fleet.agent("left");
    until(&fleet, "left", "refuses this board");

    // The enrolment names the dataset.
    fleet.configure_board("card", "card", "");
    let _agent = fleet.agent("card");
    fleet.wait_for("left", 3);
    assert!(stolen.is_running(), "{}", fleet.agent_log("left"));
    stolen.kill();
    // What was carried is written down by the host's end at the latest.
    assert!(host.terminate(), "the host ends well on SIGTERM");
    let after = fleet.show("left");
    // The same student went on, on the board, and no image was sent anew.
    assert_eq!(after["student"]["network"], before["student"]["network"]);
    assert_eq!(after["student"]["site"], "local", "{after}");
    let of = |shown: &serde_json::Value| (shown["dataset"]["version"].clone(), shown["dataset"]["train"].clone());
    assert_eq!(of(&after), of(&before));
    let (once, sent) = (images("left").len() as u64, &after["traffic"]["total"]["dataset"]["up_bytes"]);
    assert!(sent.as_u64().is_some_and(|sent| (once..2 * once).contains(&sent)), "{sent} bytes for images of {once}");
}

#[test]
fn a_list_of_boards_is_enrolled_whole_and_each_connects() {
    let fleet = Fleet::new(programs_or_skip!(), &["kitchen"], "all-host");
    let write = |text: &str| fs::write(fleet.path("devices.csv"), text).expect("written");
    let (list, out) = (fleet.path("devices.csv"), fleet.path("boards"));
    let enroll = ["enroll", "--list", &list, "--out", &out];
    for (text, named) in [
        ("device\nhall\nHall\n", "line 3"),
        ("device\nhall\nhall\n", "named twice"),
        ("device\nhall\nkitchen\n", "kitchen is enrolled already"),
        ("device\nhall\ntwin-host\n", "host's own name"),
    ] {
        write(text);
        let said = refused(&fleet, &enroll);
        assert!(said.contains(named), "{said}");
        assert!(!fs::exists(&out).expect("asked"));
    }
    assert!(!fleet.host(&["devices"]).1.contains("hall"), "half a list");

    write("device,board\nhall,pi@hall.local\nporch,\n");
    let (done, said) = fleet.host(&enroll);
    assert!(done && said.contains("2 devices") && said.contains("inventory.csv"), "{said}");
    let inventory = fs::read_to_string(fleet.path("boards/inventory.csv")).expect("written");
    assert_eq!(inventory, "board,folder\npi@hall.local,hall\n");
    let _host = fleet.serve_idle(&[]);
    let _agents = ["boards/hall", "boards/porch"].map(|folder| {
        fleet.equip(folder, folder, 0);
        fleet.agent(folder)
    });
    for folder in ["boards/hall", "boards/porch"] {
        until(&fleet, folder, "connected to the host");
    }
}
