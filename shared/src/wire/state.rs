//! Who is there and what it can do: birth and last will, the host's state, and the twin document.

use serde::{Deserialize, Serialize};

use crate::id::{BlobHash, DatasetVersion, JobId, RoundId};
use crate::model::Architecture;

/// Wire versions that a side speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest.
    pub oldest: u8,
    /// The newest.
    pub newest: u8,
}

impl VersionRange {
    /// Whether a version is in the range.
    #[must_use]
    pub const fn contains(self, version: u8) -> bool {
        self.oldest <= version && version <= self.newest
    }

    /// The newest version that both sides speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// `up/state`: the birth that a board publishes when it connects, or the last will that the broker publishes for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum BoardState {
    /// The board is connected.
    Online(Birth),
    /// The connection of this birth is gone; of an older birth, the message is stale.
    Offline {
        /// [`Birth::sequence`] of the connection that ended.
        sequence: u64,
    },
}

/// What a board says of itself when it connects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Birth {
    /// Counts the board's connections for ever, kept across reboots: the newer birth wins.
    pub sequence: u64,
    /// Wire versions that it speaks.
    pub versions: VersionRange,
    /// The agent's version.
    pub agent: heapless::String<24>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The dataset it has and offers to its twin.
    pub dataset: Option<DatasetOffer>,
}

/// What a board can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Whether it has a trainer.
    pub can_train: bool,
    /// Whether its compute and link are emulated.
    pub emulated: bool,
    /// Students that fit its memory, for training or for inference alike.
    pub models: heapless::Vec<Architecture, 5>,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Processor cores.
    pub cores: u16,
}

/// A dataset by name and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetOffer {
    /// The hash of its bytes.
    pub version: DatasetVersion,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its samples.
    pub samples: u32,
}

/// `dn/state`: the host as one board sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// Whether the host serves; it says so itself when it stops.
    pub online: bool,
    /// Counts the host's starts for ever: messages of an earlier life are stale.
    pub epoch: u64,
    /// Wire versions that it speaks.
    pub versions: VersionRange,
}

/// `up/ping` and `dn/pong`: a number to be sent back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub u64);

/// `dn/desired` and `up/reported`: the student state that host and board should hold alike. Equal documents are the
/// proof that twin and board are equal: each side hashes what lies on its own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinDocument {
    /// Counts the documents of this device for ever; an older one is refused.
    pub version: u64,
    /// The job.
    pub job: JobId,
    /// The epoch after which the student is in this state.
    pub round: RoundId,
    /// BLAKE3 of the student state.
    pub state: BlobHash,
}
