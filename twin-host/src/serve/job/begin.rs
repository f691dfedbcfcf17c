//! How a job's run begins, or goes on: its trainers, its calibration, and what is written down of it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use tokio::sync::{mpsc, watch};
use twin_core::coordinator::{Coordinator, JobProgress, JobSpec, Note};
use twin_shared::id::JobId;
use twin_shared::model::Architecture;

use super::decisions::Decisions;
use super::tasks::Work;
use super::{Ending, JobFailure, JobReport, JobRun, Voices};
use crate::calibration::Calibration;
use crate::config::{Config, Job};
use crate::link::FromBoard;
use crate::serve::Host;
use crate::store::{JobRecord, StoreError};
use crate::train::Trainer;

/// What boards say while trainers start is kept for the run, up to so many; beyond, their links wait.
const EARLIER: usize = 4096;

/// What a run is told, beside the job.
pub(crate) type Tell<'a> = &'a mut (dyn FnMut(&Note) + Send);

impl Host {
    /// Takes a job in and runs it to its end. `note` hears all that is worth telling; `stop` ends it early.
    pub(crate) async fn run_job(
        &mut self,
        job: &Job,
        text: &str,
        note: Tell<'_>,
        stop: watch::Receiver<bool>,
    ) -> Result<JobReport, JobFailure> {
        self.require_known(job)?;
        let id = self.queue(job, text)?;
        let record = self.store.job(id)?;
        match self.run_record(&record, job, note, stop).await? {
            (Ending::Finished, report) => Ok(report),
            (Ending::Paused | Ending::Stopped, _) => Err(JobFailure::Stopped),
        }
    }

    /// Runs a job of the store from where it is to its end.
    pub(in crate::serve) async fn run_record(
        &mut self,
        record: &JobRecord,
        job: &Job,
        note: Tell<'_>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(Ending, JobReport), JobFailure> {
        let prepared = prepare(self.config.clone(), self.store.root().join("calibration.json"), job.clone());
        let Some((prepared, earlier)) = self.meanwhile(prepared, &mut stop).await? else {
            return Err(JobFailure::Stopped);
        };
        let Prepared { teacher, students, calibration } = prepared;
        let kept = self.store.members(record.job)?;
        let mut members = BTreeMap::new();
        for device in self.participants(job)?.iter().chain(kept.keys()) {
            members.insert(device.clone(), (self.store.twin(device)?, kept.get(device).cloned()));
        }
        let spec = spec_of(record.job, job, &self.config);
        let progress = self.trusted(record);
        let (coordinator, first) = Coordinator::resume(spec, progress.clone(), members, self.started.elapsed());
        self.runs += 1;
        let work = self.work.join(self.runs.to_string());
        std::fs::create_dir_all(&work).map_err(|error| StoreError::Files { path: work.clone(), error })?;
        let (decided, answers) = mpsc::channel(2);
        let decisions = Decisions::open(&self.store.job_directory(record.job), decided)?;
        let warm_start = record.parent.map(|parent| self.store.teacher(parent));
        let own = kept.iter().map(|(device, progress)| (device.clone(), progress.blobs())).collect();
        let mut run = JobRun {
            host: self,
            job,
            classes: record.classes.clone(),
            warm_start,
            id: record.job,
            coordinator,
            kept: (Some(progress), kept),
            work,
            deltas: BTreeMap::new(),
            own,
            told: BTreeMap::new(),
            calibration,
            rounds: Vec::new(),
            teacher_asks: teacher.asks,
            student_asks: students.asks,
            decisions,
            objective: record.objective,
        };
        let mut voices = Voices { teacher: teacher.told, students: students.told, decisions: answers, earlier };
        let ending = run.run(&mut voices, first, note, &mut stop).await?;
        if ending == Ending::Finished {
            run.make_models(&mut voices).await?;
        }
        Ok((ending, run.report()?))
    }

    /// How far a job is, as far as its files bear it out: a teacher that a power cut took is trained on from its
    /// checkpoint.
    fn trusted(&self, record: &JobRecord) -> JobProgress {
        if let JobProgress::Distilling { teacher, twins } = &record.progress {
            let there = std::fs::File::open(self.store.teacher(record.job)).is_ok_and(|mut file| {
                let mut hasher = blake3::Hasher::new();
                std::io::copy(&mut file, &mut hasher).is_ok() && hasher.finalize().as_bytes() == &teacher.0
            });
            if !there {
                return JobProgress::Teaching(twins.clone());
            }
        }
        record.progress.clone()
    }

    /// Waits for something that takes its time, while boards are heard. `None` when the host is to stop.
    async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = Result<T, JobFailure>>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Option<(T, VecDeque<FromBoard>)>, JobFailure> {
        let mut earlier = VecDeque::new();
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(Some((done?, earlier))),
                from = self.from_boards.recv(), if earlier.len() < EARLIER => match from {
                    Some(from) => earlier.push_back(from),
                    None => return Ok(None),
                },
                changed = stop.changed() => if changed.is_err() || *stop.borrow() {
                    return Ok(None);
                },
            }
        }
    }
}

struct Prepared {
    teacher: Trainer<Work>,
    students: Trainer<Work>,
    calibration: Calibration,
}

async fn prepare(config: Config, calibration: PathBuf, job: Job) -> Result<Prepared, JobFailure> {
    let mut students = Trainer::start(&config.trainer).await?;
    let mut teacher_config = config.trainer.clone();
    teacher_config.threads = config.teacher_threads;
    let teacher = Trainer::start(&teacher_config).await?;
    tracing::info!(libtorch = %students.info.libtorch, device = %students.info.device, "the trainer is ready");
    let models: Vec<Architecture> = config.scheduler.models.iter().map(|model| model.0).collect();
    let calibration = Calibration::load_or_measure(
        &calibration,
        &mut students,
        &models,
        job.teacher.architecture,
        job.classes,
        job.student.batch,
        |done, all| tracing::info!("calibrating networks: {done} of {all}"),
    )
    .await?;
    Ok(Prepared { teacher, students, calibration })
}

fn spec_of(id: JobId, job: &Job, config: &Config) -> JobSpec {
    JobSpec {
        job: id,
        seed: job.seed,
        method: job.student.method,
        labels: job.student.labels,
        recipe: job.student.recipe,
        batch: job.student.batch,
        batches_per_block: job.student.batches_per_block,
        compression: job.student.compression,
        sync_every: job.student.sync_every,
        metered: config.metered.keys().cloned().collect(),
        augmentation: job.augmentation,
        patience: job.patience,
        deadline_factor: job.deadline_factor,
        decide_every: config.scheduler.decide_every,
        score_every: job.student.score_every,
    }
}
