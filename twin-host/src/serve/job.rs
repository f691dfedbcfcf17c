//! Runs one job on a serving host: the shell around the coordinator.

mod report;
mod tasks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use twin_core::coordinator::{Coordinator, Input, JobSpec, Note, Output, Phase, RoundRecord};
use twin_core::scheduler::policy::Policy;
use twin_shared::id::{DeviceId, JobId};
use twin_shared::model::Architecture;

pub use report::{JobFailure, JobReport, MemberReport};
use tasks::Work;

use super::Host;
use crate::calibration::Calibration;
use crate::config::Job;
use crate::decide::{Answer, DecideError, Question, pose};
use crate::link::LinkOrder;
use crate::train::{Ask, Told, Trainer};

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
