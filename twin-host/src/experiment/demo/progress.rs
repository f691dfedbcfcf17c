//! The demo's progress on a terminal, with the time that is left; a line now and then where there is no terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use twin_core::coordinator::{Note, Task};

use crate::config::Job;

/// Between two lines where there is no terminal.
const QUIET: Duration = Duration::from_secs(15);

/// How far the demo is.
pub(crate) struct Progress {
    bar: ProgressBar,
    epochs: u64,
    terminal: bool,
    said: Instant,
}

impl Progress {
    pub(crate) fn new(job: &Job, boards: usize) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let epochs = u64::from(job.student.recipe.epochs) * boards as u64;
        let terminal = std::io::stderr().is_terminal();
        let mut progress = Self { bar, epochs, terminal, said: Instant::now() };
        progress.stage("copying datasets and calibrating", 0);
        progress
    }

    fn stage(&mut self, name: &str, length: u64) {
        let template = if length == 0 {
            "{msg} {spinner} {elapsed}"
        } else {
            "{msg} [{bar:30}] {pos}/{len} {elapsed} (left: {eta})"
        };
        self.bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        self.bar.reset();
        self.bar.set_length(length);
        self.bar.set_message(name.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(250));
        self.line(true);
    }

    /// Takes what the coordinator tells.
    pub(crate) fn note(&mut self, note: &Note) {
        match note {
            Note::Progress { task: Task::Teacher { .. }, step, steps } => {
                if self.bar.length() != Some(u64::from(*steps)) {
                    self.stage("teacher, by FedSGD over the twins", u64::from(*steps));
                }
                self.bar.set_position(u64::from(*step));
            }
            Note::Teacher { .. } => self.stage("epochs of students, equal on both sides", self.epochs),
            Note::Round(_) | Note::Kept { .. } => self.bar.inc(1),
            Note::Refused(device, why) => self.say(&format!("{device}: {why}")),
            Note::Offloaded { device, round, why } => {
                self.say(&format!("{device}: the host trains epoch {round}: {why}"));
            }
            Note::Left(device, why) => self.say(&format!("{device} takes no further part: {why}")),
            Note::Offline(device) => self.say(&format!("{device} is gone")),
            Note::TakenLate { device, round } => {
                self.say(&format!("{device}: epoch {round} came late and before the host had it: it is taken"));
            }
            Note::Scored { .. } | Note::Unknown(_) | Note::Online(_) | Note::Dataset { .. } | Note::Progress { .. } => {
            }
        }
        self.line(false);
    }

    /// The comparison begins.
    pub(crate) fn comparing(&mut self, epochs: u64, rounds: u64) {
        self.stage("baselines and scores", epochs + rounds);
    }

    /// One more of the comparison.
    pub(crate) fn compared(&mut self) {
        self.bar.inc(1);
        self.line(false);
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    fn line(&mut self, at_once: bool) {
        if self.terminal || !(at_once || self.said.elapsed() >= QUIET) {
            return;
        }
        self.said = Instant::now();
        let (message, position) = (self.bar.message(), self.bar.position());
        let _ = match self.bar.length() {
            Some(length) if length > 0 => writeln!(std::io::stderr(), "{message}: {position} of {length}"),
            _ => writeln!(std::io::stderr(), "{message}"),
        };
    }
}
