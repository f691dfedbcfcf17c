//! `twin-host schedule` as a program: its JSON to the letter, and what it says of scenarios that cannot be.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn preset() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../presets/paper-preset.toml")
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twin-host")).args(arguments).output().expect("it starts")
}

fn decided(arguments: &[&str]) -> serde_json::Value {
    let done = run(arguments);
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("one JSON object and nothing else")
}

fn scenario(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

fn keys(value: &serde_json::Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_json_is_as_documented_for_every_policy() {
    let file = preset();
    let file = file.to_str().expect("UTF-8");
    for (policy, certified) in [
        ("q-learning", false),
        ("q-learning-only", false),
        ("fl-min", false),
        ("fl-max", false),
        ("exact", true),
        ("dual", true),
        ("all-local", false),
        ("all-host", false),
        ("best-constant", false),
        ("random", false),
    ] {
        let arguments = ["schedule", "--scenario", file, "--policy", policy, "--format", "json", "--seed", "3"];
        let answer = decided(&arguments);
        let mut expected = ["policy", "objective", "lower_bound", "gap", "elapsed_s", "average_delay_s", "devices"];
        expected.sort_unstable();
        assert_eq!(keys(&answer), expected);
        assert_eq!(answer["policy"], policy);
        assert!(answer["objective"].is_f64() && answer["elapsed_s"].is_f64() && answer["average_delay_s"].is_f64());
        if certified {
            assert!(
                answer["lower_bound"].as_f64() <= answer["objective"].as_f64() && answer["gap"].is_f64(),
                "{answer}"
            );
        }
        let devices = answer["devices"].as_array().expect("a list");
        assert_eq!(devices.len(), 4);
        for device in devices {
            let mut expected = ["id", "model", "site", "frequency_ghz", "bandwidth_hz", "delay_s"];
            expected.sort_unstable();
            assert_eq!(keys(device), expected);
            assert!(["local", "host"].contains(&device["site"].as_str().expect("a word")));
        }
        // The same seed gives the same answer, to the bit.
        let again = decided(&arguments);
        assert_eq!((&again["objective"], &again["devices"]), (&answer["objective"], &answer["devices"]));
    }
}

#[test]
fn both_families_draw_the_same_scenario_for_a_seed() {
    for family in ["paper", "fleet"] {
        let draw = |seed: &str| {
            let arguments = ["schedule", "--random", "6", "--family", family, "--seed", seed, "--policy", "exact"];
            decided(&[&arguments[..], &["--format", "json"]].concat())["devices"].clone()
        };
        assert_eq!(draw("5"), draw("5"));
        assert_ne!(draw("5"), draw("6"));
    }
}

#[test]
fn measured_figures_and_permissions_override_the_shared_ones() {
    let text = std::fs::read_to_string(preset()).expect("it is there");
    let first = "id = \"board1\"\nfrequency_ghz = 0.7\ntransmit_power_w = 0.1\ndistance_m = 20.0\n";
    assert!(text.contains(first));
    let with = |more: &str| scenario(&text.replace(first, &format!("{first}{more}")));
    let of_first = |file: &tempfile::NamedTempFile| {
        let path = file.path().to_str().expect("UTF-8").to_owned();
        decided(&["schedule", "--scenario", &path, "--policy", "exact", "--format", "json"])["devices"][0].clone()
    };
    let fast = of_first(&with("models = [\"vgg8\"]\n[devices.seconds]\nvgg8 = { local = 0.01, host = 900.0 }\n"));
    assert_eq!((&fast["model"], &fast["site"]), (&"vgg8".into(), &"local".into()), "{fast}");
    let barred =
        of_first(&with("can_train = false\nmodels = [\"vgg8\"]\n[devices.seconds]\nvgg8 = { local = 0.01 }\n"));
    assert_eq!(barred["site"], "host", "{barred}");
    let good = of_first(&with("[devices.accuracy]\nresnet26x4 = { own = 1.0, avg = 1.0 }\n"));
    assert_eq!(good["model"], "resnet26x4", "{good}");
    // The same channel by its gain: h = g_0 d^-γ.
    let gain = 1e-4 * 20f64.powf(-2.8);
    let by_gain = scenario(&text.replacen("distance_m = 20.0", &format!("channel_gain = {gain:e}"), 1));
    let close = |a: &serde_json::Value, b: &serde_json::Value| {
        let (a, b) = (a["delay_s"].as_f64().expect("a number"), b["delay_s"].as_f64().expect("a number"));
        (a / b - 1.0).abs() < 1e-9
    };
    assert!(close(&of_first(&by_gain), &of_first(&with(""))));
}

/// Every way to be wrong that the documentation names: status 2 and one line that names the key, and the device where
/// it is one's.
#[test]
fn what_cannot_be_is_status_2_and_one_line_with_key_and_device() {
    let text = std::fs::read_to_string(preset()).expect("it is there");
    let edits: &[(&str, &str, &[&str])] = &[
        ("frequency_ghz = 0.7\n", "", &["frequency_ghz", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = -0.7", &["frequency_ghz", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = 0.0", &["frequency_ghz", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = inf", &["frequency_ghz", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = nan", &["frequency_ghz", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = \"fast\"", &["frequency_ghz"]),
        ("frequency_ghz = 0.7", "frequency_gzh = 0.7", &["frequency_gzh", "frequency_ghz", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = 0.7\ndata_scale = 0.0", &["data_scale", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = 0.7\nmodels = []", &["models", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = 0.7\nmodels = [\"vgg9\"]", &["models", "vgg9", "board1"]),
        ("frequency_ghz = 0.7", "frequency_ghz = 0.7\nchannel_gain = 1e-9", &["channel_gain", "distance_m", "board1"]),
        (
            "frequency_ghz = 0.7",
            "frequency_ghz = 0.7\nseconds = { vgg9 = { local = 1.0 } }",
            &["seconds", "vgg9", "board1"],
        ),
        (
            "frequency_ghz = 0.7",
            "frequency_ghz = 0.7\nseconds = { vgg8 = { local = -1.0 } }",
            &["seconds", "vgg8", "board1"],
        ),
        (
            "frequency_ghz = 0.7",
            "frequency_ghz = 0.7\naccuracy = { vgg8 = { own = 2.0, avg = 0.5 } }",
            &["accuracy", "vgg8", "board1"],
        ),
        ("transmit_power_w = 0.1\n", "", &["transmit_power_w", "board1"]),
        ("distance_m = 20.0\n", "", &["distance_m", "channel_gain", "board1"]),
        ("distance_m = 20.0", "distance_m = -20.0", &["distance_m", "board1"]),
        ("id = \"board1\"", "id = \"board2\"", &["id", "board2"]),
        ("id = \"board1\"\n", "", &["id", "device 1"]),
        ("frequency_ghz = 10.0", "frequency_ghz = 0.0", &["frequency_ghz", "[server]"]),
        ("bandwidth_hz = 10e6\n", "", &["bandwidth_hz", "[server]"]),
        ("delay = 0.00928", "delay = 0.0", &["delay", "[weights]"]),
        ("compute = 0.00635", "compute = -1.0", &["compute", "[weights]"]),
        ("work_ghz_s = 17.6", "work_ghz_s = inf", &["work_ghz_s", "[teacher]"]),
        ("work_ghz_s = 6.83", "work_ghz_s = 0.0", &["work_ghz_s", "vgg8"]),
        ("parameter_bits = 2.5376e7\n", "", &["parameter_bits", "vgg8"]),
        ("accuracy_own = 0.8653", "accuracy_own = 1.5", &["accuracy_own", "vgg8"]),
        ("name = \"resnet8x4\"", "name = \"vgg8\"", &["name", "vgg8"]),
        ("[radio]\n", "[radoi]\n", &["radoi", "radio"]),
    ];
    let mut wrong: Vec<(String, Vec<&str>)> = edits
        .iter()
        .map(|(from, to, named)| {
            assert!(text.contains(from), "{from}");
            (text.replacen(from, to, 1), named.to_vec())
        })
        .collect();
    let before = |section: &str| text[..text.find(section).expect("it is there")].to_owned();
    wrong.push((before("[[devices]]"), vec!["devices"]));
    wrong.push((format!("devices = []\n{}", before("[[devices]]")), vec!["devices"]));
    let devices = &text[text.find("[[devices]]").expect("it is there")..];
    wrong.push((before("[[models]]") + devices, vec!["models"]));
    for (text, named) in wrong {
        let file = scenario(&text);
        let done = run(&["schedule", "--scenario", file.path().to_str().expect("UTF-8"), "--policy", "exact"]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{named:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{named:?}: {said}");
        for word in named {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    for arguments in [
        &["schedule", "--random", "0", "--family", "fleet", "--policy", "exact"][..],
        &["schedule", "--random", "4", "--policy", "exact"],
        &["schedule", "--random", "4", "--family", "fleet", "--policy", "guess"],
        &["schedule", "--scenario", "/nowhere.toml", "--policy", "exact"],
    ] {
        let done = run(arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
