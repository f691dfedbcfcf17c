//! The coordinator's tasks in the trainers' words, and what the trainers say in the coordinator's.

use std::path::{Path, PathBuf};

use twin_core::coordinator::{Input, Task, TaskEvent};
use twin_core::twin::DatasetCounts;
use twin_shared::id::{BlobHash, DeviceId};
use twin_shared::pipe::{
    CountJob, EpochJob, InitStudentJob, Job as TrainerJob, LabelSource, LabelsJob, Outcome, TeacherJob,
};
use twin_shared::plan::{EpochPlan, LabelKind, Method};

use super::JobRun;
use super::report::JobFailure;
use crate::calibration::Probe;
use crate::store::StoreError;
use crate::train::{Ask, Told};

/// Work for a trainer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    Task(Task),
    Probe(Probe),
}

impl From<Probe> for Work {
    fn from(probe: Probe) -> Self {
        Self::Probe(probe)
    }
}

/// The flow of the teacher's own work.
const TEACHER_FLOW: &str = "teacher";

impl JobRun<'_> {
    pub(super) fn start(&self, task: Task) -> Result<(), JobFailure> {
        let (asks, flow) = match &task {
            Task::Count { .. } | Task::Teacher { .. } | Task::Init { .. } => (&self.teacher_asks, TEACHER_FLOW),
            Task::Labels { device, .. } | Task::Epoch { device, .. } => (&self.student_asks, device.as_str()),
        };
        let job = self.job_of(&task)?;
        let ask = Ask::Run { flow: flow.to_owned(), key: Work::Task(task), job: Box::new(job) };
        let _ = asks.send(ask);
        Ok(())
    }

    fn directory(&self) -> PathBuf {
        self.host.store.job_directory(self.id)
    }

    pub(super) fn teacher_path(&self) -> PathBuf {
        self.directory().join("teacher.safetensors")
    }

    fn blob_path(&self, device: &DeviceId, blob: &BlobHash) -> Result<String, JobFailure> {
        Ok(text(&self.host.store.blobs(device)?.path(blob)))
    }

    /// Where a task writes a device's student state, in the twin's own directory.
    fn state_path(&self, device: &DeviceId) -> PathBuf {
        self.host.store.twin_directory(device).join(format!("job{}.state", self.id))
    }

    fn momentum_path(&self, device: &DeviceId) -> PathBuf {
        self.host.store.twin_directory(device).join(format!("job{}.momentum", self.id))
    }

    fn plan(&self, round: u32) -> EpochPlan {
        let job = self.job;
        EpochPlan { seed: job.seed, epoch: round, batch: job.student.batch, augmentation: job.augmentation }
    }

    /// A task in the trainer's words.
    fn job_of(&self, task: &Task) -> Result<TrainerJob, JobFailure> {
        let job = self.job;
        let teacher = text(&self.teacher_path());
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
                    checkpoint: Some(text(&self.directory().join("teacher.checkpoint"))),
                    out: teacher,
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
                let out = self.host.store.twin_directory(device).join(format!("job{}.labels", self.id));
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
            Task::Epoch { device, round, architecture, base, keeps_momentum } => {
                let momentum = text(&self.momentum_path(device));
                // On the host the map costs nothing, so the better label is taken.
                let kind = match job.student.method {
                    Method::SimKd => LabelKind::Map,
                    Method::Kd { .. } | Method::CrossEntropy => LabelKind::Logits,
                };
                TrainerJob::Epoch(EpochJob {
                    architecture: *architecture,
                    method: job.student.method,
                    state: self.blob_path(device, base)?,
                    momentum: (*keeps_momentum).then(|| momentum.clone()),
                    dataset: self.dataset_of(device)?,
                    plan: self.plan(round.0),
                    recipe: job.student.recipe,
                    labels: LabelSource::Teacher { weights: teacher, kind },
                    state_out: text(&self.state_path(device)),
                    momentum_out: Some(momentum),
                })
            }
        })
    }

    fn dataset_of(&self, device: &DeviceId) -> Result<String, JobFailure> {
        let member = self.coordinator.members().get(device);
        let dataset =
            member.and_then(|member| member.twin.dataset()).ok_or_else(|| JobFailure::Unknown(device.clone()));
        self.blob_path(device, &dataset?.blob)
    }

    /// What a trainer told, in the coordinator's words. Files that it wrote are taken into the twin's blobs first.
    pub(super) fn on_told(&self, told: Option<(Work, Told)>) -> Result<Option<Input>, JobFailure> {
        let Some((Work::Task(task), told)) = told else { return Ok(None) };
        let event = match told {
            Told::Progress { step, steps } => TaskEvent::Progress { step, steps },
            Told::Block(block) => match &task {
                Task::Labels { device, .. } => {
                    let (blob, _) = self.host.store.blobs(device)?.adopt(Path::new(&block.path))?;
                    TaskEvent::Block { block: block.index, blob }
                }
                Task::Count { .. } | Task::Teacher { .. } | Task::Init { .. } | Task::Epoch { .. } => {
                    TaskEvent::Failed("it made labels".into())
                }
            },
            Told::Done(outcome) => match (&task, outcome) {
                (Task::Init { device, .. } | Task::Epoch { device, .. }, Outcome::Student { hash, .. })
                    if self.adopt(device)? != hash =>
                {
                    TaskEvent::Failed("the state on disk is not the one that the trainer named".into())
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

    fn adopt(&self, device: &DeviceId) -> Result<BlobHash, JobFailure> {
        Ok(self.host.store.blobs(device)?.adopt(&self.state_path(device))?.0)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
