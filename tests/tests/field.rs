//! A field test in small, with host and agents as they are deployed and a stand-in for the trainers: links that change and
//! are cut, boards and a host that are killed; then the recorded run decided again without any of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use twin_tests::programs_or_skip;

const BOARDS: [&str; 4] = ["one", "two", "three", "four"];
/// More than are done in the plan's time: what a stand-in trains makes no model.
const EPOCHS: usize = 1000;

/// Rows of a CSV file without quoted cells, the header left out.
fn rows(file: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn plan() -> String {
    let boards = BOARDS.iter().zip([0.2, 0.3, 0.4, 0.5]).enumerate().map(|(k, (name, cpu))| {
        let (link, next) = (8e6 * (k + 1) as f64, k + 1);
        format!("[[boards]]\nname = {name:?}\ncpu = {cpu}\nlink_bits_per_second = {link:e}\nclasses = [{k}, {next}]\n")
    });
    let steps = [
        "at_s = 1\nboard = \"four\"\ncpu = 0.1\n",
        "at_s = 2\nboard = \"three\"\nlink_bits_per_second = 4e6\n",
        "at_s = 3\nboard = \"one\"\ncut_for_s = 3\n",
        "at_s = 4\nboard = \"two\"\nkill_for_s = 2\n",
        "at_s = 7\nhost = true\nkill_for_s = 1\n",
    ];
    // Datasets of 300 KB: what a smaller transfer takes says nothing of a link, and one of which nothing is known is taken
    // for a slow one.
    format!(
        "hours = 0.02\ncount_from = \"teacher\"\n[emulate]\nseed = 1\nimages_per_class = 50\nsample_every_s = 1\n{}{}",
        boards.collect::<String>(),
        steps.map(|step| format!("[[steps]]\n{step}")).concat(),
    )
}

#[test]
fn a_fleet_comes_through_and_its_run_is_decided_again() {
    let programs = programs_or_skip!();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let stand_in = PathBuf::from(env!("CARGO_BIN_EXE_stand-in-trainer"));
    let host = "[trainer]\ndevice = \"cpu\"\nthreads = 1\nteacher_threads = 1\nprecision = \"f32\"\n\
                [scheduler]\npolicy = \"exact\"\nfrequency_ghz = 4.0\nbandwidth_hz = 40e6\ndecide_every_s = 2\n\
                [[scheduler.models]]\nname = \"vgg8\"\naccuracy_own = 0.9\naccuracy_avg = 0.9\n";
    let job = format!(
        "devices = {BOARDS:?}\nclasses = 10\ncrop_padding = 2\npatience_s = 30\n[teacher]\narchitecture = \"vgg8\"\n\
         epochs = 1\nbatch = \"8\"\n[student]\nepochs = {EPOCHS}\nbatch = 8\nbatches_per_block = 1\n"
    );
    for (name, text) in [("plan.toml", plan().as_str()), ("host.toml", host), ("job.toml", &job)] {
        fs::write(path(name), text).expect("written");
    }
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits/digits.csv.gz");
    let twin_host = programs.join("twin-host");
    let done = Command::new(&twin_host)
        .args(["experiment", "field"])
        .arg(path("plan.toml"))
        .args(["--policies", "exact,all-host", "--digits"])
        .arg(&digits)
        .arg("--out")
        .arg(path("out"))
        .arg("--trainer")
        .arg(&stand_in)
        .envs([("STAND_IN_STATE", "1000000"), ("STAND_IN_LABELS", "100000"), ("RUST_LOG", "info,mqtt5=warn")])
        .output()
        .expect("twin-host starts");
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if said.contains("network namespaces are not to be had here") {
        eprintln!("skipped: {}", said.lines().last().unwrap_or_default());
        return;
    }
    let log = || fs::read_to_string(path("out/host.log")).unwrap_or_default();
    assert!(done.status.success(), "{said}\n{}", log());
    println!("{}", fs::read_to_string(path("out/report.md")).expect("a report"));

    let steps = rows(&path("out/steps.csv"));
    assert_eq!(steps.len(), 8, "every step was done: {steps:?}");
    assert!(steps.iter().all(|step| step[4].is_empty()), "{steps:?}");
    let epochs = rows(&path("out/epochs.csv"));
    for board in BOARDS {
        let own: Vec<&str> = epochs.iter().filter(|row| row[1] == board).map(|row| row[2].as_str()).collect();
        let expected: Vec<String> = (0..own.len()).map(|round| round.to_string()).collect();
        assert_eq!(own, expected, "{board}: each epoch once, in order\n{}", log());
        assert!(own.len() >= 2, "{board} goes on: {own:?}\n{}", log());
        assert!(rows(&path("out/telemetry.csv")).iter().any(|row| row[1] == board), "{board} is sampled");
    }
    let decisions = rows(&path("out/decisions.csv"));
    assert!(decisions.len() >= 2 * BOARDS.len(), "{decisions:?}");

    let replay = |policy: &str| -> serde_json::Value {
        let done = Command::new(&twin_host)
            .args(["experiment", "replay"])
            .arg(path("out"))
            .args(["--policy", policy, "--format", "json"])
            .output()
            .expect("twin-host starts");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_str::<serde_json::Value>(&said).expect("JSON")["replays"][0].clone()
    };
    let (own, host) = (replay("exact"), replay("all-host"));
    let turns = own["decisions"].as_array().expect("a list");
    assert_eq!(turns.len() * BOARDS.len(), decisions.len());
    assert_eq!(own["answers_as_recorded"], turns.len(), "its own policy decides the same again: {own}");
    assert_eq!(host["local"], 0.0, "{host}");
    // The questions are the same, and the first one finds nothing that was there before.
    assert!(turns[0]["objective"].as_f64() <= host["decisions"][0]["objective"].as_f64(), "{own} {host}");
}

#[test]
fn a_wrong_plan_is_one_line_and_status_2() {
    let programs = programs_or_skip!();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plan.toml");
    fs::write(&file, plan().replace("sample_every_s", "sample_evry_s")).expect("written");
    let done = Command::new(programs.join("twin-host")).args(["experiment", "field"]).arg(&file).output();
    let done = done.expect("twin-host starts");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("sample_evry_s") && said.contains("sample_every_s"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}
