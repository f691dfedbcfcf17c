//! The job's questions to the scheduler, its answers, and their files: what was asked as a scenario that
//! `twin-host schedule` replays, what was answered as a record.
//!
//! ```text
//! DATA_DIR/jobs/JOB/decisions/000001.toml   the scenario
//! DATA_DIR/jobs/JOB/decisions/000001.json   the decision, with its terms and the source of every figure
//! DATA_DIR/jobs/JOB/decisions/table.json    the learned table, for a policy that has one
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;
use twin_core::scheduler::RawScenario;

use super::JobRun;
use super::report::JobFailure;
use crate::decide::{Answer, DecideError, Prepared, Question, pose};
use crate::store::StoreError;

/// Decisions whose files are kept: the first, and so many of the latest.
const KEPT: u32 = 500;

/// What comes back from the scheduler; nothing where nobody trains.
pub(super) type Answered = Result<Option<Answer>, DecideError>;

/// A job's decisions.
pub(super) struct Decisions {
    directory: PathBuf,
    /// The number of the latest.
    latest: u32,
    /// The policy, once it was prepared; shared with the thread that decides.
    prepared: Arc<std::sync::Mutex<Option<Prepared>>>,
    answers: mpsc::Sender<Answered>,
}

impl Decisions {
    /// The decisions of the job with this directory; goes on after those that are there.
    pub(super) fn open(job: &Path, answers: mpsc::Sender<Answered>) -> Result<Self, StoreError> {
        let directory = job.join("decisions");
        let failed = |error| StoreError::Files { path: directory.clone(), error };
        fs::create_dir_all(&directory).map_err(failed)?;
        let numbers = fs::read_dir(&directory).map_err(failed)?.flatten();
        let numbers = numbers.filter_map(|entry| entry.path().file_stem()?.to_str()?.parse::<u32>().ok());
        Ok(Self { latest: numbers.max().unwrap_or(0), directory, prepared: Arc::default(), answers })
    }

    fn path(&self, number: u32, ending: &str) -> PathBuf {
        self.directory.join(format!("{number:06}.{ending}"))
    }

    /// Writes the question down and asks it, on a thread of its own: a table takes a second or two to train.
    fn ask(&mut self, question: Question, scheduler: crate::config::SchedulerConfig) -> Result<(), StoreError> {
        self.latest += 1;
        let text = toml::to_string(&RawScenario::from(question.scenario())).expect("numbers and names make a file");
        write(&self.path(self.latest, "toml"), text.as_bytes())?;
        if self.latest > KEPT + 1 {
            for ending in ["toml", "json"] {
                // Gone already, or kept for once: neither matters.
                let _ = fs::remove_file(self.path(self.latest - KEPT, ending));
            }
        }
        let (prepared, answers) = (Arc::clone(&self.prepared), self.answers.clone());
        let table = self.directory.join("table.json");
        tokio::task::spawn_blocking(move || {
            let mut prepared = prepared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let answer = answer(&question, &mut prepared, &scheduler, &table);
            // Nobody listens only when the job is over.
            let _ = answers.blocking_send(answer);
        });
        Ok(())
    }
}

/// Answers a question by the policy at hand, or by one prepared for it where that one does not know such questions.
fn answer(
    question: &Question,
    prepared: &mut Option<Prepared>,
    scheduler: &crate::config::SchedulerConfig,
    table: &Path,
) -> Answered {
    let policy = match prepared.take().filter(|policy| question.suits(policy)) {
        Some(policy) => policy,
        None => {
            let policy = question.prepare(scheduler)?;
            if let Some(learned) = policy.table() {
                let text = serde_json::to_vec(learned).expect("numbers serialise");
                if let Err(error) = write(table, &text) {
                    tracing::warn!(%error, "the policy's table is not kept: its decisions cannot be replayed");
                }
            }
            policy
        }
    };
    let answer = question.decide(&policy, scheduler);
    *prepared = Some(policy);
    answer.map(Some)
}

impl JobRun<'_> {
    /// Asks the scheduler on the state of now.
    pub(super) fn decide(&mut self) -> Result<(), JobFailure> {
        let now = self.host.started.elapsed();
        let scheduler = self.host.config.scheduler.clone();
        match pose(&self.coordinator, &self.calibration, &scheduler, self.job, now)? {
            Some(question) => self.decisions.ask(question, scheduler)?,
            // Nobody trains, so nothing is decided; whoever comes is asked for then.
            None => drop(self.decisions.answers.try_send(Ok(None))),
        }
        Ok(())
    }

    /// Keeps a decision: as a file, and each device's part where `twin-host show` finds it.
    pub(super) fn keep_answer(&self, answer: &Answer) -> Result<(), JobFailure> {
        let number = self.decisions.latest;
        let text = serde_json::to_vec_pretty(&answer.record).expect("numbers and names serialise");
        write(&self.decisions.path(number, "json"), &text)?;
        self.host.store.keep_decision(self.id, number, &answer.record)?;
        if let Some(recorder) = &self.host.recorder {
            let path = self.decisions.path(number, "toml");
            let scenario = fs::read_to_string(&path).map_err(|error| StoreError::Files { path, error })?;
            recorder.decision(self.id, number, &scenario, &answer.record);
        }
        for device in &answer.record.devices {
            tracing::info!(job = %self.id, decision = number, device = device.id, "{}", device.why);
        }
        Ok(())
    }
}

/// Writes a file so that it is there whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let failed = |error| StoreError::Files { path: path.to_owned(), error };
    let partial = path.with_extension("part");
    let mut file = File::create(&partial).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&partial, path).map_err(failed)?;
    let directory = path.parent().expect("a file lies in a directory");
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
