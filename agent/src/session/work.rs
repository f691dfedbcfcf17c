//! What a board is doing about its assignment.

use std::collections::BTreeMap;
use std::time::Duration;

use twin_shared::id::{BlobHash, DatasetVersion, JobId, RoundId};
use twin_shared::model::Site;
use twin_shared::pipe::Ticket;
use twin_shared::plan::Method;
use twin_shared::wire::{Assignment, Sparing};

/// What a board is doing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    /// Nothing.
    Idle,
    /// A student that the host trains is to come.
    Awaiting(Epoch),
    /// Base state and labels are coming.
    Receiving(Receiving),
    /// The trainer has the epoch.
    Training(Training),
    /// The trainer has finished, and its file is being taken in.
    Keeping(Keeping),
    /// The trained state is on its way to the host.
    Uploading(Epoch),
}

/// An assignment, and the command that last spoke of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Epoch {
    pub(super) command: u64,
    pub(super) assignment: Assignment,
    pub(super) sparing: Sparing,
    /// The version of the dataset that it is trained on.
    pub(super) dataset: Option<DatasetVersion>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Receiving {
    pub(super) epoch: Epoch,
    pub(super) has_base: bool,
    pub(super) blocks: Blocks,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Training {
    pub(super) epoch: Epoch,
    pub(super) blocks: Blocks,
    pub(super) ticket: Ticket,
    pub(super) stage: Stage,
}

/// How far the trainer is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stage {
    /// It was given the job then and has not answered.
    Preparing { since: Duration },
    /// It runs steps.
    Stepping(Stepping),
    /// It writes down how far it is, because the agent is about to end.
    Saving(Stepping),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stepping {
    pub(super) steps: u32,
    /// Steps done, those of an earlier life included.
    pub(super) done: u32,
    /// Of these, the ones of an earlier life.
    pub(super) before: u32,
    /// When the first step was granted.
    pub(super) begun: Option<Duration>,
    /// Time in which a step was wanted and its labels were not there.
    pub(super) starved: Duration,
    pub(super) turn: Turn,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Turn {
    /// Ours to grant a step, not before then. `starving`: since when it waits for labels.
    Ours { not_before: Duration, starving: Option<Duration> },
    /// The trainer's, since then.
    Trainer { since: Duration },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Keeping {
    pub(super) epoch: Epoch,
    pub(super) ticket: Ticket,
    pub(super) state: BlobHash,
    pub(super) loss: f32,
    pub(super) samples: u32,
    pub(super) training: Duration,
    pub(super) starved: Duration,
}

/// Blocks of labels that are in place.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Blocks(BTreeMap<u32, BlobHash>);

impl Blocks {
    pub(super) fn insert(&mut self, index: u32, blob: BlobHash) {
        self.0.insert(index, blob);
    }

    pub(super) fn hashes(&self) -> impl Iterator<Item = &BlobHash> {
        self.0.values()
    }

    /// Blocks that are there without a gap, from the first on.
    pub(super) fn contiguous(&self) -> u32 {
        self.0
            .keys()
            .zip(0..)
            .take_while(|&(&index, expected)| index == expected)
            .map(|(_, k)| k + 1)
            .last()
            .unwrap_or(0)
    }
}

impl Epoch {
    pub(super) fn job(&self) -> JobId {
        self.assignment.job
    }

    pub(super) fn round(&self) -> RoundId {
        self.assignment.round
    }

    /// Whether an assignment asks for this very epoch, at this site.
    pub(super) fn is(&self, other: &Assignment) -> bool {
        let own = &self.assignment;
        (own.job, own.round, own.base, own.site) == (other.job, other.round, other.base, other.site)
    }

    /// Whether the loss needs the teacher's labels.
    pub(super) fn needs_labels(&self) -> bool {
        match self.assignment.method {
            Method::SimKd | Method::Kd { .. } => true,
            Method::CrossEntropy => false,
        }
    }

    /// Mini-batches that the epoch has, by its own numbers.
    pub(super) fn batches(&self) -> u32 {
        self.assignment.samples.div_ceil(self.assignment.plan.batch.max(1))
    }

    /// Blocks of labels that the epoch has, by its own numbers.
    pub(super) fn blocks(&self) -> u32 {
        self.batches().div_ceil(self.assignment.batches_per_block.max(1))
    }

    /// Whether the labels of this mini-batch are among the first `contiguous` blocks.
    pub(super) fn covers(&self, contiguous: u32, batch: u32) -> bool {
        !self.needs_labels() || u64::from(batch) < u64::from(contiguous) * u64::from(self.assignment.batches_per_block)
    }
}

impl Work {
    /// The epoch it is about.
    pub(super) fn epoch(&self) -> Option<&Epoch> {
        match self {
            Self::Idle => None,
            Self::Awaiting(epoch) | Self::Uploading(epoch) => Some(epoch),
            Self::Receiving(receiving) => Some(&receiving.epoch),
            Self::Training(training) => Some(&training.epoch),
            Self::Keeping(keeping) => Some(&keeping.epoch),
        }
    }

    pub(super) fn epoch_mut(&mut self) -> Option<&mut Epoch> {
        match self {
            Self::Idle => None,
            Self::Awaiting(epoch) | Self::Uploading(epoch) => Some(epoch),
            Self::Receiving(receiving) => Some(&mut receiving.epoch),
            Self::Training(training) => Some(&mut training.epoch),
            Self::Keeping(keeping) => Some(&mut keeping.epoch),
        }
    }

    /// The epoch that is received or trained here, and its labels, as long as more may come.
    pub(super) fn local(&self) -> Option<(&Epoch, &Blocks)> {
        match self {
            Self::Receiving(Receiving { epoch, blocks, .. }) | Self::Training(Training { epoch, blocks, .. }) => {
                Some((epoch, blocks))
            }
            Self::Idle | Self::Awaiting(_) | Self::Keeping(_) | Self::Uploading(_) => None,
        }
    }

    pub(super) fn blocks_mut(&mut self) -> Option<&mut Blocks> {
        match self {
            Self::Receiving(Receiving { blocks, .. }) | Self::Training(Training { blocks, .. }) => Some(blocks),
            Self::Idle | Self::Awaiting(_) | Self::Keeping(_) | Self::Uploading(_) => None,
        }
    }
}

impl Stepping {
    /// Steps of an epoch of so many mini-batches, of which the trainer has so many left.
    pub(super) fn new(batches: u32, left: u32, now: Duration) -> Self {
        let turn = Turn::Ours { not_before: now, starving: None };
        let (steps, before) = (batches.max(left), batches.saturating_sub(left));
        Self { steps, done: before, before, begun: None, starved: Duration::ZERO, turn }
    }
}

/// Why an assignment cannot be done anywhere.
pub(super) fn flaw(assignment: &Assignment) -> Option<String> {
    let Assignment { samples, plan, batches_per_block, site, .. } = assignment;
    let empty = *samples == 0 || plan.batch == 0 || *batches_per_block == 0;
    (*site == Site::Local && empty)
        .then(|| format!("an epoch of {samples} samples in batches of {}, {batches_per_block} a block", plan.batch))
}
