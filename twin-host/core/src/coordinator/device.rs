//! One device's way through a job.

mod confirm;
mod epoch;

use core::time::Duration;
use std::collections::BTreeSet;

use twin_shared::id::{BlobHash, DeviceId, RoundId};
use twin_shared::model::Site;
use twin_shared::wire::Order;

use super::message::{Allotment, Fatal, Note, Output, Task};
use super::phase::{Departure, Phase};
use super::progress::{Progress, Standing};
use super::{JobSpec, StudentAt};
use crate::twin::{DatasetCounts, Twin};

/// The version of the wire from which on a board sends what changed in its dataset.
const DELTA_VERSION: u8 = 2;

/// How long after a refusal a board is told again what is wanted of it.
const SAY_AGAIN: Duration = Duration::from_secs(2);

/// A device and where it stands in the job.
#[derive(Debug)]
pub struct Member {
    /// What is known of the device.
    pub twin: Twin,
    phase: Phase,
    allotment: Option<Allotment>,
    /// Whether the board has failed to train this student: from then on the host does.
    unfit: bool,
    /// Since when the job waits for the board to be seen, or for its dataset.
    since: Duration,
    /// When the board is told again what is wanted of it: it has refused what the epoch needs.
    again: Option<Duration>,
    fatal: Option<Fatal>,
}

impl Member {
    pub(super) const fn new(twin: Twin, now: Duration) -> Self {
        Self { twin, phase: Phase::Absent, allotment: None, unfit: false, since: now, again: None, fatal: None }
    }

    /// Goes on from what was written down; the host's own work is wanted at once.
    pub(super) fn resume(
        spec: &JobSpec,
        device: &DeviceId,
        twin: Twin,
        progress: Progress,
        now: Duration,
        out: &mut Vec<Output>,
    ) -> Self {
        let Progress { allotment, unfit, standing } = progress;
        let phase = standing.into_phase(now, |allotment| epoch::deadline(spec, allotment, now));
        let member = Self { twin, phase, allotment, unfit, since: now, again: None, fatal: None };
        out.extend(allotment.map(|allotment| Output::Share(device.clone(), allotment)));
        out.extend(member.own_work(spec, device).map(Output::Run));
        member
    }

    /// How far it is, to be written down.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { allotment: self.allotment, unfit: self.unfit, standing: Standing::of(&self.phase) }
    }

    /// Every blob of the device that the job may come back to: what is written down, and what has come of an attempt
    /// that is late.
    #[must_use]
    pub fn blobs(&self) -> BTreeSet<BlobHash> {
        let mut blobs = self.progress().blobs();
        if let Some(attempt) = self.phase.attempt() {
            blobs.extend(attempt.blocks.iter().map(|(_, blob)| *blob));
            blobs.extend(attempt.arrived.map(|(_, state)| state));
        }
        blobs
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

    /// Whether the board can train here: it says so, and has not failed to. One that has not spoken since the host
    /// began is taken to be as it was.
    #[must_use]
    pub fn can_train(&self) -> bool {
        let says_so = match self.twin.birth() {
            Some(birth) => birth.capabilities.can_train,
            None => self.allotment.is_some_and(|allotment| allotment.site == Site::Local),
        };
        !self.unfit && says_so
    }

    /// Whether it takes part in the students' training, now or soon.
    #[must_use]
    pub const fn is_training(&self) -> bool {
        self.phase.is_training()
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.phase.is_settled()
    }

    pub(super) const fn take_fatal(&mut self) -> Option<Fatal> {
        self.fatal.take()
    }

    /// The board is there, and goes on with what it was waited for. Whether it was waited for.
    pub(super) fn come_back(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        now: Duration,
        out: &mut Vec<Output>,
    ) -> bool {
        let student = if let Phase::Left { why, student } = &self.phase {
            if !why.may_return() {
                return false;
            }
            *student
        } else if self.phase.awaits_dataset() {
            None
        } else {
            return false;
        };
        self.since = now;
        match student {
            Some(student) => self.begin(spec, device, student, now, out),
            None => {
                self.phase = Phase::Absent;
                self.want_dataset(device, out);
            }
        }
        true
    }

    /// Has the twin the dataset that the board offers?
    fn want_dataset(&mut self, device: &DeviceId, out: &mut Vec<Output>) {
        let Some(offer) = self.twin.birth().and_then(|birth| birth.dataset) else {
            out.push(Output::Note(Note::Refused(device.clone(), "the board has no dataset".into())));
            return;
        };
        match self.twin.dataset() {
            Some(held) if held.version == offer.version => {
                let blob = held.blob;
                self.count(device, blob, out);
            }
            Some(held) if self.twin.speaks(DELTA_VERSION) => {
                // Only what changed: the board says by what it sends whether it knows the difference.
                let order = Order::SendDelta { from: held.version, to: offer.version };
                out.push(Output::Command(device.clone(), order));
                self.phase = Phase::Copying;
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
        } else if self.phase.awaits_dataset() {
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
            let student = StudentAt::fresh(allotment.architecture, state);
            self.begin(spec, device, student, now, out);
        }
    }

    /// The board did not expect a blob of an epoch. One that comes back may hear of the blob before it hears of the
    /// epoch: it is told again, in a while, lest two that never agree say so without a pause.
    pub(super) fn on_unexpected(&mut self, round: RoundId, now: Duration) {
        if self.phase.epoch().is_some_and(|(run, _)| run.student.round == round) {
            self.again.get_or_insert(now + SAY_AGAIN);
        }
    }

    /// Deadlines, and the patience with boards that are away.
    pub(super) fn on_time(&mut self, spec: &JobSpec, device: &DeviceId, now: Duration, out: &mut Vec<Output>) {
        if self.is_settled() {
            return;
        }
        if self.again.take_if(|at| now >= *at).is_some() {
            self.say_again(spec, device, out);
        }
        let waited = now.saturating_sub(self.since);
        let unseen = self.twin.birth().is_none().then_some(waited);
        if self.phase.awaits_dataset() && waited >= spec.patience {
            self.leave(device, Departure::Late, out);
        } else if self.twin.away_for(now).or(unseen).is_some_and(|away| away >= spec.patience) {
            self.leave(device, Departure::Away, out);
        } else if matches!(&self.phase, Phase::Local(epoch) if now >= epoch.deadline) {
            self.miss(spec, device, now, out);
        }
    }

    /// The device takes no further part.
    pub(super) fn leave(&mut self, device: &DeviceId, why: Departure, out: &mut Vec<Output>) {
        if let Some(attempt) = self.phase.attempt() {
            out.push(Output::Cancel(Task::Labels { device: device.clone(), round: attempt.run.student.round }));
        }
        if let Phase::Host(epoch) = &self.phase {
            out.push(Output::Cancel(epoch.task(device)));
        }
        out.push(Output::Note(Note::Left(device.clone(), why.to_string())));
        self.phase = Phase::Left { why, student: self.phase.student() };
    }
}
