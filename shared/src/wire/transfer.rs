//! Blobs in chunks. The state machines that use these messages are in [`crate::transfer`].

use serde::{Deserialize, Serialize};

use super::Nonce;
use crate::id::{BlobHash, DatasetVersion, JobId, ModelVersion, RoundId};

/// `up/blob` and `dn/blob`. The chunk's bytes are borrowed from the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobMessage<'a> {
    /// Offers a blob, and asks how much of it is held.
    Manifest(Manifest),
    /// A piece of it.
    Chunk {
        /// Which blob.
        blob: BlobHash,
        /// Which piece, from 0.
        index: u32,
        /// The piece; all but the last have the manifest's chunk size.
        #[serde(borrow)]
        bytes: &'a [u8],
    },
}

/// A blob that one side offers to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// BLAKE3 of the whole; its name.
    pub blob: BlobHash,
    /// Its length, bytes.
    pub size: u64,
    /// Length of a chunk, bytes, fixed for this blob.
    pub chunk: u32,
    /// What it is for; the receiver takes only what it expects.
    pub purpose: Purpose,
}

impl Manifest {
    /// How many chunks it has.
    #[must_use]
    pub const fn chunks(&self) -> u64 {
        self.size.div_ceil(if self.chunk == 0 { 1 } else { self.chunk as u64 })
    }

    /// The length of a chunk; the last may be shorter. `None` beyond the last, and of chunks without a length.
    #[must_use]
    pub const fn chunk_length(&self, index: u32) -> Option<u32> {
        let start = index as u64 * self.chunk as u64;
        if self.chunk == 0 || start >= self.size {
            return None;
        }
        let left = self.size - start;
        #[expect(clippy::cast_possible_truncation, reason = "below a u32")]
        Some(if left < self.chunk as u64 { left as u32 } else { self.chunk })
    }
}

/// What a blob is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// A board's dataset, up.
    Dataset(DatasetVersion),
    /// A student state after an epoch: up from a board that trained it, down from the host that did.
    Student {
        /// The job.
        job: JobId,
        /// The epoch.
        round: RoundId,
    },
    /// The student state that a job starts from, down.
    Base {
        /// The job.
        job: JobId,
        /// The first epoch that starts from it.
        round: RoundId,
    },
    /// A block of teacher labels, down.
    Labels {
        /// The job.
        job: JobId,
        /// The epoch.
        round: RoundId,
        /// Which block.
        index: u32,
    },
    /// Samples that were taken while the host was out of reach, up: a [`Batch`](super::telemetry::batch::Batch).
    Telemetry,
    /// Random bytes that measure the way, up; the host sends the same back, and forgets them.
    Probe(Nonce),
    /// What changed between two versions of a board's dataset, up: from one that the twin holds to the present one.
    DatasetDelta {
        /// The version that the twin holds.
        from: DatasetVersion,
        /// The board's.
        to: DatasetVersion,
    },
    /// The host's list of classes, down.
    Classes {
        /// Counts the lists; an older one is refused.
        version: u32,
    },
    /// A model that the board may answer by, down.
    Model {
        /// Which.
        version: ModelVersion,
    },
    /// Pictures that wait for a label on a board whose owner lets the host see them, up. Each takes the place of those
    /// before.
    Waiting,
    /// Labels for some of them, down.
    WaitingLabels,
}

impl Purpose {
    /// The epoch that a blob serves; `None` where it serves no single one.
    #[must_use]
    pub const fn epoch(&self) -> Option<(JobId, RoundId)> {
        match *self {
            Self::Student { job, round } | Self::Base { job, round } | Self::Labels { job, round, .. } => {
                Some((job, round))
            }
            Self::Dataset(_)
            | Self::DatasetDelta { .. }
            | Self::Classes { .. }
            | Self::Model { .. }
            | Self::Telemetry
            | Self::Waiting
            | Self::WaitingLabels
            | Self::Probe(_) => None,
        }
    }
}

/// `up/ack` and `dn/ack`: what the receiver holds of a blob, and how far the sender may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobAck {
    /// Chunks below `base` are held, and those of the bitmap beyond it; chunks below `credit` may be sent.
    Holding {
        /// Which blob.
        blob: BlobHash,
        /// All chunks below this one are held and on disk.
        base: u32,
        /// Bit k: chunk `base + k` is held.
        beyond: u64,
        /// Chunks below this one may be sent.
        credit: u32,
    },
    /// The whole blob is held, its hash is right, and it is on disk for good.
    Complete {
        /// Which blob.
        blob: BlobHash,
    },
    /// The blob is not wanted, or cannot be taken.
    Refused {
        /// Which blob.
        blob: BlobHash,
        /// Why.
        why: Refusal,
    },
}

/// Why a blob is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Nobody asked for it (any more).
    Unexpected,
    /// Larger than its purpose allows, or its chunk size is out of bounds.
    Size,
    /// All chunks came and the hash of the whole is wrong: send again from the start.
    Hash,
    /// The receiver's disk failed.
    Storage,
    /// It is a difference to a state that the receiver does not hold, or a damaged one: send the state whole. From
    /// version 2 on.
    Base,
}
