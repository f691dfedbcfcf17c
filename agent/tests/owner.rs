//! The owner's commands as they are called: pictures in, answers out, models back.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use twin_agent::models::{Activation, Models};
use twin_data::picture::to_png;
use twin_data::{ClassList, IMAGE_BYTES};
use twin_infer::sample;
use twin_shared::model::Architecture;

struct Board {
    folder: tempfile::TempDir,
}

impl Board {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = "[device]\nname = \"kitchen\"\ndata_dir = \"data\"\n[dataset]\npath = \"pictures\"\n\
                      [model]\non_new_model = \"echo $TWIN_MODEL_VERSION >> $(dirname $TWIN_MODEL)/hooked\"\n";
        fs::write(folder.path().join("agent.toml"), config).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A picture whose grey tells it from others.
    fn draw(&self, name: &str, grey: u8) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, to_png(&[grey; IMAGE_BYTES]).unwrap()).unwrap();
    }

    fn classes(&self, names: &[&str]) {
        let list = ClassList::new(1, names.iter().map(|&name| name.to_owned()).collect()).unwrap();
        fs::write(self.path("data/classes.json"), list.to_json()).unwrap();
    }

    /// Exit status, standard output, standard error.
    fn agent(&self, arguments: &[&str]) -> (i32, String, String) {
        let done = Command::new(env!("CARGO_BIN_EXE_twin-agent"))
            .args(arguments)
            .args(["--config", "agent.toml"])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (status, out, said) = self.agent(&[arguments, &["--format", "json"]].concat());
        assert_eq!(status, 0, "{said}");
        serde_json::from_str(&out).unwrap()
    }

    fn model(&self, number: u8) -> String {
        self.model_of(Architecture::Resnet8x4, number)
    }

    fn model_of(&self, network: Architecture, number: u8) -> String {
        let bundle = sample::bundle(network, &["cat", "dog"], number);
        let file = self.path("bundle");
        fs::write(&file, bundle.to_bytes().unwrap()).unwrap();
        let models = Models::at(&self.path("data"));
        models.install(bundle.about.version(), &file).unwrap();
        assert_eq!(models.activate(bundle.about.version()).unwrap(), Activation::Switched);
        bundle.about.version().to_string()
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn folders_of_pictures_come_in_once_and_are_counted() {
    let board = Board::new();
    (0..30).for_each(|grey| board.draw(&format!("new/cat/{grey}.png"), grey));
    (100..120).for_each(|grey| board.draw(&format!("new/dog/{grey}.png"), grey));
    let added = board.json(&["data", "add", "new"]);
    assert_eq!((&added["added"], &added["pictures"]), (&50.into(), &50.into()), "{added}");
    let again = board.json(&["data", "add", "new"]);
    assert_eq!((&again["added"], &again["known"]), (&0.into(), &50.into()), "{again}");
    board.draw("one.png", 200);
    assert_eq!(board.json(&["data", "add", "one.png", "--class", "dog"])["added"], 1);
    board.draw("two.png", 201);
    assert_eq!(board.json(&["data", "add", "two.png", "--incoming"])["waiting"], 1);
    assert_eq!(board.json(&["data", "check"])["pictures"], 51);
    let stats = board.json(&["data", "stats"]);
    let dogs = &stats["classes"]["dog"];
    let all: u64 = ["train", "validation", "test"].iter().map(|part| dogs[part].as_u64().unwrap()).sum();
    assert_eq!((all, &stats["pictures"], &stats["waiting"]), (21, &51.into(), &1.into()), "{stats}");
}

#[test]
fn what_is_wrong_is_a_line_each_and_nothing_is_added() {
    let board = Board::new();
    board.classes(&["cat"]);
    board.draw("new/cat/fine.png", 1);
    board.draw("new/zebra/fine.png", 2);
    fs::write(board.path("new/cat/empty.jpg"), "").unwrap();
    let (status, _, said) = board.agent(&["data", "add", "new"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("\"zebra\" is not in the host's list") && said.contains("empty.jpg: the file is empty"));
    assert_eq!(count(&board.path("pictures")), 0);
    board.draw("spelled/Cat/a.png", 3);
    board.draw("spelled/cat/b.png", 4);
    let (status, _, said) = board.agent(&["data", "add", "spelled"]);
    assert!(status == 1 && said.contains("two spellings of one class"), "{said}");
    let (status, _, said) = board.agent(&["data", "add", "new/cat/fine.png"]);
    assert!(status == 2 && said.contains("--class NAME") && said.lines().count() == 1, "{said}");
    assert_eq!(board.agent(&["data", "add", "new/cat/fine.png", "--class", "cat"]).0, 0);
    fs::remove_dir_all(board.path("pictures/cat")).unwrap();
    let (status, out, _) = board.agent(&["data", "check"]);
    assert!(status == 1 && out.contains("names 1 pictures that are not there"), "{out}");
}

#[test]
fn pictures_are_answered_and_a_broken_one_is_a_line() {
    let board = Board::new();
    board.draw("see/a.png", 10);
    fs::write(board.path("see/b.jpg"), "no picture").unwrap();
    board.draw("see/c.png", 90);
    let (status, _, said) = board.agent(&["predict", "see"]);
    assert!(status == 1 && said.contains("no model is active"), "{said}");
    let version = board.model(1);
    let (status, out, said) = board.agent(&["predict", "see"]);
    assert_eq!((status, out.lines().count()), (1, 3), "{out}{said}");
    assert!(out.lines().nth(1).unwrap().contains("b.jpg: error: neither a JPEG nor a PNG"), "{out}");
    let answered = board.json(&["predict", "see/a.png", "--personal"]);
    assert_eq!(answered["model"], version);
    let prediction = &answered["predictions"][0];
    assert_eq!(prediction["logits"].as_array().unwrap().len(), 2);
    assert!(["cat", "dog"].contains(&prediction["class"].as_str().unwrap()), "{prediction}");
}

#[test]
fn the_last_three_models_are_kept_and_an_earlier_one_comes_back() {
    let board = Board::new();
    let versions: Vec<String> = (0..4).map(|number| board.model(number)).collect();
    let listed = board.json(&["model", "list"]);
    let kept: Vec<&str> =
        listed["models"].as_array().unwrap().iter().map(|model| model["version"].as_str().unwrap()).collect();
    assert_eq!(kept, versions[1..]);
    let (status, out, said) = board.agent(&["model", "rollback"]);
    assert!(status == 0 && out.contains(&versions[2][..12]), "{out}{said}");
    let hooked = fs::read_to_string(board.path("data/models/hooked")).unwrap();
    assert_eq!(hooked.trim(), versions[2]);
    let (status, _, said) = board.agent(&["model", "rollback", &versions[0]]);
    assert_eq!((status, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("pruned"), "{said}");
    assert_eq!(board.agent(&["model", "rollback", &versions[3][..6]]).0, 0);
}

/// The most memory that a process has held, KiB, as the kernel says.
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[test]
fn answers_take_no_more_memory_the_more_there_are() {
    const PICTURES: u8 = 200;
    const WARM: usize = 20;
    for network in [Architecture::Vgg8, Architecture::Resnet8x4, Architecture::Resnet26x4] {
        let board = Board::new();
        board.model_of(network, 1);
        (0..PICTURES).for_each(|grey| board.draw(&format!("see/{grey:03}.png"), grey));
        let mut command = Command::new(env!("CARGO_BIN_EXE_twin-agent"));
        command.args(["predict", "see", "--config", "agent.toml"]).current_dir(board.folder.path());
        let began = Instant::now();
        let mut predict = command.stdout(Stdio::piped()).spawn().unwrap();
        let (mut moments, mut peaks) = (Vec::new(), Vec::new());
        // A line when its picture is answered: the process is still there for all but the last.
        for line in BufReader::new(predict.stdout.take().unwrap()).lines() {
            assert!(line.unwrap().contains('%'));
            moments.push(began.elapsed());
            peaks.extend(peak(predict.id()));
        }
        assert!(predict.wait().unwrap().success());
        assert_eq!(moments.len(), usize::from(PICTURES));
        if peaks.len() <= WARM {
            eprintln!("skipped: no memory figures in /proc");
            return;
        }
        let (warm, most) = (peaks[WARM], peaks[peaks.len() - 1]);
        assert!(most <= warm + warm / 4, "{}: {warm} KiB after {WARM} answers, {most} in the end", network.name());
        let mut each: Vec<f64> = moments.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect();
        each.sort_by(f64::total_cmp);
        println!(
            "{}: {:.1} ms an answer (median of {PICTURES}), the first after {:.0} ms, {:.1} MiB at most",
            network.name(),
            each[each.len() / 2],
            moments[0].as_secs_f64() * 1e3,
            most as f64 / 1024.0
        );
    }
}
