//! Runs one job on a serving host: the shell around the coordinator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use twin_core::coordinator::{Coordinator, Fatal, Input, JobSpec, Note, Output, Phase, RoundRecord, Task, TaskEvent};
use twin_core::scheduler::policy::Policy;
use twin_core::twin::DatasetCounts;
use twin_data::blobs::BlobError;
use twin_shared::id::{BlobHash, DeviceId, JobId};
use twin_shared::model::Architecture;
use twin_shared::pipe::{
    CountJob, EpochJob, InitStudentJob, Job as TrainerJob, LabelSource, LabelsJob, Outcome, TeacherJob,
};
use twin_shared::plan::{EpochPlan, LabelKind, Method};
use twin_shared::wire::Birth;
use twin_shared::wire::telemetry::Telemetry;

use super::Host;
use crate::calibration::{Calibration, CalibrationError, Probe};
use crate::config::Job;
use crate::decide::{Answer, DecideError, Question, pose};
use crate::link::LinkOrder;
use crate::store::StoreError;
use crate::train::{Ask, Told, TrainError, Trainer};

/// What a job came to.
#[derive(Debug)]
pub struct JobReport {
    /// Its number.
    pub job: JobId,
    /// The teacher's weights.
    pub teacher: PathBuf,
    /// Every epoch that was done on both sides.
    pub rounds: Vec<RoundRecord>,
    /// Each device at the end.
    pub members: BTreeMap<DeviceId, MemberReport>,
    /// What this host takes for each network.
    pub calibration: Calibration,
    /// Eq. (6) summed over the devices, at the first decision.
    pub objective: f64,
}

/// A device at the end of a job.
#[derive(Debug, Clone)]
pub struct MemberReport {
    /// Its dataset's counts.
    pub counts: Option<DatasetCounts>,
    /// Its dataset on the host.
    pub dataset: Option<PathBuf>,
    /// Its last sample.
    pub telemetry: Option<Telemetry>,
    /// What it said of itself.
    pub birth: Option<Birth>,
    /// Its student at the end.
    pub student: Option<PathBuf>,
    /// Why it took no part to the end.
    pub left: Option<String>,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobFailure {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The trainer does not start.
    #[error(transparent)]
    Trainer(#[from] TrainError),
    /// Nothing could be measured.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// Nothing could be decided.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// The coordinator gave up.
    #[error("{0}")]
    Fatal(#[from] Fatal),
    /// The job names a device that is not enrolled.
    #[error("{0} is not enrolled; run twin-host enroll {0} --out DIR first")]
    Unknown(DeviceId),
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
}

/// Work for a trainer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
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

impl Host {
    /// Runs a job to its end. `note` hears all that is worth telling; `stop` ends it early.
    pub(crate) async fn run_job(
        &mut self,
        job: &Job,
        text: &str,
        note: &mut (dyn FnMut(&Note) + Send),
        mut stop: watch::Receiver<bool>,
    ) -> Result<JobReport, JobFailure> {
        for device in &job.devices {
            if !self.links.contains_key(device) {
                return Err(JobFailure::Unknown(device.clone()));
            }
        }
        let id = self.store.begin_job(text)?;
        let mut students = Trainer::start(&self.config.trainer).await?;
        let mut teacher_config = self.config.trainer.clone();
        teacher_config.threads = self.config.teacher_threads;
        let teacher = Trainer::start(&teacher_config).await?;
        tracing::info!(libtorch = %students.info.libtorch, device = %students.info.device, "the trainer is ready");
        let models: Vec<Architecture> = self.config.scheduler.models.iter().map(|model| model.0).collect();
        let calibration = Calibration::load_or_measure(
            &self.store.root().join("calibration.json"),
            &mut students,
            &models,
            job.teacher.architecture,
            job.classes,
            job.student.batch,
            |done, all| tracing::info!("calibrating networks: {done} of {all}"),
        )
        .await?;
        let mut twins = BTreeMap::new();
        for device in &job.devices {
            twins.insert(device.clone(), self.store.twin(device)?);
        }
        let spec = spec_of(id, job, self.config.scheduler.decide_every);
        let coordinator = Coordinator::new(spec, twins, self.started.elapsed());
        let (decided, decisions) = mpsc::channel(1);
        let mut run = JobRun {
            host: self,
            job,
            id,
            coordinator,
            calibration,
            rounds: Vec::new(),
            teacher_asks: teacher.asks,
            student_asks: students.asks,
            policy: None,
            objective: None,
            decided,
        };
        let ended = run.run(teacher.told, students.told, decisions, note, &mut stop).await;
        let outcome = match &ended {
            Ok(()) => "finished".to_owned(),
            Err(failure) => failure.to_string(),
        };
        run.host.store.end_job(id, &outcome)?;
        ended?;
        run.report()
    }
}

struct JobRun<'a> {
    host: &'a mut Host,
    job: &'a Job,
    id: JobId,
    coordinator: Coordinator,
    calibration: Calibration,
    rounds: Vec<RoundRecord>,
    teacher_asks: mpsc::UnboundedSender<Ask<Work>>,
    student_asks: mpsc::UnboundedSender<Ask<Work>>,
    policy: Option<Arc<dyn Policy + Send + Sync>>,
    /// Eq. (6) at the first decision.
    objective: Option<f64>,
    decided: mpsc::Sender<Decided>,
}

/// The scheduler's answer, and the policy, trained now if it was not before.
type Decided = Result<(Answer, Arc<dyn Policy + Send + Sync>), DecideError>;

impl JobRun<'_> {
    async fn run(
        &mut self,
        mut teacher: mpsc::UnboundedReceiver<(Work, Told)>,
        mut students: mpsc::UnboundedReceiver<(Work, Told)>,
        mut decisions: mpsc::Receiver<Decided>,
        note: &mut (dyn FnMut(&Note) + Send),
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), JobFailure> {
        // Boards that are connected already have told their birth before the job began.
        for link in self.host.links.values() {
            let _ = link.orders.send(LinkOrder::Command(twin_shared::wire::Order::Rebirth));
        }
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            let input = tokio::select! {
                from = self.host.from_boards.recv() => match from {
                    Some((device, input)) => {
                        self.remember(&device, &input)?;
                        Some(Input::Board(device, input))
                    }
                    None => return Err(JobFailure::Stopped),
                },
                told = teacher.recv() => self.on_told(told)?,
                told = students.recv() => self.on_told(told)?,
                answer = decisions.recv() => match answer {
                    Some(answer) => {
                        let (answer, policy) = answer?;
                        self.policy = Some(policy);
                        self.objective.get_or_insert(answer.objective);
                        Some(Input::Decided(answer.allotments))
                    }
                    None => None,
                },
                _ = tick.tick() => Some(Input::Tick),
                changed = stop.changed() => {
                    if changed.is_err() || *stop.borrow() {
                        return Err(JobFailure::Stopped);
                    }
                    None
                }
            };
            let Some(input) = input else { continue };
            let now = self.host.started.elapsed();
            for output in self.coordinator.handle(now, input) {
                match self.apply(output, note)? {
                    Next::GoOn => {}
                    Next::Finished => return Ok(()),
                }
            }
        }
    }

    /// Stores what a restart must find, before anything is built on it.
    fn remember(&self, device: &DeviceId, input: &twin_core::coordinator::BoardInput) -> Result<(), JobFailure> {
        use twin_core::coordinator::BoardInput;
        use twin_shared::wire::Purpose;
        if let BoardInput::Received { purpose: Purpose::Dataset(version), blob } = input {
            self.host.store.hold_dataset(device, *version, *blob)?;
        }
        Ok(())
    }

    fn apply(&mut self, output: Output, note: &mut (dyn FnMut(&Note) + Send)) -> Result<Next, JobFailure> {
        match output {
            Output::Command(device, order) => self.order(&device, LinkOrder::Command(order)),
            Output::Desired(device, mut document) => {
                // What the twin holds is what lies on its disk, not what was meant to.
                document.state = self.host.store.blobs(&device)?.rehash(&document.state)?;
                self.host.store.keep_document(&device, document.version)?;
                self.order(&device, LinkOrder::Desired(document));
            }
            Output::Send(device, blob, purpose) => self.order(&device, LinkOrder::Send(blob, purpose)),
            Output::Forget(device, round) => self.order(&device, LinkOrder::Forget(round)),
            Output::Share(device, allotment) => {
                let weight = Ask::Weight(device.as_str().to_owned(), allotment.frequency.0);
                let _ = self.student_asks.send(weight);
                self.order(&device, LinkOrder::Pace(allotment.rate));
            }
            Output::Run(task) => self.start(task)?,
            Output::Cancel(task) => {
                let _ = self.student_asks.send(Ask::Cancel(Work::Task(task)));
            }
            Output::Decide => self.decide()?,
            Output::Note(told) => {
                if let Note::Round(record) = &told {
                    self.host.store.record_round(self.id, record)?;
                    self.rounds.push((**record).clone());
                }
                note(&told);
            }
            Output::Finished => return Ok(Next::Finished),
            Output::Failed(fatal) => return Err(fatal.into()),
        }
        Ok(Next::GoOn)
    }

    fn order(&self, device: &DeviceId, order: LinkOrder) {
        if let Some(link) = self.host.links.get(device) {
            let _ = link.orders.send(order);
        }
    }

    /// Asks the scheduler, on a thread of its own: a table takes a second or two to train.
    fn decide(&self) -> Result<(), JobFailure> {
        let now = self.host.started.elapsed();
        let scheduler = self.host.config.scheduler.clone();
        let Some(question) = pose(&self.coordinator, &self.calibration, &scheduler, self.job, now)? else {
            return Ok(());
        };
        self.keep_scenario(&question);
        let (policy, decided) = (self.policy.clone(), self.decided.clone());
        tokio::task::spawn_blocking(move || {
            let policy = match policy {
                Some(policy) => Ok(policy),
                None => question.prepare(&scheduler).map(Arc::from),
            };
            let answer = policy.and_then(|policy| Ok((question.decide(policy.as_ref(), &scheduler)?, policy)));
            // Nobody listens only when the job is over.
            let _ = decided.blocking_send(answer);
        });
        Ok(())
    }

    fn keep_scenario(&self, question: &Question) {
        tracing::debug!(job = %self.id, scenario = ?question.scenario(), "the scheduler is asked");
    }

    fn start(&self, task: Task) -> Result<(), JobFailure> {
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

    fn teacher_path(&self) -> PathBuf {
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
    fn on_told(&self, told: Option<(Work, Told)>) -> Result<Option<Input>, JobFailure> {
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

    fn report(self) -> Result<JobReport, JobFailure> {
        let now = self.host.started.elapsed();
        let mut members = BTreeMap::new();
        for (device, member) in self.coordinator.members() {
            let blobs = self.host.store.blobs(device)?;
            let (student, left) = match member.phase() {
                Phase::Finished { state } => (Some(blobs.path(state)), None),
                Phase::Left(why) => (None, Some(why.clone())),
                Phase::Absent
                | Phase::Copying
                | Phase::Counting
                | Phase::Ready
                | Phase::Starting
                | Phase::Local(_)
                | Phase::Host(_)
                | Phase::Confirming(_) => (None, Some("the job ended before it".into())),
            };
            let report = MemberReport {
                counts: member.twin.counts().cloned(),
                dataset: member.twin.dataset().map(|dataset| blobs.path(&dataset.blob)),
                telemetry: member.twin.telemetry(now).map(|(sample, _)| sample.clone()),
                birth: member.twin.birth().cloned(),
                student,
                left,
            };
            members.insert(device.clone(), report);
        }
        let teacher = self.teacher_path();
        Ok(JobReport {
            job: self.id,
            teacher,
            rounds: self.rounds,
            members,
            calibration: self.calibration,
            objective: self.objective.unwrap_or(f64::NAN),
        })
    }
}

enum Next {
    GoOn,
    Finished,
}

fn spec_of(id: JobId, job: &Job, decide_every: Duration) -> JobSpec {
    JobSpec {
        job: id,
        devices: job.devices.clone(),
        seed: job.seed,
        method: job.student.method,
        labels: job.student.labels,
        recipe: job.student.recipe,
        batch: job.student.batch,
        batches_per_block: job.student.batches_per_block,
        augmentation: job.augmentation,
        patience: job.patience,
        deadline_factor: job.deadline_factor,
        decide_every,
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
