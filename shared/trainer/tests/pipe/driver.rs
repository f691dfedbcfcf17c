//! Drives a trainer over its pipes, as a resident program does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use twin_data::ImageSet;
use twin_data::digits::{BoardSplit, split};
use twin_shared::pipe::{Event, Job, LabelBlock, Outcome, Request, Ticket, read_frame, write_frame};
use twin_shared::plan::{Augmentation, EpochPlan, Recipe};

pub(crate) struct Trainer {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    pub(crate) ready: Event,
    next: u32,
}

/// What a job brought up to its end.
pub(crate) struct Ended {
    pub(crate) losses: Vec<f32>,
    pub(crate) blocks: Vec<LabelBlock>,
    pub(crate) result: Result<Outcome, String>,
}

impl Trainer {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_twin-trainer"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let ready = read_frame(&mut output).unwrap();
        Self { input: child.stdin.take(), child, output, ready, next: 0 }
    }

    pub(crate) fn send(&mut self, request: &Request) {
        write_frame(self.input.as_mut().unwrap(), request).unwrap();
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Event {
        read_frame(&mut self.output).unwrap()
    }

    pub(crate) fn submit(&mut self, job: Job) -> (Ticket, Event) {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.send(&Request::Submit { ticket, job: Box::new(job) });
        (ticket, self.receive())
    }

    /// Submits, grants everything, and collects what comes.
    pub(crate) fn run(&mut self, job: Job) -> Ended {
        let mut ended = Ended { losses: vec![], blocks: vec![], result: Err(String::new()) };
        let (ticket, answer) = self.submit(job);
        let granted = match answer {
            Event::Accepted { steps, .. } => steps,
            Event::Failed { message, .. } => {
                ended.result = Err(message);
                return ended;
            }
            other @ (Event::Ready { .. }
            | Event::Stepped { .. }
            | Event::Block { .. }
            | Event::Done { .. }
            | Event::Saved { .. }) => panic!("{other:?}"),
        };
        self.send(&Request::Grant { ticket, steps: granted });
        let mut stepped = 0;
        loop {
            match self.receive() {
                Event::Stepped { step, loss, seconds, .. } => {
                    stepped += 1;
                    assert_eq!(step, stepped);
                    assert!(seconds >= 0.0);
                    ended.losses.extend(loss);
                }
                Event::Block { block, .. } => ended.blocks.push(block),
                Event::Done { outcome, .. } => {
                    assert_eq!(stepped, granted, "as many steps as were announced");
                    ended.result = Ok(outcome);
                    return ended;
                }
                Event::Failed { message, .. } => {
                    ended.result = Err(message);
                    return ended;
                }
                other @ (Event::Ready { .. } | Event::Accepted { .. } | Event::Saved { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// Closes its input and waits; whether it ended well.
    pub(crate) fn close(mut self) -> bool {
        drop(self.input.take());
        self.child.wait().unwrap().success()
    }
}

/// Two boards of a few digits each, on disk.
pub(crate) struct Boards {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) split: BoardSplit,
}

impl Boards {
    pub(crate) fn new() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/digits/digits.csv.gz");
        let all = twin_data::digits::read(&file).unwrap();
        let split = split(&all, &[vec![0, 1, 2, 3, 4], vec![4, 5, 6, 7, 8, 9]], 9, 3).unwrap();
        let boards = Self { directory: tempfile::tempdir().unwrap(), split };
        for (number, set) in boards.split.boards.iter().enumerate() {
            set.write(&boards.path(&format!("board{number}"))).unwrap();
        }
        let few: Vec<u32> = (0..120).collect();
        boards.split.test.select(&few).write(&boards.path("test")).unwrap();
        boards
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    pub(crate) fn counts(&self) -> Vec<Vec<u32>> {
        self.split.boards.iter().map(ImageSet::label_counts).collect()
    }
}

pub(crate) fn plan(epoch: u32) -> EpochPlan {
    EpochPlan { seed: 11, epoch, batch: 8, augmentation: Augmentation { crop_padding: 2, flip: false } }
}

pub(crate) fn recipe() -> Recipe {
    Recipe { learning_rate: 0.02, ..Recipe::student(2) }
}
