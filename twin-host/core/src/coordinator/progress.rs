//! How far a job and its devices are, in the form that survives the host's end: what the shell writes down before it
//! does what the coordinator wants, and what a job goes on from.

use core::time::Duration;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use twin_shared::id::{BlobHash, DeviceId};
use twin_shared::model::Site;
use twin_shared::wire::{Sparing, TrainedEpoch, TwinDocument};

use super::StudentAt;
use super::message::{Allotment, Measured};
use super::phase::{Confirmation, Departure, HostEpoch, LocalEpoch, Phase, Running};

/// How far a job is as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobProgress {
    /// Datasets are copied to the twins.
    Gathering,
    /// The teacher is trained over these twins.
    Teaching(Vec<(DeviceId, BlobHash)>),
    /// The teacher has these weights; students are trained.
    Distilling {
        /// The teacher's weights.
        teacher: BlobHash,
        /// The twins that it was trained over.
        twins: Vec<(DeviceId, BlobHash)>,
    },
}

/// How far a device is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What it was allotted last; its student is fixed by it.
    pub(super) allotment: Option<Allotment>,
    /// Whether the board has failed to train this student.
    pub(super) unfit: bool,
    pub(super) standing: Standing,
}

impl JobProgress {
    /// The dataset of a device that the job's teacher is, or was, trained over.
    #[must_use]
    pub fn dataset(&self, device: &DeviceId) -> Option<BlobHash> {
        match self {
            Self::Gathering => None,
            Self::Teaching(twins) | Self::Distilling { twins, .. } => {
                twins.iter().find(|(twin, _)| twin == device).map(|(_, dataset)| *dataset)
            }
        }
    }

    /// One word for people.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Gathering => "gathering",
            Self::Teaching(_) => "teaching",
            Self::Distilling { .. } => "distilling",
        }
    }
}

impl Progress {
    /// One word for people: where the device stands.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match &self.standing {
            Standing::Before => "waiting",
            Standing::Local { .. } => "local",
            Standing::Host { .. } => "host",
            Standing::Confirming { .. } => "confirming",
            Standing::Finished { .. } => "finished",
            Standing::Left { .. } => "left",
        }
    }

    /// Why the device takes no part, where it does not.
    #[must_use]
    pub fn left(&self) -> Option<String> {
        match &self.standing {
            Standing::Left { why, .. } => Some(why.to_string()),
            Standing::Before
            | Standing::Local { .. }
            | Standing::Host { .. }
            | Standing::Confirming { .. }
            | Standing::Finished { .. } => None,
        }
    }

    /// Every blob of the device that this names: what must be there when the job goes on from here.
    #[must_use]
    pub fn blobs(&self) -> BTreeSet<BlobHash> {
        let of = |student: &StudentAt| [student.state, student.common.state];
        let mut blobs = BTreeSet::new();
        match &self.standing {
            Standing::Before => {}
            Standing::Local { student, allotment: _, blocks, trained, arrived } => {
                blobs.extend(of(student));
                blobs.extend(blocks.iter().map(|(_, blob)| *blob));
                blobs.extend(trained.map(|trained| trained.state));
                blobs.extend(*arrived);
            }
            Standing::Host { student, allotment: _, sparing, trained } => {
                blobs.extend(of(student));
                blobs.extend(sparing.map(|sparing| sparing.common));
                blobs.extend(trained.map(|(state, _)| state));
            }
            Standing::Confirming { student, document, allotment: _, site: _, loss: _, measured: _ } => {
                blobs.extend(of(student));
                blobs.insert(document.state);
            }
            Standing::Finished { state } => {
                blobs.insert(*state);
            }
            Standing::Left { why: _, student } => blobs.extend(student.iter().flat_map(of)),
        }
        blobs
    }

    /// The student at the end, once all its epochs are done.
    #[must_use]
    pub const fn finished(&self) -> Option<BlobHash> {
        match &self.standing {
            Standing::Finished { state } => Some(*state),
            Standing::Before
            | Standing::Local { .. }
            | Standing::Host { .. }
            | Standing::Confirming { .. }
            | Standing::Left { .. } => None,
        }
    }
}

/// A device's place on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// It has no student yet.
    Before,
    /// An epoch on the board.
    Local {
        student: StudentAt,
        allotment: Allotment,
        blocks: Vec<(u32, BlobHash)>,
        trained: Option<TrainedEpoch>,
        arrived: Option<BlobHash>,
    },
    /// An epoch on the host; the state after it and its loss, once trained.
    Host { student: StudentAt, allotment: Allotment, sparing: Option<Sparing>, trained: Option<(BlobHash, f32)> },
    /// An epoch that both sides should hold alike.
    Confirming {
        student: StudentAt,
        allotment: Allotment,
        site: Site,
        document: TwinDocument,
        loss: f32,
        measured: Measured,
    },
    /// All epochs are done.
    Finished { state: BlobHash },
    /// It takes no part.
    Left { why: Departure, student: Option<StudentAt> },
}

impl Standing {
    pub(super) fn of(phase: &Phase) -> Self {
        match phase {
            Phase::Absent | Phase::Copying | Phase::Counting | Phase::Ready | Phase::Starting => Self::Before,
            Phase::Local(LocalEpoch { run, blocks, trained, arrived, .. }) => Self::Local {
                student: run.student,
                allotment: run.allotment,
                blocks: blocks.clone(),
                trained: trained.map(|(_, trained)| TrainedEpoch { loss: finite(trained.loss), ..trained }),
                arrived: arrived.map(|(_, state)| state),
            },
            // The board's own late attempt is not gone on with: the host is at it.
            Phase::Host(HostEpoch { run, sparing, trained, late: _ }) => Self::Host {
                student: run.student,
                allotment: run.allotment,
                sparing: *sparing,
                trained: trained.map(|(_, state, loss)| (state, finite(loss))),
            },
            Phase::Confirming(Confirmation { run, site, document, loss, measured }) => Self::Confirming {
                student: run.student,
                allotment: run.allotment,
                site: *site,
                document: *document,
                loss: finite(*loss),
                measured: *measured,
            },
            Phase::Finished { state } => Self::Finished { state: *state },
            Phase::Left { why, student } => Self::Left { why: why.clone(), student: *student },
        }
    }

    /// The phase that goes on from here. What was being timed is timed from `now` on. `Before` is absent, until the
    /// board says what it has.
    pub(super) fn into_phase(self, now: Duration, deadline: impl FnOnce(&Allotment) -> Duration) -> Phase {
        let running = |student, allotment| Running { student, allotment, since: now };
        match self {
            Self::Before => Phase::Absent,
            Self::Local { student, allotment, blocks, trained, arrived } => Phase::Local(LocalEpoch {
                run: running(student, allotment),
                deadline: deadline(&allotment),
                blocks,
                trained: trained.map(|trained| (now, trained)),
                arrived: arrived.map(|state| (now, state)),
            }),
            Self::Host { student, allotment, sparing, trained } => Phase::Host(HostEpoch {
                run: running(student, allotment),
                sparing,
                trained: trained.map(|(state, loss)| (now, state, loss)),
                late: None,
            }),
            Self::Confirming { student, allotment, site, document, loss, measured } => {
                Phase::Confirming(Confirmation { run: running(student, allotment), site, document, loss, measured })
            }
            Self::Finished { state } => Phase::Finished { state },
            Self::Left { why, student } => Phase::Left { why, student },
        }
    }
}

/// A board may say any loss; what is written down must be a number.
fn finite(loss: f32) -> f32 {
    if loss.is_finite() { loss } else { f32::MAX }
}
