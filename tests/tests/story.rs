//! The README's story, command by command, over the real broker with two emulated boards and real pictures: pictures
//! in, a model out, a class more, a model out again, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use twin_data::picture::to_png;
use twin_data::{ImageSet, digits};
use twin_tests::{Fleet, Play, Running, Story, programs_or_skip};

/// Longer than anything here takes on the slowest machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(240);

/// Names of the digits, by class.
const NAMES: [&str; 3] = ["zero", "one", "two"];

/// Pictures of a class on a board.
const PICTURES: usize = 12;

/// The story, and the machines that it happens on.
struct Stage {
    story: Story,
    fleet: Fleet,
    host: Option<Running>,
    boards: Vec<Running>,
}

impl Stage {
    fn new(programs: PathBuf) -> Self {
        let story = Story::of("A first loop: pictures in, answers out");
        let play = Play { tls: true, ..Play::trained(programs.join("twin-trainer")) };
        let fleet = Fleet::played(programs, &[], "all-local", play);
        // What a handful of held-out pictures says of two models is chance; what is refused has a test of its own.
        fleet.configure_host("[models]\nmost_lost = 1.0\n");
        for (name, text) in &story.files {
            fs::write(fleet.path(name), text).expect("written");
        }
        Self { story, fleet, host: None, boards: Vec::new() }
    }

    /// Runs the README's next command, which succeeds; what it puts out.
    fn run(&mut self, place: &str, command: &str) -> String {
        let (done, said) = self.attempt(place, command);
        assert!(done, "{place}$ {command}\n{said}\n{}", self.fleet.host_log());
        said
    }

    /// Runs the README's next command: whether it succeeds, and what it puts out.
    fn attempt(&mut self, place: &str, command: &str) -> (bool, String) {
        let words = self.story.words(place, command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if place == "host" {
            return self.fleet.host(&words);
        }
        let (status, said) = self.fleet.ask_agent(place, &words);
        (status == Some(0), said)
    }

    /// Begins the README's next command, which does not end by itself.
    fn begin(&mut self, place: &str, command: &str) {
        let _ = self.story.words(place, command);
        if place == "host" {
            self.host = Some(self.fleet.serve_on());
        } else {
            self.boards.push(self.fleet.agent(place));
        }
    }

    /// Waits until a log says so, so many times.
    fn until(&self, log: &str, said: &str, times: usize) {
        let began = Instant::now();
        while self.fleet.log(log).matches(said).count() < times {
            assert!(began.elapsed() < PATIENCE, "{log} has not said {said:?}:\n{}", self.fleet.log(log));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The models that a board keeps, once it answers by this one.
    fn answering(&self, board: &str, version: &str) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let (status, said) = self.fleet.ask_agent(board, &["model", "list", "--format", "json"]);
            assert_eq!(status, Some(0), "{said}");
            let listed: Value = serde_json::from_str(&said).expect("JSON");
            let models = listed["models"].as_array().expect("a list").clone();
            if models.iter().any(|model| model["version"] == version && model["active"] == true) {
                return models;
            }
            assert!(began.elapsed() < PATIENCE, "{board} does not answer by {version}: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Writes pictures of a digit, those from `from` on, to a folder of its name.
fn draw(all: &ImageSet, digit: u16, from: usize, folder: &Path) {
    let folder = folder.join(NAMES[usize::from(digit)]);
    fs::create_dir_all(&folder).expect("made");
    let of_digit = (0..all.len()).filter(|&index| all.label(index) == digit);
    for index in of_digit.skip(from).take(PICTURES) {
        fs::write(folder.join(format!("{index}.png")), to_png(all.image(index)).expect("a picture")).expect("written");
    }
}

/// The version of each board's model, from the events of a job that came to its end.
fn models(told: &str) -> Vec<(String, String)> {
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(events.last().map(|event| &event["state"]), Some(&Value::from("finished")), "{told}");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let models = events.iter().filter(|event| event["event"] == "model");
    models.map(|event| (text(&event["device"]), text(&event["version"]))).collect()
}

#[test]
fn pictures_come_in_and_answers_come_out_as_the_readme_tells() {
    let mut stage = Stage::new(programs_or_skip!());
    let all =
        digits::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits/digits.csv.gz")).expect("digits");

    stage.run("host", "twin-host classes import names.txt");
    stage.run("host", "twin-host enroll kitchen --out kitchen");
    stage.run("host", "twin-host enroll porch --out porch");
    for (board, from) in [("kitchen", 0), ("porch", PICTURES)] {
        stage.fleet.configure_board(board, board, "[dataset]\npath = \"pictures\"\nformat = \"folder\"\n");
        let folder = PathBuf::from(stage.fleet.path(board));
        for digit in [0, 1] {
            draw(&all, digit, from, &folder.join("shots"));
        }
    }
    let look = PathBuf::from(stage.fleet.path("kitchen/look"));
    fs::create_dir_all(&look).expect("made");
    for digit in [0u16, 1, 2] {
        let last = (0..all.len()).rfind(|&index| all.label(index) == digit).expect("a digit");
        fs::write(look.join(format!("{digit}.png")), to_png(all.image(last)).expect("a picture")).expect("written");
    }

    stage.begin("host", "twin-host serve");
    for board in ["kitchen", "porch"] {
        assert!(stage.run(board, "twin-agent data add shots").starts_with("24 added"));
        stage.begin(board, "twin-agent run");
    }
    for board in ["kitchen", "porch"] {
        stage.until(&format!("{board}/agent.log"), "samples=24", 1);
    }

    // Each event is an object a line; both boards have a model in the end.
    let told = stage.run("host", "twin-host job start job.toml --watch --format json");
    let first = models(&told);
    assert_eq!(first.iter().map(|(board, _)| board.as_str()).collect::<Vec<_>>(), ["kitchen", "porch"]);
    assert!(told.contains("\"site\":\"local\""), "no epoch was trained on a board: {told}");
    let first = first[0].1.clone();
    assert!(stage.run("host", "twin-host promote kitchen").contains(&first[..12]));
    stage.answering("kitchen", &first);
    let answers = stage.run("kitchen", "twin-agent predict look");
    assert_eq!(answers.lines().count(), 3, "{answers}");
    assert!(!answers.contains("two"), "{answers}");

    // A class more: one board has pictures of it, both learn it.
    stage.run("host", "twin-host classes add two --no-job");
    draw(&all, 2, 0, &PathBuf::from(stage.fleet.path("porch/more")));
    // The boards hear of it, and hold their pictures against the longer list.
    for board in ["kitchen", "porch"] {
        stage.until(&format!("{board}/agent.log"), "samples=24", 2);
    }
    assert!(stage.run("porch", "twin-agent data add more").starts_with("12 added"));
    stage.until("porch/agent.log", "samples=36", 1);
    let second = models(&stage.run("host", "twin-host job start job.toml --watch --format json"));
    let second = second[0].1.clone();
    assert_ne!(first, second);
    let (_, status) = stage.fleet.host(&["job", "status", "--format", "json"]);
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((&status["parent"], &status["classes"]), (&1.into(), &NAMES.as_slice().into()), "{status}");
    // Until it is promoted, the board goes on as it did.
    stage.answering("kitchen", &first);
    assert!(stage.run("host", "twin-host promote kitchen").contains(&second[..12]));
    let kept = stage.answering("kitchen", &second);
    assert_eq!(kept.iter().map(|model| model["classes"].as_array().map_or(0, Vec::len)).collect::<Vec<_>>(), [2, 3]);
    let answers = stage.run("kitchen", "twin-agent predict look");
    assert!(answers.lines().count() == 3 && answers.contains("two"), "{answers}");

    // And back, to the very model of before.
    assert!(stage.run("host", "twin-host rollback kitchen").contains(&first[..12]));
    stage.answering("kitchen", &first);
    assert!(!stage.run("kitchen", "twin-agent predict look").contains("two"));
    stage.story.end();
}
