//! The coordinator's tasks in the trainers' words, and what the trainers say in the coordinator's.

use std::path::{Path, PathBuf};

use twin_core::coordinator::{Input, Task, TaskEvent};
use twin_core::twin::DatasetCounts;
use twin_shared::id::{BlobHash, DeviceId, RoundId};
use twin_shared::pipe::{
    CompressPlan, CountJob, EpochJob, EvaluateJob, InitStudentJob, Job as TrainerJob, LabelSource, LabelsJob, Outcome,
    Part, TeacherJob,
};
use twin_shared::plan::{EpochPlan, LabelKind, Method};
use twin_shared::wire::Sparing;

use super::JobRun;
use super::report::JobFailure;
use crate::calibration::Probe;
use crate::store::StoreError;
use crate::train::{Ask, Told};

/// Work for a trainer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::serve) enum Work {
    Task(Task),
    Probe(Probe),
    /// The score of a device's finished student.
    Model(DeviceId),
}

impl From<Probe> for Work {
    fn from(probe: Probe) -> Self {
        Self::Probe(probe)
    }
}

/// Said where a file is not what the trainer said that it is.
const UNLIKE: &str = "the file on disk is not the one that the trainer named";

/// The flow of the teacher's own work.
const TEACHER_FLOW: &str = "teacher";

impl JobRun<'_> {
    pub(super) fn start(&self, task: Task) -> Result<(), JobFailure> {
        let (asks, flow) = match &task {
            Task::Count { .. } | Task::Teacher { .. } | Task::Init { .. } => (&self.teacher_asks, TEACHER_FLOW),
            Task::Labels { device, .. } | Task::Epoch { device, .. } | Task::Score { device, .. } => {
                (&self.student_asks, device.as_str())
            }
        };
        let job = self.job_of(&task)?;
        let ask = Ask::Run { flow: flow.to_owned(), key: Work::Task(task), job: Box::new(job) };
        let _ = asks.send(ask);
        Ok(())
    }

    fn blob_path(&self, device: &DeviceId, blob: &BlobHash) -> Result<String, JobFailure> {
        Ok(text(&self.host.store.blobs(device)?.path(blob)))
    }

    /// Where a task of this run writes. A trainer that outlives a killed host, or a pause, by a step writes elsewhere.
    fn work(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn state_path(&self, device: &DeviceId) -> PathBuf {
        self.work(&format!("{device}.state"))
    }

    fn momentum_work(&self, device: &DeviceId) -> PathBuf {
        self.work(&format!("{device}.momentum"))
    }

    /// The momentum after an epoch of the host's, kept until the epoch after the next.
    fn momentum_path(&self, device: &DeviceId, round: u32) -> PathBuf {
        self.host.store.twin_directory(device).join(format!("job{}.{round:06}.momentum", self.id))
    }

    /// Removes the momentum that a confirmed epoch started from.
    pub(super) fn clear_momentum(&self, device: &DeviceId, round: RoundId) -> Result<(), JobFailure> {
        for earlier in round.0.saturating_sub(1)..round.0 {
            remove(&self.momentum_path(device, earlier))?;
        }
        Ok(())
    }

    fn plan(&self, round: u32) -> EpochPlan {
        let job = self.job;
        EpochPlan { seed: job.seed, epoch: round, batch: job.student.batch, augmentation: job.augmentation }
    }

    /// A task in the trainer's words.
    fn job_of(&self, task: &Task) -> Result<TrainerJob, JobFailure> {
        let job = self.job;
        let teacher = text(&self.host.store.teacher(self.id));
        Ok(match task {
            Task::Count { device, dataset } => {
                TrainerJob::Count(CountJob { dataset: self.blob_path(device, dataset)? })
            }
            Task::Teacher { twins } => {
                let twins = twins.iter().map(|(device, dataset)| self.blob_path(device, dataset));
                TrainerJob::Teacher(TeacherJob {
                    architecture: job.teacher.architecture,
                    classes: job.classes,
                    twins: twins.collect::<Result<_, _>>()?,
                    recipe: job.teacher.recipe,
                    batch: job.teacher.batch,
                    augmentation: job.augmentation,
                    seed: job.seed,
                    warm_start: self.warm_start.as_deref().map(text),
                    checkpoint: Some(text(&self.checkpoint()?)),
                    out: text(&self.work("teacher")),
                })
            }
            Task::Init { device, architecture } => TrainerJob::InitStudent(InitStudentJob {
                architecture: *architecture,
                method: job.student.method,
                teacher,
                classes: job.classes,
                seed: job.seed,
                out: text(&self.state_path(device)),
            }),
            Task::Labels { device, round } => {
                let out = self.work(&format!("{device}.labels"));
                std::fs::create_dir_all(&out).map_err(|error| StoreError::Files { path: out.clone(), error })?;
                TrainerJob::Labels(LabelsJob {
                    teacher,
                    dataset: self.dataset_of(device)?,
                    plan: self.plan(round.0),
                    kind: job.student.labels,
                    precision: job.student.precision,
                    batches_per_block: job.student.batches_per_block,
                    out: text(&out),
                })
            }
            Task::Score { device, state, by, .. } => TrainerJob::Evaluate(EvaluateJob {
                weights: self.blob_path(device, state)?,
                teacher: match job.student.method {
                    Method::SimKd => Some(teacher),
                    Method::Kd { .. } | Method::CrossEntropy => None,
                },
                dataset: self.dataset_of(by)?,
                part: Part::Held,
                devices: Vec::new(),
            }),
            Task::Epoch { device, round, architecture, base, keeps_momentum, sparing } => {
                let before = round.0.checked_sub(1).filter(|_| *keeps_momentum);
                let momentum = before.map(|before| self.momentum_path(device, before));
                // A copy of the data directory that was put back may lack it: the epoch then starts without.
                let momentum = momentum.filter(|path| path.is_file()).map(|path| text(&path));
                // On the host the map costs nothing, so the better label is taken.
                let kind = match job.student.method {
                    Method::SimKd => LabelKind::Map,
                    Method::Kd { .. } | Method::CrossEntropy => LabelKind::Logits,
                };
                TrainerJob::Epoch(EpochJob {
                    architecture: *architecture,
                    method: job.student.method,
                    state: self.blob_path(device, base)?,
                    momentum,
                    dataset: self.dataset_of(device)?,
                    plan: self.plan(round.0),
                    recipe: job.student.recipe,
                    labels: LabelSource::Teacher { weights: teacher, kind },
                    state_out: text(&self.state_path(device)),
                    momentum_out: Some(text(&self.momentum_work(device))),
                    checkpoint: None,
                    compression: sparing.map(|sparing| self.compress_plan(device, &sparing)).transpose()?,
                })
            }
        })
    }

    /// How the state of an offloaded epoch is made fit to travel.
    fn compress_plan(&self, device: &DeviceId, sparing: &Sparing) -> Result<CompressPlan, JobFailure> {
        let residual = self.residual_path(device, &sparing.common);
        Ok(CompressPlan {
            compression: sparing.compression,
            base: self.blob_path(device, &sparing.common)?,
            residual: residual.is_file().then(|| text(&residual)),
            residual_out: text(&self.work(&format!("{device}.residual"))),
            delta_out: text(&self.work(&format!("{device}.delta"))),
        })
    }

    /// What the rounding that made this state left out, where the host did that.
    fn residual_path(&self, device: &DeviceId, state: &BlobHash) -> PathBuf {
        self.host.store.twin_directory(device).join(format!("job{}.residual-{state}", self.id))
    }

    /// Takes in the file that carries a state, and keeps what it left out for the next. What the common state left out
    /// stays as well, until the epoch is written down: a host that is killed before trains it again from there.
    fn adopt_delta(&mut self, device: &DeviceId, sparing: &Sparing, state: BlobHash) -> Result<(), JobFailure> {
        let (delta, _) = self.host.store.blobs(device)?.adopt(&self.work(&format!("{device}.delta")))?;
        self.bring(device, delta);
        self.deltas.insert(device.clone(), (state, delta));
        let (from, to) = (self.work(&format!("{device}.residual")), self.residual_path(device, &state));
        let files = |path: &Path| {
            let path = path.to_owned();
            move |error| StoreError::Files { path, error }
        };
        std::fs::rename(&from, &to).map_err(files(&from))?;
        let (folder, prefix) = (self.host.store.twin_directory(device), format!("job{}.residual-", self.id));
        let needed = [to, self.residual_path(device, &sparing.common)];
        for entry in std::fs::read_dir(&folder).map_err(files(&folder))? {
            let path = entry.map_err(files(&folder))?.path();
            let residual =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix));
            if residual && !needed.contains(&path) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    pub(in crate::serve) fn dataset_of(&self, device: &DeviceId) -> Result<String, JobFailure> {
        let member = self.coordinator.members().get(device);
        let dataset =
            member.and_then(|member| member.twin.dataset()).ok_or_else(|| JobFailure::Unknown(device.clone()));
        self.blob_path(device, &dataset?.blob)
    }

    /// What a trainer told, in the coordinator's words. Files that it wrote are taken into the twin's blobs first.
    pub(super) fn on_told(&mut self, told: Option<(Work, Told)>) -> Result<Option<Input>, JobFailure> {
        let Some((Work::Task(task), told)) = told else { return Ok(None) };
        let event = match told {
            Told::Progress { step, steps } => TaskEvent::Progress { step, steps },
            Told::Block(block) => match &task {
                Task::Labels { device, .. } => {
                    let (blob, _) = self.host.store.blobs(device)?.adopt(Path::new(&block.path))?;
                    self.bring(device, blob);
                    match blob == block.hash {
                        true => TaskEvent::Block { block: block.index, blob },
                        false => TaskEvent::Failed(UNLIKE.into()),
                    }
                }
                Task::Count { .. }
                | Task::Teacher { .. }
                | Task::Init { .. }
                | Task::Epoch { .. }
                | Task::Score { .. } => TaskEvent::Failed("it made labels".into()),
            },
            Told::Done(outcome) => match (&task, outcome.clone()) {
                (Task::Teacher { .. }, Outcome::Weights { hash, loss }) => {
                    match self.host.store.place_teacher(self.id, &self.work("teacher"))? {
                        found if found == hash => TaskEvent::Done(Outcome::Weights { hash, loss }),
                        _ => TaskEvent::Failed(UNLIKE.into()),
                    }
                }
                (Task::Init { device, .. }, Outcome::Student { hash, .. }) if self.adopt(device)? != hash => {
                    TaskEvent::Failed(UNLIKE.into())
                }
                (Task::Epoch { device, round, sparing, .. }, Outcome::Student { hash, .. }) => {
                    // The momentum first: an epoch that is written down has its momentum.
                    let (from, to) = (self.momentum_work(device), self.momentum_path(device, round.0));
                    std::fs::rename(&from, &to).map_err(|error| StoreError::Files { path: from, error })?;
                    if let Some(sparing) = sparing {
                        self.adopt_delta(device, sparing, hash)?;
                    }
                    match self.adopt(device)? == hash {
                        true => TaskEvent::Done(outcome),
                        false => TaskEvent::Failed(UNLIKE.into()),
                    }
                }
                (Task::Count { device, .. }, Outcome::Counts { train, held, labels }) => {
                    let counts = DatasetCounts { train, held, labels };
                    self.host.store.count_dataset(device, &counts)?;
                    let DatasetCounts { train, held, labels } = counts;
                    TaskEvent::Done(Outcome::Counts { train, held, labels })
                }
                (_, outcome) => TaskEvent::Done(outcome),
            },
            Told::Failed(message) => TaskEvent::Failed(message),
        };
        Ok(Some(Input::Task(task, event)))
    }

    /// The teacher's checkpoint for this run: an earlier run's, where there is one, under a new name.
    fn checkpoint(&self) -> Result<PathBuf, JobFailure> {
        let directory = self.host.store.job_directory(self.id);
        let files = |error| StoreError::Files { path: directory.clone(), error };
        let path = directory.join(format!("teacher.{:08}.{:04}.checkpoint", self.host.life, self.host.runs));
        let mut earlier = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(files)? {
            let found = entry.map_err(files)?.path();
            if found != path && found.extension().is_some_and(|ending| ending == "checkpoint") {
                earlier.push(found);
            }
        }
        earlier.sort();
        if let Some(latest) = earlier.pop()
            && !path.exists()
        {
            std::fs::rename(latest, &path).map_err(files)?;
        }
        earlier.iter().try_for_each(|file| remove(file))?;
        Ok(path)
    }

    fn adopt(&mut self, device: &DeviceId) -> Result<BlobHash, JobFailure> {
        let (state, _) = self.host.store.blobs(device)?.adopt(&self.state_path(device))?;
        self.bring(device, state);
        Ok(state)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> Result<(), JobFailure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Files { path: path.to_owned(), error }.into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
