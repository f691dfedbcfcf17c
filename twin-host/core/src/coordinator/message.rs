//! What goes into the coordinator and what comes out.

use core::fmt;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twin_shared::id::{BlobHash, DatasetVersion, DeviceId, RoundId};
use twin_shared::model::{Architecture, Site};
use twin_shared::pipe::Outcome;
use twin_shared::plan::EpochPlan;
use twin_shared::units::{BitsPerSecond, Gigahertz, Hertz, Seconds};
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::{Birth, Order, Purpose, Refusal, Reply, Sparing, TwinDocument};

use crate::experience::Scored;
use crate::twin::Twin;

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A board said something, or something was carried to or from it.
    Board(DeviceId, BoardInput),
    /// The host's trainer said something of a task.
    Task(Task, TaskEvent),
    /// The scheduler has decided.
    Decided(BTreeMap<DeviceId, Allotment>),
    /// A device takes part from now on; what is known of its twin.
    Join(DeviceId, Box<Twin>),
    /// A device is taken out.
    Leave(DeviceId),
    /// A device has a new card, which counts its births anew.
    Replaced(DeviceId),
    /// Time has passed.
    Tick,
}

/// What a board said, or what was carried.
#[derive(Debug, Clone)]
pub enum BoardInput {
    /// It is connected.
    Online(Birth),
    /// The broker says that the connection of this birth is gone.
    Offline {
        /// The birth.
        sequence: u64,
    },
    /// A sample.
    Telemetry(Telemetry),
    /// An answer to a command.
    Reply(Reply),
    /// The twin document as the board has it.
    Reported(TwinDocument),
    /// A blob came, its hash is right, and it is on disk.
    Received {
        /// What for.
        purpose: Purpose,
        /// Which.
        blob: BlobHash,
    },
    /// The board holds a blob that was sent to it.
    Sent {
        /// What for.
        purpose: Purpose,
    },
    /// The board does not take a blob.
    BlobRefused {
        /// What for.
        purpose: Purpose,
        /// Why not.
        why: Refusal,
    },
}

/// Work for the host's trainer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Count a twin's samples.
    Count {
        /// Whose.
        device: DeviceId,
        /// The dataset.
        dataset: BlobHash,
    },
    /// Train the teacher over these twins.
    Teacher {
        /// Each twin's dataset.
        twins: Vec<(DeviceId, BlobHash)>,
    },
    /// Make the student that a device starts with.
    Init {
        /// Whose.
        device: DeviceId,
        /// Which network.
        architecture: Architecture,
    },
    /// The teacher's labels for one epoch.
    Labels {
        /// Whose.
        device: DeviceId,
        /// Which epoch.
        round: RoundId,
    },
    /// One epoch of an offloaded student.
    Epoch {
        /// Whose.
        device: DeviceId,
        /// Which epoch.
        round: RoundId,
        /// Which network.
        architecture: Architecture,
        /// The state before.
        base: BlobHash,
        /// Whether the momentum of the epoch before is the host's.
        keeps_momentum: bool,
        /// How the state after travels; none is whole, or not at all.
        sparing: Option<Sparing>,
    },
    /// Let a twin score another's frozen student, or its own, on its held-out samples; only counts come back.
    Score {
        /// Whose student.
        device: DeviceId,
        /// The epoch after which it is in this state.
        round: RoundId,
        /// Its state.
        state: BlobHash,
        /// The twin that scores it.
        by: DeviceId,
    },
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { device, .. } => write!(f, "counting the samples of {device}"),
            Self::Teacher { .. } => f.write_str("training the teacher"),
            Self::Init { device, .. } => write!(f, "making the student of {device}"),
            Self::Labels { device, round } => write!(f, "labels of {device}, epoch {round}"),
            Self::Epoch { device, round, .. } => write!(f, "training the student of {device}, epoch {round}"),
            Self::Score { device, round, by, .. } => write!(f, "{by} scoring the student of {device}, epoch {round}"),
        }
    }
}

/// What the trainer says of a task.
#[derive(Debug, Clone)]
pub enum TaskEvent {
    /// A step is done.
    Progress {
        /// Steps done.
        step: u32,
        /// Steps in all.
        steps: u32,
    },
    /// A block of labels is in the device's blobs.
    Block {
        /// Its number.
        block: u32,
        /// Its name.
        blob: BlobHash,
    },
    /// It is done.
    Done(Outcome),
    /// It failed.
    Failed(String),
}

/// What the scheduler gives to a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Allotment {
    /// The student.
    pub architecture: Architecture,
    /// Where it is trained.
    pub site: Site,
    /// f: the host's compute for the device's labels and, if offloaded, its student.
    pub frequency: Gigahertz,
    /// b: the device's bandwidth.
    pub bandwidth: Hertz,
    /// r, Eq. (1).
    pub rate: BitsPerSecond,
    /// What an epoch is expected to take.
    pub predicted: PredictedDelay,
}

/// The delay of one epoch as Eq. (2)-(5) give it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PredictedDelay {
    /// T_tea, Eq. (2).
    pub teacher: Seconds,
    /// T_stu, Eq. (3).
    pub student: Seconds,
    /// T_label, Eq. (4); 0 on the host.
    pub label: Seconds,
    /// T_model, Eq. (5).
    pub model: Seconds,
    /// One epoch where labels, training and transfer overlap.
    pub pipelined: Seconds,
}

impl PredictedDelay {
    /// The delay term of Eq. (6): one after the other.
    #[must_use]
    pub fn total(&self) -> Seconds {
        self.teacher + self.student + self.label + self.model
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Tell a board.
    Command(DeviceId, Order),
    /// Publish the twin document, with the hash of the state as it lies on the host's disk.
    Desired(DeviceId, TwinDocument),
    /// Send a blob of the device's own.
    Send(DeviceId, BlobHash, Purpose),
    /// Forget blobs on their way that belong to this epoch or an earlier one.
    Forget(DeviceId, RoundId),
    /// Have the trainer do something.
    Run(Task),
    /// It is no longer wanted.
    Cancel(Task),
    /// The device's share of the host's compute and of the downlink from now on.
    Share(DeviceId, Allotment),
    /// What was learnt of a device has changed: keep it.
    Learnt(DeviceId),
    /// Ask the scheduler for a decision on the present state.
    Decide,
    /// For logs, the store and people.
    Note(Note),
    /// All students are trained.
    Finished,
    /// The job cannot go on.
    Failed(Fatal),
}

/// Something worth telling.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A message of a device that is not part of the job.
    Unknown(DeviceId),
    /// A board is connected.
    Online(DeviceId),
    /// A board's connection is gone.
    Offline(DeviceId),
    /// Something of a board was refused.
    Refused(DeviceId, String),
    /// A twin holds a dataset.
    Dataset {
        /// Whose.
        device: DeviceId,
        /// Which.
        version: DatasetVersion,
        /// The blob.
        blob: BlobHash,
    },
    /// The trainer is this far.
    Progress {
        /// With what.
        task: Task,
        /// Steps done.
        step: u32,
        /// Steps in all.
        steps: u32,
    },
    /// The teacher is trained.
    Teacher {
        /// Its weights.
        weights: BlobHash,
        /// Its mean loss in the last epoch.
        loss: f32,
    },
    /// A device's epoch is done on both sides.
    Round(Box<RoundRecord>),
    /// A device's epoch is done, and its state stays where it was trained until a later one.
    Kept {
        /// Which device.
        device: DeviceId,
        /// Which epoch.
        round: RoundId,
        /// Where.
        site: Site,
        /// Mean training loss.
        loss: f32,
    },
    /// A board missed its deadline, or could not train; the host trains this epoch.
    Offloaded {
        /// Which board.
        device: DeviceId,
        /// Which epoch.
        round: RoundId,
        /// Why.
        why: String,
    },
    /// The state of an epoch that had missed its deadline came before the host was done with it, and is taken.
    TakenLate {
        /// Which board.
        device: DeviceId,
        /// Which epoch.
        round: RoundId,
    },
    /// A student was scored on held-out samples.
    Scored {
        /// Whose.
        device: DeviceId,
        /// The epoch after which.
        round: RoundId,
        /// The network.
        architecture: Architecture,
        /// The scores.
        scored: Scored,
    },
    /// A device takes no further part.
    Left(DeviceId, String),
}

/// One epoch of one device, as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct RoundRecord {
    /// Which device.
    pub device: DeviceId,
    /// Which epoch.
    pub round: RoundId,
    /// What it was allotted.
    pub allotment: Allotment,
    /// Where it was trained in fact.
    pub site: Site,
    /// The state after it, as the host hashed its own file.
    pub state: BlobHash,
    /// The same, as the board hashed its own.
    pub board_state: BlobHash,
    /// Mean training loss.
    pub loss: f32,
    /// What it took.
    pub measured: Measured,
    /// The plan of its batches.
    pub plan: EpochPlan,
}

/// What an epoch took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// From assignment to the end of training.
    pub training: Seconds,
    /// Of that, the board's wait for labels; 0 on the host.
    pub starved: Seconds,
    /// From the end of training until the other side held the state.
    pub transfer: Seconds,
    /// From assignment until both sides had confirmed.
    pub total: Seconds,
}

/// Why a job ends early.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fatal {
    /// Twin and board disagree: nothing after this could be trusted.
    #[error("after epoch {round} {device} holds state {board:.12}…, its twin {twin:.12}…")]
    Unequal {
        /// The device.
        device: DeviceId,
        /// The epoch.
        round: RoundId,
        /// What the board holds.
        board: BlobHash,
        /// What the twin holds.
        twin: BlobHash,
    },
    /// Nobody brought data.
    #[error("no board brought its dataset in time")]
    NoBoards,
    /// The host's trainer failed.
    #[error("{0}")]
    Trainer(String),
}
