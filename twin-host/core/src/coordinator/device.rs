//! One device's way through a job.

use core::time::Duration;

use twin_shared::id::{BlobHash, DeviceId, RoundId};
use twin_shared::model::Site;
use twin_shared::plan::EpochPlan;
use twin_shared::units::Seconds;
use twin_shared::wire::{Assignment, FailureCode, Order, Purpose, Reply, Status, TwinDocument};

use super::message::{Allotment, Fatal, Measured, Note, Output, RoundRecord, Task};
use super::phase::{Confirmation, HostEpoch, LocalEpoch, Phase, Running};
use super::{JobSpec, StudentAt};
use crate::twin::{DatasetCounts, Twin};

/// Least time that a board has for an epoch, whatever was predicted: its trainer has to start.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(60);

/// A device and where it stands in the job.
#[derive(Debug)]
pub struct Member {
    /// What is known of the device.
    pub twin: Twin,
    phase: Phase,
    allotment: Option<Allotment>,
    /// Whether the board has failed to train this student: from then on the host does.
    unfit: bool,
    fatal: Option<Fatal>,
}

impl Member {
    pub(super) const fn new(twin: Twin) -> Self {
        Self { twin, phase: Phase::Absent, allotment: None, unfit: false, fatal: None }
    }

    /// Where it stands.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What it was allotted last.
    #[must_use]
    pub const fn allotment(&self) -> Option<&Allotment> {
        self.allotment.as_ref()
    }

    /// Whether the board can train here: it says so, and has not failed to.
    #[must_use]
    pub fn can_train(&self) -> bool {
        !self.unfit && self.twin.birth().is_some_and(|birth| birth.capabilities.can_train)
    }

    /// Whether it takes part in the students' training, now or soon.
    #[must_use]
    pub const fn is_training(&self) -> bool {
        match self.phase {
            Phase::Ready | Phase::Starting | Phase::Local(_) | Phase::Host(_) | Phase::Confirming(_) => true,
            Phase::Absent | Phase::Copying | Phase::Counting | Phase::Finished { .. } | Phase::Left(_) => false,
        }
    }

    pub(super) const fn is_settled(&self) -> bool {
        matches!(self.phase, Phase::Finished { .. } | Phase::Left(_))
    }

    pub(super) const fn take_fatal(&mut self) -> Option<Fatal> {
        self.fatal.take()
    }

    /// The board is there: has the twin its dataset?
    pub(super) fn want_dataset(&mut self, device: &DeviceId, out: &mut Vec<Output>) {
        let Some(offer) = self.twin.birth().and_then(|birth| birth.dataset) else {
            out.push(Output::Note(Note::Refused(device.clone(), "the board has no dataset".into())));
            return;
        };
        match self.twin.dataset() {
            Some(held) if held.version == offer.version => {
                let blob = held.blob;
                self.count(device, blob, out);
            }
            Some(_) | None => {
                out.push(Output::Command(device.clone(), Order::SendDataset(offer.version)));
                self.phase = Phase::Copying;
            }
        }
    }

    /// The twin's dataset is there: count it, unless that was done.
    pub(super) fn count(&mut self, device: &DeviceId, dataset: BlobHash, out: &mut Vec<Output>) {
        if self.twin.counts().is_some() {
            self.phase = Phase::Ready;
        } else if matches!(self.phase, Phase::Absent | Phase::Copying) {
            out.push(Output::Run(Task::Count { device: device.clone(), dataset }));
            self.phase = Phase::Counting;
        }
    }

    pub(super) fn on_counted(&mut self, counts: DatasetCounts) {
        if let Some(mut dataset) = self.twin.dataset().cloned() {
            dataset.counts = Some(counts);
            self.twin.hold_dataset(dataset);
        }
        if self.phase == Phase::Counting {
            self.phase = Phase::Ready;
        }
    }

    /// A decision: the first one makes the student, later ones move it from the next epoch on.
    pub(super) fn allot(&mut self, device: &DeviceId, allotment: Allotment, out: &mut Vec<Output>) {
        if let Some(fixed) = self.allotment {
            // A student is fixed for a job.
            if fixed.architecture != allotment.architecture {
                return;
            }
        }
        self.allotment = Some(allotment);
        out.push(Output::Share(device.clone(), allotment));
        if self.phase == Phase::Ready {
            out.push(Output::Run(Task::Init { device: device.clone(), architecture: allotment.architecture }));
            self.phase = Phase::Starting;
        }
    }

    /// The first state is made.
    pub(super) fn start(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        state: BlobHash,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        if let (Phase::Starting, Some(allotment)) = (&self.phase, self.allotment) {
            let student = StudentAt { architecture: allotment.architecture, round: RoundId(0), state, site: None };
            self.begin(spec, device, student, now, out);
        }
    }

    /// Begins an epoch where the allotment says.
    fn begin(&mut self, spec: &JobSpec, device: &DeviceId, student: StudentAt, now: Duration, out: &mut Vec<Output>) {
        let Some(mut allotment) = self.allotment else { return };
        if !self.can_train() {
            allotment.site = Site::Host;
        }
        let run = Running { student, allotment, since: now };
        match allotment.site {
            Site::Local => {
                let predicted =
                    Duration::from_secs_f64((allotment.predicted.total().0 * spec.deadline_factor).clamp(0.0, 1e7));
                let deadline = now + predicted.max(SHORTEST_DEADLINE);
                self.phase =
                    Phase::Local(LocalEpoch { run, deadline, blocks: Vec::new(), trained: None, arrived: None });
                self.assign(spec, device, out);
                out.push(Output::Run(Task::Labels { device: device.clone(), round: student.round }));
            }
            Site::Host => {
                self.phase = Phase::Host(HostEpoch { run, trained: None });
                self.assign(spec, device, out);
                out.push(Output::Run(epoch_task(device, &student)));
            }
        }
    }

    /// Tells the board of the epoch in progress, and sends what it needs; again after it was away.
    fn assign(&self, spec: &JobSpec, device: &DeviceId, out: &mut Vec<Output>) {
        let (run, site) = match &self.phase {
            Phase::Local(epoch) => (&epoch.run, Site::Local),
            Phase::Host(epoch) => (&epoch.run, Site::Host),
            Phase::Absent
            | Phase::Copying
            | Phase::Counting
            | Phase::Ready
            | Phase::Starting
            | Phase::Confirming(_)
            | Phase::Finished { .. }
            | Phase::Left(_) => return,
        };
        let round = run.student.round;
        let order = Order::Assign(Assignment {
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
            deadline_ms: whole(run.allotment.predicted.total().0 * spec.deadline_factor * 1e3),
        });
        out.push(Output::Command(device.clone(), order));
        if let Phase::Local(epoch) = &self.phase {
            let base = Purpose::Base { job: spec.job, round };
            out.push(Output::Send(device.clone(), run.student.state, base));
            for &(index, blob) in &epoch.blocks {
                out.push(Output::Send(device.clone(), blob, Purpose::Labels { job: spec.job, round, index }));
            }
        }
    }

    /// The board was away, rebooted perhaps: say again what is wanted of it.
    pub(super) fn resume(&self, spec: &JobSpec, device: &DeviceId, out: &mut Vec<Output>) {
        self.assign(spec, device, out);
        if let Phase::Host(HostEpoch { run, trained: Some((_, state, _)) }) = &self.phase {
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
    pub(super) fn on_block(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        round: RoundId,
        index: u32,
        blob: BlobHash,
        out: &mut Vec<Output>,
    ) {
        if let Phase::Local(epoch) = &mut self.phase
            && epoch.run.student.round == round
        {
            epoch.blocks.push((index, blob));
            out.push(Output::Send(device.clone(), blob, Purpose::Labels { job: spec.job, round, index }));
        }
    }

    pub(super) fn on_reply(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        reply: Reply,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        match reply.status {
            Status::Accepted | Status::Running { .. } | Status::Done | Status::Calibrated(_) => {}
            Status::Trained(trained) if trained.job == spec.job => {
                if let Phase::Local(epoch) = &mut self.phase
                    && epoch.run.student.round == trained.round
                {
                    epoch.trained = Some((now, trained));
                    self.settle_local(spec, device, out);
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
    pub(super) fn on_state(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        round: RoundId,
        blob: BlobHash,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        match &mut self.phase {
            Phase::Local(epoch) if epoch.run.student.round == round => {
                epoch.arrived = Some((now, blob));
                self.settle_local(spec, device, out);
            }
            Phase::Local(_)
            | Phase::Host(_)
            | Phase::Absent
            | Phase::Copying
            | Phase::Counting
            | Phase::Ready
            | Phase::Starting
            | Phase::Confirming(_)
            | Phase::Finished { .. }
            | Phase::Left(_) => {
                let text = format!("a student state of epoch {round} came too late");
                out.push(Output::Note(Note::Refused(device.clone(), text)));
            }
        }
    }

    /// The board has said that it trained, and the state is here: both, in either order.
    fn settle_local(&mut self, spec: &JobSpec, device: &DeviceId, out: &mut Vec<Output>) {
        let Phase::Local(epoch) = &self.phase else { return };
        let (Some((trained_at, trained)), Some((arrived_at, state))) = (epoch.trained, epoch.arrived) else {
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
        let training = Seconds(seconds(trained_at.saturating_sub(epoch.run.since)));
        let measured = Measured {
            training,
            starved: Seconds(Duration::from_millis(trained.starved_ms).as_secs_f64()),
            transfer: Seconds(seconds(arrived_at.saturating_sub(trained_at))),
            total: Seconds(0.0),
        };
        let run = epoch.run;
        self.confirm(spec, device, run, Site::Local, state, trained.loss, measured, out);
    }

    /// The host's trainer has finished an epoch.
    #[expect(clippy::too_many_arguments, reason = "what the trainer says, and where it goes")]
    pub(super) fn on_trained_here(
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
            epoch.trained = Some((now, state, loss));
            out.push(Output::Send(device.clone(), state, Purpose::Student { job: spec.job, round }));
        }
    }

    /// The board holds the state that the host trained.
    pub(super) fn on_sent(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        round: RoundId,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        let Phase::Host(HostEpoch { run, trained: Some((trained_at, state, loss)) }) = self.phase else {
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

    #[expect(clippy::too_many_arguments, reason = "all of an epoch's record")]
    fn confirm(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        run: Running,
        site: Site,
        state: BlobHash,
        loss: f32,
        measured: Measured,
        out: &mut Vec<Output>,
    ) {
        let document =
            TwinDocument { version: self.twin.next_document(), job: spec.job, round: run.student.round, state };
        out.push(Output::Desired(device.clone(), document));
        self.phase = Phase::Confirming(Confirmation { run, site, document, loss, measured });
    }

    /// The board's own document. Equal to the twin's, the epoch is done; of the same version and unequal, the run is
    /// broken.
    pub(super) fn on_reported(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        reported: &TwinDocument,
        now: Duration,
        out: &mut Vec<Output>,
    ) -> Option<RoundRecord> {
        let Phase::Confirming(confirmation) = &self.phase else {
            return None;
        };
        let wanted = confirmation.document;
        if reported.version != wanted.version {
            // Retained from before; the one that is wanted comes after it.
            return None;
        }
        if *reported != wanted {
            let (device, round) = (device.clone(), wanted.round);
            self.fatal = Some(Fatal::Unequal { device, round, board: reported.state, twin: wanted.state });
            return None;
        }
        let Confirmation { run, site, loss, mut measured, .. } = *confirmation;
        measured.total = Seconds(seconds(now.saturating_sub(run.since)));
        let student =
            StudentAt { round: RoundId(wanted.round.0 + 1), state: wanted.state, site: Some(site), ..run.student };
        self.phase = Phase::Confirming(Confirmation { run: Running { student, ..run }, ..confirmation.clone() });
        out.push(Output::Forget(device.clone(), wanted.round));
        let round = wanted.round;
        let plan = plan(spec, round);
        let (allotment, state, board_state) = (run.allotment, wanted.state, reported.state);
        let device = device.clone();
        Some(RoundRecord { device, round, allotment, site, state, board_state, loss, measured, plan })
    }

    /// Goes on from a confirmed epoch.
    pub(super) fn next_round(&mut self, spec: &JobSpec, device: &DeviceId, now: Duration, out: &mut Vec<Output>) {
        let Phase::Confirming(Confirmation { run: Running { student, .. }, .. }) = self.phase else {
            return;
        };
        if student.round.0 < spec.recipe.epochs {
            self.begin(spec, device, student, now, out);
        } else {
            self.phase = Phase::Finished { state: student.state };
        }
    }

    /// The board cannot train this epoch, or not in time: the host does.
    fn offload(&mut self, spec: &JobSpec, device: &DeviceId, why: String, now: Duration, out: &mut Vec<Output>) {
        let Phase::Local(epoch) = &self.phase else { return };
        let (student, allotment) = (epoch.run.student, epoch.run.allotment);
        out.push(Output::Cancel(Task::Labels { device: device.clone(), round: student.round }));
        out.push(Output::Forget(device.clone(), student.round));
        out.push(Output::Note(Note::Offloaded { device: device.clone(), round: student.round, why }));
        let run = Running { student, allotment: Allotment { site: Site::Host, ..allotment }, since: now };
        self.phase = Phase::Host(HostEpoch { run, trained: None });
        self.assign(spec, device, out);
        out.push(Output::Run(epoch_task(device, &student)));
    }

    /// Deadlines, and the patience with boards that are away.
    pub(super) fn on_time(&mut self, spec: &JobSpec, device: &DeviceId, now: Duration, out: &mut Vec<Output>) {
        if self.is_settled() {
            return;
        }
        if self.twin.away_for(now).is_some_and(|away| away >= spec.patience) {
            self.leave(device, "it stayed away".into(), out);
        } else if matches!(&self.phase, Phase::Local(epoch) if now >= epoch.deadline) {
            self.offload(spec, device, "it missed the deadline".into(), now, out);
        }
    }

    /// The device takes no further part.
    pub(super) fn leave(&mut self, device: &DeviceId, why: String, out: &mut Vec<Output>) {
        match &self.phase {
            Phase::Local(epoch) => {
                out.push(Output::Cancel(Task::Labels { device: device.clone(), round: epoch.run.student.round }));
            }
            Phase::Host(epoch) => out.push(Output::Cancel(epoch_task(device, &epoch.run.student))),
            Phase::Absent
            | Phase::Copying
            | Phase::Counting
            | Phase::Ready
            | Phase::Starting
            | Phase::Confirming(_)
            | Phase::Finished { .. }
            | Phase::Left(_) => {}
        }
        out.push(Output::Note(Note::Left(device.clone(), why.clone())));
        self.phase = Phase::Left(why);
    }
}

/// Momentum is kept only where the epoch before was trained: it does not travel.
fn epoch_task(device: &DeviceId, student: &StudentAt) -> Task {
    Task::Epoch {
        device: device.clone(),
        round: student.round,
        architecture: student.architecture,
        base: student.state,
        keeps_momentum: student.site == Some(Site::Host),
    }
}

/// The batches of an epoch, the same for board, labels and host.
#[must_use]
pub(super) fn plan(spec: &JobSpec, round: RoundId) -> EpochPlan {
    EpochPlan { seed: spec.seed, epoch: round.0, batch: spec.batch, augmentation: spec.augmentation }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The nearest whole number; what is negative or no number is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
