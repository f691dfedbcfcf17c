//! One training job over a fleet, as a machine without IO: what boards and trainers say comes in as [`Input`], what
//! is to be done goes out as [`Output`].
//!
//! Each device goes its own way from epoch to epoch: nobody waits for a slower board, and one that dies is passed by.
//! After every epoch host and board prove to each other that they hold the same student state.

mod device;
mod message;
mod phase;
mod progress;
mod scoring;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use twin_shared::id::{BlobHash, DeviceId, JobId, RoundId};
use twin_shared::model::{Architecture, Site};
use twin_shared::pipe::Outcome;
use twin_shared::plan::{Augmentation, Compression, LabelKind, Method, Recipe, SyncEvery};
use twin_shared::wire::{Order, Purpose, Refusal};

pub use device::Member;
pub use message::{
    Allotment, BoardInput, Fatal, Input, Measured, Note, Output, PredictedDelay, RoundRecord, Task, TaskEvent,
};
pub use phase::{Departure, Phase};
pub use progress::{JobProgress, Progress};

use crate::twin::{DatasetCounts, Twin, TwinDataset};
use scoring::Scoring;

/// What a job is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// Its number.
    pub job: JobId,
    /// Seed of initialisation, order and augmentation.
    pub seed: u64,
    /// What students learn by.
    pub method: Method,
    /// The form of labels sent to boards.
    pub labels: LabelKind,
    /// The students' optimiser; its epochs are the job's.
    pub recipe: Recipe,
    /// Samples a mini-batch.
    pub batch: u32,
    /// Mini-batches a block of labels.
    pub batches_per_block: u32,
    /// How student states travel.
    pub compression: Compression,
    /// After which epochs they do.
    pub sync_every: SyncEvery,
    /// Devices to which both are tightened where the job says nothing: `int8`, after the last epoch only.
    pub metered: BTreeSet<DeviceId>,
    /// What is done to each image.
    pub augmentation: Augmentation,
    /// How long the job waits for boards that are missing at its start, or away at its end.
    pub patience: Duration,
    /// A board has this many times the predicted delay for an epoch.
    pub deadline_factor: f64,
    /// The scheduler is asked again after this time.
    pub decide_every: Duration,
    /// A student is scored on held-out samples after every so many epochs, and after its last.
    pub score_every: u32,
}

impl JobSpec {
    /// After which epochs a device's states are exchanged.
    #[must_use]
    pub fn sync_every(&self, device: &DeviceId) -> SyncEvery {
        let unsaid = self.sync_every == SyncEvery::EPOCH && self.metered.contains(device);
        if unsaid { SyncEvery::Final } else { self.sync_every }
    }

    /// How a device's states travel.
    #[must_use]
    pub fn compression(&self, device: &DeviceId) -> Compression {
        let unsaid = self.compression == Compression::None && self.metered.contains(device);
        if unsaid { Compression::Int8 } else { self.compression }
    }
}

/// How far the job is.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// Datasets are copied to the twins.
    Gathering { since: Duration },
    /// The teacher is trained over these twins.
    Teaching { twins: Vec<(DeviceId, BlobHash)> },
    /// Students are assigned, trained and synchronised.
    Distilling { teacher: BlobHash, twins: Vec<(DeviceId, BlobHash)>, decided: Duration, asked: bool },
    /// All is done that could be.
    Over,
}

/// One training job.
#[derive(Debug)]
pub struct Coordinator {
    spec: JobSpec,
    stage: Stage,
    members: BTreeMap<DeviceId, Member>,
    scoring: Scoring,
}

impl Coordinator {
    /// A job that starts now. `twins` are the devices that take part, and what the store knows of them.
    #[must_use]
    pub fn new(spec: JobSpec, twins: BTreeMap<DeviceId, Twin>, now: Duration) -> Self {
        let members = twins.into_iter().map(|(device, twin)| (device, (twin, None))).collect();
        Self::resume(spec, JobProgress::Gathering, members, now).0
    }

    /// A job that goes on from what was written down of it, and what is to be done at once. Boards are told again what
    /// is wanted of them when their births come; the host's own work begins where it was.
    #[must_use]
    pub fn resume(
        spec: JobSpec,
        job: JobProgress,
        members: BTreeMap<DeviceId, (Twin, Option<Progress>)>,
        now: Duration,
    ) -> (Self, Vec<Output>) {
        let mut out = Vec::new();
        let stage = match job {
            JobProgress::Gathering => Stage::Gathering { since: now },
            JobProgress::Teaching(twins) => {
                out.push(Output::Run(Task::Teacher { twins: twins.clone() }));
                Stage::Teaching { twins }
            }
            // Students go on as they were allotted; it is decided anew when that is due, or when somebody is new. Now the
            // boards have not spoken yet.
            JobProgress::Distilling { teacher, twins } => {
                Stage::Distilling { teacher, twins, decided: now, asked: false }
            }
        };
        let members = members.into_iter().map(|(device, (twin, progress))| {
            let member = match progress {
                Some(progress) => Member::resume(&spec, &device, twin, progress, now, &mut out),
                None => Member::new(twin, now),
            };
            (device, member)
        });
        let members = members.collect();
        (Self { spec, stage, members, scoring: Scoring::default() }, out)
    }

    /// How far the job is, to be written down; `None` when it is over.
    #[must_use]
    pub fn progress(&self) -> Option<JobProgress> {
        match &self.stage {
            Stage::Gathering { .. } => Some(JobProgress::Gathering),
            Stage::Teaching { twins } => Some(JobProgress::Teaching(twins.clone())),
            Stage::Distilling { teacher, twins, .. } => {
                Some(JobProgress::Distilling { teacher: *teacher, twins: twins.clone() })
            }
            Stage::Over => None,
        }
    }

    /// Every blob of a device that is still wanted: to go on from, to be sent or to be scored.
    #[must_use]
    pub fn blobs(&self, device: &DeviceId) -> BTreeSet<BlobHash> {
        let mut blobs = self.members.get(device).map(Member::blobs).unwrap_or_default();
        blobs.extend(self.scoring.states(device));
        blobs
    }

    /// Has boards drop what they do for this job; it is over here, and may be resumed from its progress.
    pub fn halt(&mut self) -> Vec<Output> {
        self.stage = Stage::Over;
        self.stop_all().collect()
    }

    fn stop_all(&self) -> impl Iterator<Item = Output> {
        self.members.keys().map(|device| Output::Command(device.clone(), Order::Stop(self.spec.job)))
    }

    /// What the job is to do.
    #[must_use]
    pub const fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// The job's devices.
    #[must_use]
    pub const fn members(&self) -> &BTreeMap<DeviceId, Member> {
        &self.members
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Takes one input; returns what is to be done, in this order.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.is_over() {
            return out;
        }
        match input {
            Input::Board(device, input) => self.on_board(now, &device, input, &mut out),
            Input::Task(task, event) => self.on_task(now, task, event, &mut out),
            Input::Decided(allotments) => self.on_decided(now, allotments, &mut out),
            Input::Join(device, twin) => self.on_join(now, device, *twin, &mut out),
            Input::Leave(device) => {
                if let Some(member) = self.members.get_mut(&device) {
                    out.push(Output::Command(device.clone(), Order::Stop(self.spec.job)));
                    member.leave(&device, Departure::Removed, &mut out);
                }
            }
            Input::Replaced(device) => {
                if let Some(member) = self.members.get_mut(&device) {
                    member.twin.forget_connection();
                }
            }
            Input::Tick => {}
        }
        self.advance(now, &mut out);
        out
    }

    fn on_board(&mut self, now: Duration, device: &DeviceId, input: BoardInput, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(device) else {
            out.push(Output::Note(Note::Unknown(device.clone())));
            return;
        };
        match input {
            BoardInput::Online(birth) => {
                if let Err(error) = member.twin.on_birth(birth) {
                    out.push(Output::Note(Note::Refused(device.clone(), error.to_string())));
                    return;
                }
                out.push(Output::Note(Note::Online(device.clone())));
                // A board answers from what it has measured, or measures while its dataset is copied.
                out.push(Output::Command(device.clone(), Order::Calibrate { batch: self.spec.batch }));
                if !member.come_back(&self.spec, device, now, out) {
                    member.say_again(&self.spec, device, out);
                }
            }
            BoardInput::Offline { sequence } => {
                if member.twin.on_will(sequence, now) {
                    out.push(Output::Note(Note::Offline(device.clone())));
                }
            }
            BoardInput::Telemetry(sample) => member.twin.on_telemetry(sample, now),
            BoardInput::Reply(reply) => member.on_reply(&self.spec, device, reply, now, out),
            BoardInput::Reported(document) => {
                if let Some(record) = member.on_reported(&self.spec, device, &document, now, out) {
                    let (round, state) = (record.round, record.state);
                    let architecture = record.allotment.architecture;
                    out.push(Output::Note(Note::Round(Box::new(record))));
                    member.next_round(&self.spec, device, now, out);
                    let epochs = (round.0 + 1, self.spec.recipe.epochs);
                    if scoring::is_due(epochs, self.spec.score_every) {
                        self.scoring.begin(&self.members, device, round, state, (architecture, epochs), out);
                    }
                }
            }
            BoardInput::Received { purpose, blob } => match purpose {
                Purpose::Dataset(version) => {
                    member.twin.hold_dataset(TwinDataset { version, blob, counts: None });
                    out.push(Output::Note(Note::Dataset { device: device.clone(), version, blob }));
                    member.count(device, blob, out);
                }
                Purpose::Student { job, round } if job == self.spec.job => {
                    member.on_state(&self.spec, device, round, blob, now, out);
                }
                Purpose::Student { .. }
                | Purpose::DatasetDelta { .. }
                | Purpose::Base { .. }
                | Purpose::Labels { .. }
                | Purpose::Classes { .. }
                | Purpose::Model { .. }
                | Purpose::Telemetry
                | Purpose::Waiting
                | Purpose::WaitingLabels
                | Purpose::Probe(_) => {}
            },
            BoardInput::Sent { purpose } => {
                if let Purpose::Student { job, round } = purpose
                    && job == self.spec.job
                {
                    member.on_sent(&self.spec, device, round, now, out);
                }
            }
            BoardInput::BlobRefused { purpose, why } => {
                let text = format!("the board refused a blob ({purpose:?}): {why:?}");
                out.push(Output::Note(Note::Refused(device.clone(), text)));
                if let (Purpose::Student { round, .. }, Refusal::Base) = (purpose, why) {
                    member.send_again(&self.spec, device, round, out);
                }
                if let (
                    Purpose::Student { job, round } | Purpose::Base { job, round } | Purpose::Labels { job, round, .. },
                    Refusal::Unexpected,
                ) = (purpose, why)
                    && job == self.spec.job
                {
                    member.on_unexpected(round, now);
                }
            }
        }
    }

    fn on_task(&mut self, now: Duration, task: Task, event: TaskEvent, out: &mut Vec<Output>) {
        match (task, event) {
            (task, TaskEvent::Progress { step, steps }) => out.push(Output::Note(Note::Progress { task, step, steps })),
            (Task::Teacher { .. }, TaskEvent::Done(Outcome::Weights { hash, loss })) => {
                out.push(Output::Note(Note::Teacher { weights: hash, loss }));
                out.push(Output::Decide);
                let twins = match std::mem::replace(&mut self.stage, Stage::Over) {
                    Stage::Teaching { twins } => twins,
                    Stage::Gathering { .. } | Stage::Distilling { .. } | Stage::Over => Vec::new(),
                };
                self.stage = Stage::Distilling { teacher: hash, twins, decided: now, asked: true };
            }
            (Task::Count { device, .. }, TaskEvent::Done(Outcome::Counts { train, held, labels })) => {
                if let Some(member) = self.members.get_mut(&device) {
                    member.on_counted(DatasetCounts { train, held, labels });
                }
            }
            (Task::Init { device, .. }, TaskEvent::Done(Outcome::Student { hash, .. })) => {
                if let Some(member) = self.members.get_mut(&device) {
                    member.start(&self.spec, &device, hash, now, out);
                }
            }
            (Task::Labels { device, round, .. }, TaskEvent::Block { block, blob }) => {
                if let Some(member) = self.members.get_mut(&device) {
                    member.on_block(&self.spec, &device, round, block, blob, out);
                }
            }
            (Task::Labels { .. }, TaskEvent::Done(_)) => {}
            (Task::Epoch { device, round, .. }, TaskEvent::Done(Outcome::Student { hash, loss, .. })) => {
                if let Some(member) = self.members.get_mut(&device) {
                    member.on_trained_here(&self.spec, &device, round, hash, loss, now, out);
                }
            }
            (Task::Score { device, round, by, .. }, TaskEvent::Done(Outcome::Evaluation(evaluation))) => {
                // Of all that a trainer could say, only how many of how many.
                let score = Some(evaluation.full_top1);
                self.scoring.on_score(&mut self.members, &device, round, &by, score, out);
            }
            // Without a score the estimate stays what it was: no reason to give up a job.
            (
                Task::Score { device, round, by, .. },
                TaskEvent::Done(_) | TaskEvent::Failed(_) | TaskEvent::Block { .. },
            ) => {
                self.scoring.on_score(&mut self.members, &device, round, &by, None, out);
            }
            (task, TaskEvent::Done(outcome)) => {
                let text = format!("the trainer answered {task:?} by {outcome:?}");
                self.fail(Fatal::Trainer(text), out);
            }
            (Task::Count { device, .. }, TaskEvent::Failed(message)) => {
                // Unreadable to the trainer: that board's dataset is at fault, nobody else's.
                if let Some(member) = self.members.get_mut(&device) {
                    member.leave(&device, Departure::Unreadable(message), out);
                }
            }
            (task, TaskEvent::Failed(message)) => self.fail(Fatal::Trainer(format!("{task}: {message}")), out),
            (task, TaskEvent::Block { .. }) => self.fail(Fatal::Trainer(format!("{task} made labels")), out),
        }
    }

    fn on_decided(&mut self, now: Duration, allotments: BTreeMap<DeviceId, Allotment>, out: &mut Vec<Output>) {
        let Stage::Distilling { decided, asked, .. } = &mut self.stage else {
            return;
        };
        (*decided, *asked) = (now, false);
        for (device, allotment) in allotments {
            if let Some(member) = self.members.get_mut(&device) {
                member.allot(&device, allotment, out);
            }
        }
    }

    /// A board joins: it starts from the present teacher, as soon as its dataset is here.
    fn on_join(&mut self, now: Duration, device: DeviceId, twin: Twin, out: &mut Vec<Output>) {
        let removed = |member: &Member| matches!(member.phase(), Phase::Left { why: Departure::Removed, .. });
        if self.members.get(&device).is_none_or(removed) {
            out.push(Output::Command(device.clone(), Order::Rebirth));
            self.members.insert(device, Member::new(twin, now));
        }
    }

    /// What follows from the state and the time alone.
    fn advance(&mut self, now: Duration, out: &mut Vec<Output>) {
        match &mut self.stage {
            Stage::Gathering { since } => {
                let late = now.saturating_sub(*since) >= self.spec.patience;
                let count = |wanted: fn(&Phase) -> bool| self.members.values().filter(|m| wanted(m.phase())).count();
                let ready = count(|phase| *phase == Phase::Ready);
                let waiting = count(|phase| *phase != Phase::Ready && !phase.is_settled());
                if waiting > 0 && !late {
                    return;
                }
                for (device, member) in &mut self.members {
                    if *member.phase() != Phase::Ready && !member.is_settled() {
                        member.leave(device, Departure::Late, out);
                    }
                }
                if ready == 0 {
                    self.fail(Fatal::NoBoards, out);
                    return;
                }
                let twins = self.members.iter().filter(|(_, member)| matches!(member.phase(), Phase::Ready));
                let twins = twins.filter_map(|(device, member)| Some((device.clone(), member.twin.dataset()?.blob)));
                let twins: Vec<_> = twins.collect();
                out.push(Output::Run(Task::Teacher { twins: twins.clone() }));
                self.stage = Stage::Teaching { twins };
            }
            Stage::Teaching { .. } | Stage::Over => {}
            Stage::Distilling { decided, asked, .. } => {
                for (device, member) in &mut self.members {
                    member.on_time(&self.spec, device, now, out);
                }
                // Whoever has come late is not made to wait for the next decision.
                let newcomer = self.members.values().any(|member| *member.phase() == Phase::Ready);
                let due = newcomer || now.saturating_sub(*decided) >= self.spec.decide_every;
                if self.members.values().all(Member::is_settled) && self.scoring.is_idle() {
                    self.stage = Stage::Over;
                    out.extend(self.stop_all());
                    out.push(Output::Finished);
                } else if due && !*asked {
                    *asked = true;
                    out.push(Output::Decide);
                }
            }
        }
        if let Some(fatal) = self.members.values_mut().find_map(Member::take_fatal) {
            self.fail(fatal, out);
        }
    }

    fn fail(&mut self, fatal: Fatal, out: &mut Vec<Output>) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            out.extend(self.stop_all());
            out.push(Output::Failed(fatal));
        }
    }
}

/// The student that a device's next epoch starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StudentAt {
    /// The network.
    pub architecture: Architecture,
    /// Epochs done; the number of the next.
    pub round: RoundId,
    /// Its state.
    pub state: BlobHash,
    /// Where the last epoch was trained: its momentum is there.
    pub site: Option<Site>,
    /// The last state that both sides hold.
    pub common: Common,
}

/// A state that both sides hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Common {
    /// Epochs done for it.
    pub round: RoundId,
    /// The state.
    pub state: BlobHash,
    /// Whether the board has said so. It has not of a state that was just made.
    pub proved: bool,
}

impl StudentAt {
    /// Before the first epoch.
    #[must_use]
    pub const fn fresh(architecture: Architecture, state: BlobHash) -> Self {
        let round = RoundId(0);
        Self { architecture, round, state, site: None, common: Common { round, state, proved: false } }
    }

    /// Whether it was trained on since both sides held the same: its state is at its site only.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.state != self.common.state
    }

    /// Back to what both sides hold; the epochs since then are lost.
    #[must_use]
    pub const fn rewound(self) -> Self {
        Self { round: self.common.round, state: self.common.state, site: None, ..self }
    }
}

#[cfg(test)]
mod tests;
