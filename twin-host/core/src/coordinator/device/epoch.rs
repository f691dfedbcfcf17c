//! A device's epoch, on the board or on the host, until both sides have its state.

use core::time::Duration;

use twin_shared::id::{BlobHash, DeviceId, RoundId};
use twin_shared::model::Site;
use twin_shared::plan::{Compression, EpochPlan};
use twin_shared::units::Seconds;
use twin_shared::wire::{Assignment, FailureCode, Order, Purpose, Reply, SPARING_VERSION, Sparing, Status};

use super::super::message::{Allotment, Fatal, Measured, Note, Output, Task};
use super::super::phase::{HostEpoch, LocalEpoch, Phase, Running};
use super::super::{JobSpec, StudentAt};
use super::Member;

/// Least time that a board has for an epoch, whatever was predicted: its trainer has to start.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);

impl Member {
    /// Begins an epoch where the allotment says.
    pub(super) fn begin(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        student: StudentAt,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        let Some(mut allotment) = self.allotment else { return };
        let mut student = student;
        if !self.can_train() {
            allotment.site = Site::Host;
        }
        // A student whose state is at one site only stays there until both sides hold it.
        match student.site {
            Some(site) if student.is_ahead() && site != allotment.site => {
                if site == Site::Host || self.can_train() {
                    allotment.site = site;
                } else {
                    student = student.rewound();
                }
            }
            Some(_) | None => {}
        }
        let run = Running { student, allotment, since: now };
        match allotment.site {
            Site::Local => {
                let deadline = deadline(spec, &allotment, now);
                self.phase =
                    Phase::Local(LocalEpoch { run, deadline, blocks: Vec::new(), trained: None, arrived: None });
                self.assign(spec, device, out);
            }
            Site::Host => self.train_here(spec, device, run, out),
        }
        out.extend(self.own_work(spec, device).map(Output::Run));
    }

    /// What the host has to do for the epoch in progress, unless that is done.
    pub(super) fn own_work(&self, spec: &JobSpec, device: &DeviceId) -> Option<Task> {
        match &self.phase {
            Phase::Local(epoch) => {
                let samples = self.twin.counts().map_or(u32::MAX, |counts| counts.train);
                let blocks = samples.div_ceil(spec.batch.max(1)).div_ceil(spec.batches_per_block.max(1));
                let missing = epoch.trained.is_none() && epoch.blocks.len() < blocks as usize;
                missing.then(|| Task::Labels { device: device.clone(), round: epoch.run.student.round })
            }
            Phase::Host(epoch) if epoch.trained.is_none() => Some(epoch.task(device)),
            Phase::Host(_)
            | Phase::Absent
            | Phase::Copying
            | Phase::Counting
            | Phase::Ready
            | Phase::Starting
            | Phase::Confirming(_)
            | Phase::Finished { .. }
            | Phase::Left { .. } => None,
        }
    }

    /// Whether the state of this epoch is exchanged after it.
    fn is_exchanged(&self, spec: &JobSpec, device: &DeviceId, round: RoundId) -> bool {
        !self.can_spare() || spec.sync_every(device).is_due(round.0, spec.recipe.epochs)
    }

    /// Whether the board knows of sparing.
    fn can_spare(&self) -> bool {
        self.twin.speaks(SPARING_VERSION)
    }

    /// How the epoch's state will travel.
    fn sparing(&self, spec: &JobSpec, device: &DeviceId, student: &StudentAt) -> Sparing {
        let upload = self.is_exchanged(spec, device, student.round);
        Sparing { compression: spec.compression(device), common: student.common.state, upload }
    }

    /// The host trains the epoch. The first state goes to the board whole: there is nothing before it that the board
    /// has.
    fn train_here(&mut self, spec: &JobSpec, device: &DeviceId, run: Running, out: &mut Vec<Output>) {
        self.phase = Phase::Host(self.host_epoch(spec, device, run));
        self.assign(spec, device, out);
    }

    /// An epoch on the host, not begun.
    fn host_epoch(&self, spec: &JobSpec, device: &DeviceId, run: Running) -> HostEpoch {
        let sparing = self.sparing(spec, device, &run.student);
        let spared = self.can_spare() && run.student.common.proved && sparing.compression != Compression::None;
        let sparing = Some(sparing).filter(|sparing| spared && sparing.upload);
        HostEpoch { run, sparing, trained: None, late: None }
    }

    /// An epoch is done whose state stays where it is: goes on with the next.
    #[expect(clippy::too_many_arguments, reason = "what an epoch came to, and where it goes")]
    fn go_on(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        run: Running,
        (site, state): (Site, BlobHash),
        loss: f32,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        let round = run.student.round;
        out.push(Output::Forget(device.clone(), round));
        out.push(Output::Note(Note::Kept { device: device.clone(), round, site, loss }));
        let student = StudentAt { round: RoundId(round.0 + 1), state, site: Some(site), ..run.student };
        self.begin(spec, device, student, now, out);
    }

    /// The board cannot read the state as it was sent.
    pub(in crate::coordinator) fn send_again(
        &self,
        spec: &JobSpec,
        device: &DeviceId,
        round: RoundId,
        out: &mut Vec<Output>,
    ) {
        if let Phase::Host(HostEpoch { run, trained: Some((_, state, _)), .. }) = &self.phase
            && run.student.round == round
        {
            out.push(Output::Send(device.clone(), *state, Purpose::Student { job: spec.job, round }));
        }
    }

    /// Tells the board of the epoch in progress, and sends what it needs; again after it was away.
    fn assign(&self, spec: &JobSpec, device: &DeviceId, out: &mut Vec<Output>) {
        let Some((run, site)) = self.phase.epoch() else { return };
        let round = run.student.round;
        let assignment = Assignment {
            job: spec.job,
            round,
            architecture: run.student.architecture,
            site,
            base: run.student.state,
            plan: plan(spec, round),
            recipe: spec.recipe,
            method: spec.method,
            labels: spec.labels,
            samples: self.twin.counts().map_or(0, |counts| counts.train),
            batches_per_block: spec.batches_per_block,
            uplink_bits_per_second: whole(run.allotment.rate.0),
            deadline_ms: u64::try_from(allowed(spec, &run.allotment).as_millis()).unwrap_or(u64::MAX),
        };
        let order = match self.twin.dataset() {
            Some(dataset) if self.can_spare() => Order::AssignOn {
                dataset: dataset.version,
                assignment,
                sparing: self.sparing(spec, device, &run.student),
            },
            Some(_) | None => Order::Assign(assignment),
        };
        out.push(Output::Command(device.clone(), order));
        if let Some(epoch) = self.phase.attempt() {
            // What was trained there since is there only.
            if !run.student.is_ahead() {
                let base = Purpose::Base { job: spec.job, round };
                out.push(Output::Send(device.clone(), run.student.state, base));
            }
            for &(index, blob) in &epoch.blocks {
                out.push(Output::Send(device.clone(), blob, Purpose::Labels { job: spec.job, round, index }));
            }
        }
    }

    /// The board was away, rebooted perhaps: say again what is wanted of it.
    pub(in crate::coordinator) fn say_again(&self, spec: &JobSpec, device: &DeviceId, out: &mut Vec<Output>) {
        self.assign(spec, device, out);
        if let Phase::Host(HostEpoch { run, trained: Some((_, state, _)), .. }) = &self.phase {
            out.push(Output::Send(
                device.clone(),
                *state,
                Purpose::Student { job: spec.job, round: run.student.round },
            ));
        }
        if let Phase::Confirming(confirmation) = &self.phase {
            out.push(Output::Desired(device.clone(), confirmation.document));
        }
    }

    /// A block of labels is ready to be sent.
    pub(in crate::coordinator) fn on_block(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        round: RoundId,
        index: u32,
        blob: BlobHash,
        out: &mut Vec<Output>,
    ) {
        if let Some(epoch) = self.phase.attempt_mut()
            && epoch.run.student.round == round
        {
            // Labels that are made again after a restart are those that the board may hold already.
            if epoch.blocks.iter().any(|(known, _)| *known == index) {
                return;
            }
            epoch.blocks.push((index, blob));
            out.push(Output::Send(device.clone(), blob, Purpose::Labels { job: spec.job, round, index }));
        }
    }

    pub(in crate::coordinator) fn on_reply(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        reply: Reply,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        match reply.status {
            Status::Accepted | Status::Running { .. } | Status::Done => {}
            Status::Calibrated(calibration) => {
                if self.twin.experience.speeds.calibrate(calibration) {
                    out.push(Output::Learnt(device.clone()));
                }
            }
            Status::Trained(trained) if trained.job == spec.job => {
                let clock = self.twin.compute().map(|compute| compute.clock);
                if let Some(epoch) = self.phase.attempt_mut()
                    && epoch.run.student.round == trained.round
                {
                    let network = epoch.run.student.architecture;
                    let ms = trained.training_ms.saturating_sub(trained.starved_ms);
                    let seconds = Duration::from_millis(ms).as_secs_f64();
                    self.twin.experience.speeds.trained(network, seconds, trained.samples, clock);
                    out.push(Output::Learnt(device.clone()));
                    epoch.trained = Some((now, trained));
                    self.settle_local(spec, device, now, out);
                }
            }
            Status::Trained(_) => {}
            Status::Failed { code, message } => {
                let text = format!("{code:?}: {message}");
                match code {
                    FailureCode::NoTrainer | FailureCode::TrainerDied | FailureCode::TrainerFailed => {
                        self.unfit = true;
                        self.offload(spec, device, text, now, out);
                    }
                    FailureCode::Missing | FailureCode::Transfer | FailureCode::Storage | FailureCode::Inhibited => {
                        self.offload(spec, device, text, now, out);
                    }
                }
            }
        }
    }

    /// A student state came from the board.
    pub(in crate::coordinator) fn on_state(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        round: RoundId,
        blob: BlobHash,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        if let Some(epoch) = self.phase.attempt_mut()
            && epoch.run.student.round == round
        {
            epoch.arrived = Some((now, blob));
            self.settle_local(spec, device, now, out);
        } else {
            let text = format!("a student state of epoch {round} came too late");
            out.push(Output::Note(Note::Refused(device.clone(), text)));
        }
    }

    /// The board has said that it trained, and the state is here: both, in either order.
    fn settle_local(&mut self, spec: &JobSpec, device: &DeviceId, now: Duration, out: &mut Vec<Output>) {
        let Some(epoch) = self.phase.attempt() else { return };
        let (run, trained, arrived) = (epoch.run, epoch.trained, epoch.arrived);
        if let Some((_, trained)) = trained
            && !self.is_exchanged(spec, device, run.student.round)
        {
            self.overtake(device, out);
            return self.go_on(spec, device, run, (Site::Local, trained.state), trained.loss, now, out);
        }
        let (Some((trained_at, trained)), Some((arrived_at, state))) = (trained, arrived) else {
            return;
        };
        if trained.state != state {
            self.fatal = Some(Fatal::Unequal {
                device: device.clone(),
                round: trained.round,
                board: trained.state,
                twin: state,
            });
            return;
        }
        let training = Seconds(seconds(trained_at.saturating_sub(run.since)));
        let measured = Measured {
            training,
            starved: Seconds(Duration::from_millis(trained.starved_ms).as_secs_f64()),
            transfer: Seconds(seconds(arrived_at.saturating_sub(trained_at))),
            total: Seconds(0.0),
        };
        self.overtake(device, out);
        self.confirm(spec, device, run, Site::Local, state, trained.loss, measured, out);
    }

    /// The host's trainer has finished an epoch.
    #[expect(clippy::too_many_arguments, reason = "what the trainer says, and where it goes")]
    pub(in crate::coordinator) fn on_trained_here(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        round: RoundId,
        state: BlobHash,
        loss: f32,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        if let Phase::Host(epoch) = &mut self.phase
            && epoch.run.student.round == round
        {
            let run = epoch.run;
            epoch.trained = Some((now, state, loss));
            self.give_up_late(spec, device, out);
            if !self.is_exchanged(spec, device, round) {
                return self.go_on(spec, device, run, (Site::Host, state), loss, now, out);
            }
            out.push(Output::Send(device.clone(), state, Purpose::Student { job: spec.job, round }));
        }
    }

    /// The board holds the state that the host trained.
    pub(in crate::coordinator) fn on_sent(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        round: RoundId,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        let Phase::Host(HostEpoch { run, trained: Some((trained_at, state, loss)), .. }) = self.phase else {
            return;
        };
        if run.student.round != round {
            return;
        }
        let measured = Measured {
            training: Seconds(seconds(trained_at.saturating_sub(run.since))),
            starved: Seconds(0.0),
            transfer: Seconds(seconds(now.saturating_sub(trained_at))),
            total: Seconds(0.0),
        };
        self.confirm(spec, device, run, Site::Host, state, loss, measured, out);
    }

    /// The board cannot train this epoch, or not in time: the host does.
    pub(super) fn offload(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        why: String,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        let Phase::Local(epoch) = &self.phase else {
            // Late already: the host is at it.
            self.give_up_late(spec, device, out);
            return;
        };
        let (mut student, allotment) = (epoch.run.student, epoch.run.allotment);
        out.push(Output::Cancel(Task::Labels { device: device.clone(), round: student.round }));
        out.push(Output::Forget(device.clone(), student.round));
        out.push(Output::Note(Note::Offloaded { device: device.clone(), round: student.round, why }));
        if student.is_ahead() {
            student = student.rewound();
        }
        let run = Running { student, allotment: Allotment { site: Site::Host, ..allotment }, since: now };
        self.train_here(spec, device, run, out);
        out.extend(self.own_work(spec, device).map(Output::Run));
    }

    /// The board is not back by its deadline: the host begins the same epoch, and nobody waits for the board. What it
    /// is at is not taken from it: should it be done before the host, its state is taken.
    pub(super) fn miss(&mut self, spec: &JobSpec, device: &DeviceId, now: Duration, out: &mut Vec<Output>) {
        let Phase::Local(epoch) = &self.phase else { return };
        let (late, student, since) = (epoch.clone(), epoch.run.student, epoch.run.since);
        let samples = self.twin.counts().map_or(0, |counts| counts.train);
        let clock = self.twin.compute().map(|compute| compute.clock);
        let experience = &mut self.twin.experience;
        experience.missed_deadlines += 1;
        experience.speeds.missed(student.architecture, seconds(now.saturating_sub(since)), samples, clock);
        out.push(Output::Learnt(device.clone()));
        let why = "it missed the deadline".to_owned();
        if student.is_ahead() {
            // The host has to begin before what the board was at: the two are not at the same epoch.
            return self.offload(spec, device, why, now, out);
        }
        out.push(Output::Note(Note::Offloaded { device: device.clone(), round: student.round, why }));
        let allotment = Allotment { site: Site::Host, ..late.run.allotment };
        let run = Running { student, allotment, since: now };
        let epoch = HostEpoch { late: Some(Box::new(late)), ..self.host_epoch(spec, device, run) };
        out.push(Output::Run(epoch.task(device)));
        self.phase = Phase::Host(epoch);
    }

    /// The board's late attempt stands on the base that the host's own attempt stands on, and is here first.
    fn overtake(&mut self, device: &DeviceId, out: &mut Vec<Output>) {
        if let Phase::Host(overtaken) = &self.phase {
            out.push(Output::Cancel(overtaken.task(device)));
            out.push(Output::Note(Note::TakenLate { device: device.clone(), round: overtaken.run.student.round }));
            self.twin.experience.taken_late += 1;
            out.push(Output::Learnt(device.clone()));
        }
    }

    /// The board's late attempt is of no use any more: it is told that the host trains this epoch.
    fn give_up_late(&mut self, spec: &JobSpec, device: &DeviceId, out: &mut Vec<Output>) {
        if let Phase::Host(epoch) = &mut self.phase
            && let Some(late) = epoch.late.take()
        {
            let round = late.run.student.round;
            out.push(Output::Cancel(Task::Labels { device: device.clone(), round }));
            out.push(Output::Forget(device.clone(), round));
            self.assign(spec, device, out);
        }
    }
}

/// How long a board has for an epoch: the estimate where labels, training and transfers overlap, times the factor.
fn allowed(spec: &JobSpec, allotment: &Allotment) -> Duration {
    let seconds = (allotment.predicted.pipelined.0 * spec.deadline_factor).clamp(0.0, 1e7);
    Duration::from_secs_f64(seconds).max(SHORTEST_DEADLINE)
}

/// When a board that begins now has to have its epoch done.
pub(super) fn deadline(spec: &JobSpec, allotment: &Allotment, now: Duration) -> Duration {
    now + allowed(spec, allotment)
}

/// The batches of an epoch, the same for board, labels and host.
#[must_use]
pub(super) fn plan(spec: &JobSpec, round: RoundId) -> EpochPlan {
    EpochPlan { seed: spec.seed, epoch: round.0, batch: spec.batch, augmentation: spec.augmentation }
}

pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The nearest whole number; what is negative or no number is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
