//! Orders to a board.

use serde::{Deserialize, Serialize};

use crate::id::{BlobHash, DatasetVersion, JobId, ModelVersion, RoundId};
use crate::model::{Architecture, Site};
use crate::plan::{Compression, EpochPlan, LabelKind, Method, Recipe};

/// `dn/command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Numbers the host's commands; replies name it. The same number again is the same command again.
    pub id: u64,
    /// What to do.
    pub order: Order,
}

/// What the host wants of a board.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Publish the birth again.
    Rebirth,
    /// Send the dataset of this version to the twin.
    SendDataset(DatasetVersion),
    /// One epoch of this board's student.
    Assign(Assignment),
    /// The job is over, or the host gives it up.
    Stop(JobId),
    /// Say what training takes here: measured now, or from an earlier measurement that still holds. Answered by
    /// [`Status::Calibrated`](super::Status::Calibrated) in any case.
    Calibrate {
        /// Samples of a mini-batch to measure with.
        batch: u32,
    },
    /// One epoch of this board's student on this version of its dataset, with bytes spared; from version 2 on.
    AssignOn {
        /// The dataset whose samples are meant.
        dataset: DatasetVersion,
        /// The epoch.
        assignment: Assignment,
        /// What is spared.
        sparing: Sparing,
    },
    /// Send what changed from one version of the dataset, which the twin holds, to the present one. A board that
    /// does not remember the first sends the second whole.
    SendDelta {
        /// The version that the twin holds.
        from: DatasetVersion,
        /// The version that the board offers.
        to: DatasetVersion,
    },
    /// Answer by this model from now on. A board that does not hold it waits for its bundle.
    Activate(ModelOffer),
}

/// A model that the host offers to a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOffer {
    /// Which model.
    pub version: ModelVersion,
    /// The job that made it.
    pub job: JobId,
    /// The blob that holds it.
    pub bundle: BlobHash,
    /// Its length, bytes.
    pub bytes: u64,
}

/// How an epoch's state travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sparing {
    /// What its difference is rounded to.
    pub compression: Compression,
    /// The state that both sides hold: differences are to it.
    pub common: BlobHash,
    /// Whether the state is sent after this epoch, or kept where it was trained until a later one.
    pub upload: bool,
}

impl Sparing {
    /// Nothing is spared: the state is sent whole after the epoch.
    #[must_use]
    pub const fn nothing(base: BlobHash) -> Self {
        Self { compression: Compression::None, common: base, upload: true }
    }
}

/// One epoch: who trains what, where, and with which share of the link.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// The job.
    pub job: JobId,
    /// The epoch. A student state of another epoch is late and refused.
    pub round: RoundId,
    /// The student; fixed for a job.
    pub architecture: Architecture,
    /// Where this epoch is trained. On [`Site::Host`] the board only receives the state after it.
    pub site: Site,
    /// The student state to start from, as the twin holds it.
    pub base: BlobHash,
    /// Order and augmentation.
    pub plan: EpochPlan,
    /// The optimiser.
    pub recipe: Recipe,
    /// The loss.
    pub method: Method,
    /// The form of the labels that will come.
    pub labels: LabelKind,
    /// Samples of the dataset that are trained on (the rest is held out), so that batches can be counted.
    pub samples: u32,
    /// Mini-batches that one block of labels covers.
    pub batches_per_block: u32,
    /// What the board may send, Eq. (1), bits a second.
    pub uplink_bits_per_second: u64,
    /// After this the host goes on without this epoch's state. A duration on the receiver's clock, milliseconds.
    pub deadline_ms: u64,
}
