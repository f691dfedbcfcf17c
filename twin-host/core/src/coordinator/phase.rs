//! Where a device stands in a job, and what it has got there.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use twin_shared::id::{BlobHash, DeviceId};
use twin_shared::model::Site;
use twin_shared::wire::{Sparing, TrainedEpoch, TwinDocument};

use super::StudentAt;
use super::message::{Allotment, Measured, Task};

/// Where a device stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// It has not been seen.
    Absent,
    /// Its dataset is on its way to the twin.
    Copying,
    /// The trainer counts the samples.
    Counting,
    /// Its dataset is there and counted.
    Ready,
    /// Its student is being made.
    Starting,
    /// An epoch is trained on the board.
    Local(LocalEpoch),
    /// An epoch is trained on the host.
    Host(HostEpoch),
    /// An epoch is trained, both sides have its state, and the board is asked to say so.
    Confirming(Confirmation),
    /// All its epochs are done.
    Finished {
        /// The student at the end.
        state: BlobHash,
    },
    /// It takes no part, unless it may return.
    Left {
        /// Why.
        why: Departure,
        /// What it goes on from if it returns.
        student: Option<StudentAt>,
    },
}

/// Why a device takes no part in a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Departure {
    /// It did not bring its dataset in time. It may return.
    Late,
    /// It stayed away for longer than the job's patience. It may return.
    Away,
    /// It was taken out of the job, locked out or forgotten.
    Removed,
    /// The trainer cannot read its dataset; what it says.
    Unreadable(String),
}

impl Departure {
    /// Whether the device goes on where it was when it comes back.
    #[must_use]
    pub const fn may_return(&self) -> bool {
        match self {
            Self::Late | Self::Away => true,
            Self::Removed | Self::Unreadable(_) => false,
        }
    }
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("it did not bring its dataset in time"),
            Self::Away => f.write_str("it stayed away"),
            Self::Removed => f.write_str("it was taken out of the job"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

impl Phase {
    /// Whether the device's dataset is not here yet.
    #[must_use]
    pub const fn awaits_dataset(&self) -> bool {
        match self {
            Self::Absent | Self::Copying => true,
            Self::Counting
            | Self::Ready
            | Self::Starting
            | Self::Local(_)
            | Self::Host(_)
            | Self::Confirming(_)
            | Self::Finished { .. }
            | Self::Left { .. } => false,
        }
    }

    /// Whether the device takes part in the students' training, now or soon.
    #[must_use]
    pub const fn is_training(&self) -> bool {
        match self {
            Self::Ready | Self::Starting | Self::Local(_) | Self::Host(_) | Self::Confirming(_) => true,
            Self::Absent | Self::Copying | Self::Counting | Self::Finished { .. } | Self::Left { .. } => false,
        }
    }

    /// Whether nothing more will come of the device.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Left { .. })
    }

    /// The student that the device's next epoch starts from, where it has one.
    pub(super) const fn student(&self) -> Option<StudentAt> {
        match self {
            Self::Local(LocalEpoch { run, .. })
            | Self::Host(HostEpoch { run, .. })
            | Self::Confirming(Confirmation { run, .. }) => Some(run.student),
            Self::Left { student, .. } => *student,
            Self::Absent | Self::Copying | Self::Counting | Self::Ready | Self::Starting | Self::Finished { .. } => {
                None
            }
        }
    }

    /// The board's own attempt at the epoch: in time, or late and not overtaken yet.
    #[must_use]
    pub(super) fn attempt(&self) -> Option<&LocalEpoch> {
        match self {
            Self::Local(epoch) => Some(epoch),
            Self::Host(epoch) => epoch.late.as_deref(),
            Self::Absent
            | Self::Copying
            | Self::Counting
            | Self::Ready
            | Self::Starting
            | Self::Confirming(_)
            | Self::Finished { .. }
            | Self::Left { .. } => None,
        }
    }

    /// As [`Self::attempt`], to be changed.
    pub(super) fn attempt_mut(&mut self) -> Option<&mut LocalEpoch> {
        match self {
            Self::Local(epoch) => Some(epoch),
            Self::Host(epoch) => epoch.late.as_deref_mut(),
            Self::Absent
            | Self::Copying
            | Self::Counting
            | Self::Ready
            | Self::Starting
            | Self::Confirming(_)
            | Self::Finished { .. }
            | Self::Left { .. } => None,
        }
    }

    /// The epoch that is being trained, and where, as the board was told.
    #[must_use]
    pub(super) fn epoch(&self) -> Option<(&Running, Site)> {
        if let Some(attempt) = self.attempt() {
            return Some((&attempt.run, Site::Local));
        }
        match self {
            Self::Local(epoch) => Some((&epoch.run, Site::Local)),
            Self::Host(epoch) => Some((&epoch.run, Site::Host)),
            Self::Absent
            | Self::Copying
            | Self::Counting
            | Self::Ready
            | Self::Starting
            | Self::Confirming(_)
            | Self::Finished { .. }
            | Self::Left { .. } => None,
        }
    }
}

/// What every epoch in progress has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Running {
    pub(super) student: StudentAt,
    pub(super) allotment: Allotment,
    pub(super) since: Duration,
}

/// An epoch on the board.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalEpoch {
    pub(super) run: Running,
    pub(super) deadline: Duration,
    /// Blocks of labels that exist, by number.
    pub(super) blocks: Vec<(u32, BlobHash)>,
    pub(super) trained: Option<(Duration, TrainedEpoch)>,
    pub(super) arrived: Option<(Duration, BlobHash)>,
}

/// An epoch on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostEpoch {
    pub(super) run: Running,
    /// How the state will travel; none is whole, or not at all.
    pub(super) sparing: Option<Sparing>,
    pub(super) trained: Option<(Duration, BlobHash, f32)>,
    /// The board's own attempt at the same epoch from the same base, which missed its deadline: whoever is done first
    /// has trained it.
    pub(super) late: Option<Box<LocalEpoch>>,
}

impl HostEpoch {
    /// The trainer's task. Momentum is kept only where the epoch before was trained: it does not travel.
    pub(super) fn task(&self, device: &DeviceId) -> Task {
        let student = &self.run.student;
        Task::Epoch {
            device: device.clone(),
            round: student.round,
            architecture: student.architecture,
            base: student.state,
            keeps_momentum: student.site == Some(Site::Host),
            sparing: self.sparing,
        }
    }
}

/// An epoch that both sides should hold alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Confirmation {
    pub(super) run: Running,
    pub(super) site: Site,
    pub(super) document: TwinDocument,
    pub(super) loss: f32,
    pub(super) measured: Measured,
}
