//! What a trainer can be asked to do.

use serde::{Deserialize, Serialize};

use crate::model::Architecture;
use crate::plan::{Augmentation, Compression, EpochPlan, LabelKind, LabelPrecision, Method, Recipe};

/// What a trainer can be asked to do. Paths are absolute or relative to the trainer's working directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Job {
    /// Train a teacher by FedSGD over twins with synchronised batch norm. A step is one optimiser step over all twins.
    Teacher(TeacherJob),
    /// Write a freshly initialised student state. One step.
    InitStudent(InitStudentJob),
    /// Compute the teacher's labels for exactly the batches of an epoch plan. A step is a block.
    Labels(LabelsJob),
    /// Train one student for one epoch. A step is a mini-batch.
    Epoch(EpochJob),
    /// FedAvg over twins. A step is one twin's local training within a round.
    FedAvg(FedAvgJob),
    /// Count correct answers on a dataset. One step.
    Evaluate(EvaluateJob),
    /// Count a dataset's samples: all that may be known of it outside of training. One step.
    Count(CountJob),
    /// Time real training steps and their peak memory. A step is a mini-batch; the first three are not timed.
    Calibrate(CalibrateJob),
}

/// How much of each twin's data a FedSGD step uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TeacherBatch {
    /// All of it: one step an epoch, the paper's setting.
    Full,
    /// Samples a twin and step.
    PerTwin(u32),
}

/// See [`Job::Teacher`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TeacherJob {
    /// The network.
    pub architecture: Architecture,
    /// Outputs of its classifier.
    pub classes: u16,
    /// The twins' datasets.
    pub twins: Vec<String>,
    /// The optimiser.
    pub recipe: Recipe,
    /// Data a step.
    pub batch: TeacherBatch,
    /// Augmentation of every twin's images.
    pub augmentation: Augmentation,
    /// Seed of initialisation, order and augmentation.
    pub seed: u64,
    /// Weights of the same network to go on from; its classifier may have fewer outputs.
    pub warm_start: Option<String>,
    /// Written after every epoch and resumed from when there.
    pub checkpoint: Option<String>,
    /// Where the weights go: safetensors with their normalisation.
    pub out: String,
}

/// See [`Job::InitStudent`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitStudentJob {
    /// The network.
    pub architecture: Architecture,
    /// What it will learn by: decides whether the state has a projector or a classifier.
    pub method: Method,
    /// The teacher's weights (its feature map's channels), with a projector; else ignored.
    pub teacher: String,
    /// Outputs of the classifier, without a projector.
    pub classes: u16,
    /// Seed of the initialisation.
    pub seed: u64,
    /// Where the state goes.
    pub out: String,
}

/// See [`Job::Labels`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelsJob {
    /// The teacher's weights.
    pub teacher: String,
    /// The twin's dataset.
    pub dataset: String,
    /// The epoch.
    pub plan: EpochPlan,
    /// What of the teacher is wanted.
    pub kind: LabelKind,
    /// Number format.
    pub precision: LabelPrecision,
    /// Mini-batches a block.
    pub batches_per_block: u32,
    /// An existing directory for the blocks.
    pub out: String,
}

/// Where an epoch's teacher labels come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LabelSource {
    /// No teacher: cross-entropy.
    None,
    /// Computed here from the teacher's weights: a student trained on the host.
    Teacher {
        /// The weights.
        weights: String,
        /// What the method wants of the teacher.
        kind: LabelKind,
    },
    /// From the blocks of [`Job::Labels`], named `{index:05}.labels` in this directory: a student trained on its
    /// board. A step is granted only once its block is there.
    Blocks {
        /// The directory.
        directory: String,
    },
}

/// See [`Job::Epoch`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochJob {
    /// The student.
    pub architecture: Architecture,
    /// The loss.
    pub method: Method,
    /// Student state before.
    pub state: String,
    /// Momentum before; none is zero.
    pub momentum: Option<String>,
    /// The dataset.
    pub dataset: String,
    /// Order and augmentation.
    pub plan: EpochPlan,
    /// The optimiser.
    pub recipe: Recipe,
    /// The teacher's labels.
    pub labels: LabelSource,
    /// Student state after.
    pub state_out: String,
    /// Momentum after, where wanted.
    pub momentum_out: Option<String>,
    /// Written by [`Request::Save`](super::Request::Save) and gone on from where it is this very job's; removed when
    /// the epoch is done.
    pub checkpoint: Option<String>,
    /// Whether the state after is rounded to what travels in few bytes, and how.
    pub compression: Option<CompressPlan>,
}

/// How a state is made fit to travel: see [`crate::compress`]. The state after the epoch is then the adopted one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressPlan {
    /// What the difference is rounded to.
    pub compression: Compression,
    /// The state that both sides hold.
    pub base: String,
    /// What the last rounding left out; none is nothing.
    pub residual: Option<String>,
    /// Where what this one leaves out goes.
    pub residual_out: String,
    /// Where the file that travels goes.
    pub delta_out: String,
}

/// Normalisation layers of a FedAvg student.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalisation {
    /// Batch norm; buffers are averaged.
    Batch,
    /// Group norm in its place.
    Group,
}

/// See [`Job::FedAvg`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FedAvgJob {
    /// The network, the same for all.
    pub architecture: Architecture,
    /// Outputs of the classifier.
    pub classes: u16,
    /// The twins' datasets.
    pub twins: Vec<String>,
    /// Rounds of averaging.
    pub rounds: u32,
    /// Local epochs a round.
    pub local_epochs: u32,
    /// The local optimiser; its `epochs` is the schedule's length in rounds.
    pub recipe: Recipe,
    /// Normalisation layers.
    pub normalisation: Normalisation,
    /// Samples a mini-batch.
    pub batch: u32,
    /// Augmentation.
    pub augmentation: Augmentation,
    /// Epochs of local fine-tuning after the last round; with any, `out` gets a file a twin, `{out}.{twin}`.
    pub fine_tune_epochs: u32,
    /// Seed.
    pub seed: u64,
    /// Written after every round and resumed from when there.
    pub checkpoint: Option<String>,
    /// Where the averaged weights go.
    pub out: String,
}

/// Which part of a dataset is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Every sample: a test set.
    All,
    /// What training uses.
    Train,
    /// The tenth held out by hash.
    Held,
    /// The half of it that choices are made by.
    Validation,
    /// The other half, for the last word.
    Test,
}

/// See [`Job::Evaluate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluateJob {
    /// A student state, or weights with their own classifier.
    pub weights: String,
    /// The teacher whose classifier a SimKD student reuses.
    pub teacher: Option<String>,
    /// The dataset.
    pub dataset: String,
    /// Which of its samples.
    pub part: Part,
    /// For each entry the label counts of one device: private and personalised figures are given for each.
    pub devices: Vec<Vec<u32>>,
}

/// See [`Job::Count`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountJob {
    /// The dataset.
    pub dataset: String,
}

/// See [`Job::Calibrate`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrateJob {
    /// The student.
    pub architecture: Architecture,
    /// Outputs of the teacher's classifier.
    pub classes: u16,
    /// Samples a mini-batch.
    pub batch: u32,
    /// Steps that are timed.
    pub steps: u32,
    /// Train it (as a student), or only run it forward (as a teacher giving labels).
    pub train: bool,
}
