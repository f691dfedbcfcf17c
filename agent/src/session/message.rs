//! What a session is told, what it wants done, and what it must not forget.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use twin_shared::id::{BlobHash, BootId, DatasetVersion, JobId, ModelVersion, RoundId};
use twin_shared::model::Architecture;
use twin_shared::pipe::{Event, Ticket};
use twin_shared::wire::{
    Assignment, BoardCalibration, BoardState, Capabilities, Command, DatasetOffer, HostState, Purpose, Refusal, Reply,
    Sparing, TrainedEpoch, TwinDocument,
};

use crate::guard::Permit;
use crate::trainer::Death;

/// What the board says of itself, fixed for the agent's life.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The agent's version.
    pub agent: heapless::String<24>,
    /// What the board can do.
    pub capabilities: Capabilities,
    /// Its dataset, and the blob that holds it.
    pub dataset: Option<(DatasetOffer, BlobHash)>,
    /// The share of time that an emulated board's trainer really works, in (0, 1]; 1 on a real one.
    pub duty: f64,
    /// A trainer that is silent for so long hangs.
    pub stall: Duration,
}

/// What must survive a restart. Whatever is wanted by an [`Output`] after [`Output::Persist`] stands on it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// The newest life of the host that was seen.
    pub host_epoch: u64,
    /// The last epoch that was trained here.
    pub trained: Option<TrainedHere>,
    /// The last twin document that was answered, as it was answered.
    pub reported: Option<TwinDocument>,
    /// States that host and board held alike, newest last.
    pub confirmed: heapless::Vec<BlobHash, 3>,
    /// The epoch that is to be trained here.
    pub assigned: Option<Assignment>,
    /// How its state will travel; nothing is spared without.
    pub sparing: Option<Sparing>,
    /// A state that was trained here, and the file that carries it in few bytes.
    pub carrier: Option<(BlobHash, BlobHash)>,
    /// The version of the dataset that the assigned epoch is trained on.
    pub assigned_on: Option<DatasetVersion>,
}

/// An epoch trained here, and what it started from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrainedHere {
    /// The state before.
    pub base: BlobHash,
    /// The rest.
    pub epoch: TrainedEpoch,
}

/// What was taken in after an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The hash of the state's file.
    pub state: BlobHash,
    /// The file that carries it in few bytes, where that was asked for.
    pub delta: Option<BlobHash>,
}

/// What came of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// It is not kept here.
    Absent,
    /// It was active before.
    Already,
    /// It answers from now on.
    Switched,
    /// The board's owner went back from it.
    Declined,
}

/// What a session is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The agent begins: what an earlier life left is taken up.
    Begun,
    /// The broker has taken the subscription of a new connection.
    Connected {
        /// The connection's birth.
        sequence: u64,
    },
    /// The connection is gone.
    Disconnected,
    /// The host's retained state document, of this boot of the host.
    Host {
        /// The document.
        state: HostState,
        /// Who sealed it.
        boot: BootId,
    },
    /// The twin document.
    Desired(TwinDocument),
    /// An order.
    Command(Command),
    /// A blob that [`super::Session::limit`] allowed is whole on disk, from now on or again.
    Received {
        /// Its name; of a student state that travelled as a difference, the state's.
        blob: BlobHash,
        /// What it is for.
        purpose: Purpose,
    },
    /// The host holds a blob of ours.
    Sent {
        /// What it is for.
        purpose: Purpose,
    },
    /// A blob of ours will not reach the host.
    NotSent {
        /// What it is for.
        purpose: Purpose,
        /// Why.
        why: Refusal,
    },
    /// Answers [`Output::Look`].
    Found {
        /// The blob.
        blob: BlobHash,
        /// Whether it is whole on disk.
        held: bool,
    },
    /// Answers [`Output::RecallLabels`].
    LabelsAtHand {
        /// The job.
        job: JobId,
        /// The epoch.
        round: RoundId,
        /// Blocks that lie where the trainer looks for them, and the blobs that they are.
        blocks: Vec<(u32, BlobHash)>,
    },
    /// Answers [`Output::Rehash`].
    Hashed {
        /// The document.
        document: TwinDocument,
        /// What was computed from the file of its state; `None` where there is no such file.
        found: Option<BlobHash>,
    },
    /// Answers [`Output::Keep`].
    Kept {
        /// The job.
        ticket: Ticket,
        /// What is among the blobs now, or what the disk said.
        kept: Result<Kept, String>,
    },
    /// The board's dataset is this from now on.
    Dataset {
        /// The dataset.
        offer: DatasetOffer,
        /// The blob that holds it.
        blob: BlobHash,
        /// Versions before it that are still on disk.
        earlier: Vec<DatasetVersion>,
    },
    /// Answers [`Output::Install`].
    Installed {
        /// The model.
        version: ModelVersion,
        /// Why it is not kept.
        result: Result<(), String>,
    },
    /// Answers [`Output::Activate`].
    Activated {
        /// The model.
        version: ModelVersion,
        /// What came of it, or what the disk said.
        result: Result<Activation, String>,
    },
    /// The disk refused what an output wanted.
    StorageFailed(String),
    /// The guard's word.
    Permit(Permit),
    /// The trainer speaks.
    Trainer(Event),
    /// The trainer cannot be started.
    NoTrainer(String),
    /// The trainer has ended by itself.
    TrainerDied(Death),
    /// Answers [`Output::RecallCalibration`]: what was measured before, if it is complete and still holds.
    Recalled(Option<BoardCalibration>),
    /// Everything that [`Output::Calibrate`] asked for is measured; or [`Output::Unfit`] changed what is known.
    Calibrated(BoardCalibration),
    /// Nothing could be measured.
    CalibrationFailed(String),
    /// The agent is about to end.
    Ending,
    /// Time has passed.
    Tick,
}

/// What a session wants done, in this order.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful live at once, and only until they are carried out")]
pub enum Output {
    /// Write this down for good before going on.
    Persist(Memory),
    /// From now on messages come from this boot of the host.
    Adopt(BootId),
    /// Publish.
    Publish(Message),
    /// Offer a blob to the host.
    Send {
        /// The blob.
        blob: BlobHash,
        /// What it is for.
        purpose: Purpose,
    },
    /// Give up every transfer of a student, base or labels but those of this epoch.
    Abandon {
        /// The epoch that goes on, if any.
        but: Option<(JobId, RoundId)>,
    },
    /// Is this blob on disk?
    Look(BlobHash),
    /// Hash the file of this document's state.
    Rehash(TwinDocument),
    /// Make room for this epoch's files and remove those of others, but the momentum of the epoch before and what
    /// the last rounding left out.
    Prepare {
        /// The job.
        job: JobId,
        /// The epoch.
        round: RoundId,
        /// The state that host and board hold: what its rounding left out stays too.
        common: BlobHash,
    },
    /// Put a block of labels where the trainer looks for it.
    PlaceLabels {
        /// The job.
        job: JobId,
        /// The epoch.
        round: RoundId,
        /// Which block.
        index: u32,
        /// The blob.
        blob: BlobHash,
    },
    /// Which blocks of labels does this epoch have where the trainer looks for them?
    RecallLabels {
        /// The job.
        job: JobId,
        /// The epoch.
        round: RoundId,
    },
    /// Submit the epoch to the trainer, starting it where it is not running.
    Submit {
        /// The job's name at the trainer.
        ticket: Ticket,
        /// The epoch.
        assignment: Box<Assignment>,
        /// How its state will travel.
        sparing: Sparing,
        /// The version of the dataset that it is trained on.
        dataset: DatasetVersion,
        /// Whether the momentum of the epoch before goes on.
        momentum: bool,
    },
    /// Grant the trainer one step.
    Grant(Ticket),
    /// Tell the trainer to forget the job.
    Cancel(Ticket),
    /// Have the trainer write down how far the epoch is.
    Save(Ticket),
    /// What was measured before of mini-batches of so many?
    RecallCalibration(u32),
    /// Measure what training takes here, with mini-batches of so many.
    Calibrate(u32),
    /// Measure no further for now; what is known already is kept.
    StopCalibration,
    /// This student's training ended in a way that says that it does not fit here.
    Unfit {
        /// The student.
        architecture: Architecture,
        /// Samples of its mini-batches.
        batch: u32,
        /// How it ended.
        why: String,
    },
    /// Take the trained state in.
    Keep {
        /// The job's name at the trainer.
        ticket: Ticket,
        /// The job.
        job: JobId,
        /// The epoch.
        round: RoundId,
    },
    /// Ask the trainer to end: it has had nothing to do for a while.
    StopTrainer,
    /// End the trainer: it hangs.
    KillTrainer,
    /// Send at most this fast, bits a second; 0 is as fast as the board's link goes.
    Pace(u64),
    /// Remove every blob but these, and partial files of a day ago.
    Collect(Vec<BlobHash>),
    /// Send what changed between two versions of the dataset, or the second whole where the first is not remembered.
    SendDelta {
        /// The version that the twin holds.
        from: DatasetVersion,
        /// The present version.
        to: DatasetVersion,
    },
    /// Follow the list of classes in this blob.
    TakeClasses(BlobHash),
    /// Give waiting pictures the labels in this blob, where the owner lets the host see them.
    TakeLabels(BlobHash),
    /// Keep the model in this blob.
    Install {
        /// Which.
        version: ModelVersion,
        /// The blob.
        blob: BlobHash,
    },
    /// Answer by a model from now on, if it is kept.
    Activate(ModelVersion),
    /// Tell the operator.
    Warn(String),
}

/// What is published beside blobs and telemetry.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The birth.
    State(BoardState),
    /// The twin document as it is here.
    Reported(TwinDocument),
    /// How far a command is.
    Reply(Reply),
}
