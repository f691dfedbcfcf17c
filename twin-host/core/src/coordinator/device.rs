//! One device's way through a job.

mod confirm;
mod epoch;

use core::time::Duration;

use twin_shared::id::{BlobHash, DeviceId, RoundId};
use twin_shared::model::Site;
use twin_shared::wire::Order;

use super::message::{Allotment, Fatal, Note, Output, Task};
use super::phase::Phase;
use super::{JobSpec, StudentAt};
use crate::twin::{DatasetCounts, Twin};

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
        self.phase.is_training()
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.phase.is_settled()
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
            let student = StudentAt { architecture: allotment.architecture, round: RoundId(0), state, site: None };
            self.begin(spec, device, student, now, out);
        }
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
        match self.phase.epoch() {
            Some((run, Site::Local)) => {
                out.push(Output::Cancel(Task::Labels { device: device.clone(), round: run.student.round }));
            }
            Some((run, Site::Host)) => out.push(Output::Cancel(epoch::epoch_task(device, &run.student))),
            None => {}
        }
        out.push(Output::Note(Note::Left(device.clone(), why.clone())));
        self.phase = Phase::Left(why);
    }
}
