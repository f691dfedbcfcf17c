//! A job file: devices, classes, teacher and students of one training job.

use std::time::Duration;

use serde::Deserialize;
use twin_shared::config::{ConfigError, from_toml};
use twin_shared::id::DeviceId;
use twin_shared::model::Architecture;
use twin_shared::pipe::TeacherBatch;
use twin_shared::plan::{Augmentation, Compression, LabelKind, LabelPrecision, Method, Recipe, SyncEvery};

/// A checked job.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The devices that take part.
    pub devices: Devices,
    /// Outputs of the classifier.
    pub classes: u16,
    /// Whether they are the host's list of classes, by name, rather than so many by number.
    pub follows_list: bool,
    /// Seed of everything random.
    pub seed: u64,
    /// What is done to each training image.
    pub augmentation: Augmentation,
    /// How long it waits for boards that are missing or away.
    pub patience: Duration,
    /// A board has this many times the predicted delay for an epoch.
    pub deadline_factor: f64,
    /// The teacher.
    pub teacher: Teacher,
    /// The students.
    pub student: Student,
}

/// Which devices take part in a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Every one that is enrolled, or will be while the job runs.
    All,
    /// These.
    These(Vec<DeviceId>),
}

impl Devices {
    /// Whether a device that is seen first while the job runs takes part.
    #[must_use]
    pub fn includes(&self, device: &DeviceId) -> bool {
        match self {
            Self::All => true,
            Self::These(devices) => devices.contains(device),
        }
    }
}

/// How the teacher is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Teacher {
    /// The network.
    pub architecture: Architecture,
    /// Its optimiser.
    pub recipe: Recipe,
    /// Samples of each twin a step.
    pub batch: TeacherBatch,
    /// Whether it goes on from the teacher of the latest finished job with the same network and the same classes, or
    /// fewer of them.
    pub warm_start: bool,
}

/// How students are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Student {
    /// Their optimiser.
    pub recipe: Recipe,
    /// Samples a mini-batch.
    pub batch: u32,
    /// What they learn by.
    pub method: Method,
    /// The form of labels that are sent to boards.
    pub labels: LabelKind,
    /// Their number format.
    pub precision: LabelPrecision,
    /// Mini-batches a block of labels.
    pub batches_per_block: u32,
    /// How their states travel.
    pub compression: Compression,
    /// After which epochs they do.
    pub sync_every: SyncEvery,
    /// Held-out samples are scored after every so many epochs, and after the last.
    pub score_every: u32,
}

#[derive(Debug, Deserialize)]
struct Raw {
    devices: RawDevices,
    classes: RawClasses,
    #[serde(default = "one")]
    seed: u64,
    #[serde(default)]
    crop_padding: u8,
    #[serde(default)]
    flip: bool,
    #[serde(default = "five_minutes")]
    patience_s: u64,
    #[serde(default = "five")]
    deadline_factor: f64,
    teacher: RawTeacher,
    student: RawStudent,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawDevices {
    Word(String),
    These(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawClasses {
    Count(u16),
    Word(String),
}

#[derive(Debug, Deserialize)]
struct RawTeacher {
    architecture: String,
    epochs: u32,
    #[serde(default = "learning_rate")]
    learning_rate: f64,
    #[serde(default = "momentum")]
    momentum: f64,
    #[serde(default = "weight_decay")]
    weight_decay: f64,
    /// `full`, or samples of each twin a step.
    batch: String,
    #[serde(default)]
    warm_start: bool,
}

#[derive(Debug, Deserialize)]
struct RawStudent {
    epochs: u32,
    #[serde(default = "learning_rate")]
    learning_rate: f64,
    #[serde(default = "momentum")]
    momentum: f64,
    #[serde(default = "weight_decay")]
    weight_decay: f64,
    #[serde(default = "sixty_four")]
    batch: u32,
    #[serde(default = "simkd")]
    method: String,
    #[serde(default = "vector")]
    labels: String,
    #[serde(default = "f32_")]
    precision: String,
    #[serde(default = "four")]
    batches_per_block: u32,
    #[serde(default = "ten")]
    score_every: u32,
    /// `none`, `bf16`, `int8`, `int4` or `int2`.
    #[serde(default = "none")]
    compression: String,
    /// A number of epochs, or `final`.
    #[serde(default = "every_epoch")]
    sync_every: RawSync,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawSync {
    Epochs(u32),
    Word(String),
}

fn one() -> u64 {
    1
}
fn four() -> u32 {
    4
}
fn five() -> f64 {
    5.0
}
fn ten() -> u32 {
    10
}
fn sixty_four() -> u32 {
    64
}
fn none() -> String {
    Compression::None.name().into()
}
fn every_epoch() -> RawSync {
    RawSync::Epochs(1)
}
fn five_minutes() -> u64 {
    300
}
fn learning_rate() -> f64 {
    Recipe::student(1).learning_rate
}
fn momentum() -> f64 {
    Recipe::student(1).momentum
}
fn weight_decay() -> f64 {
    Recipe::student(1).weight_decay
}
fn simkd() -> String {
    "simkd".into()
}
fn vector() -> String {
    "vector".into()
}
fn f32_() -> String {
    "f32".into()
}

impl Job {
    /// Reads and checks a job file; `listed` classes are in the host's list.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key.
    pub fn parse(text: &str, listed: u16) -> Result<Self, ConfigError> {
        let raw: Raw = from_toml(text)?;
        let (classes, follows_list) = match &raw.classes {
            RawClasses::Count(classes) => (*classes, false),
            RawClasses::Word(word) if word == "list" => (listed, true),
            RawClasses::Word(_) => return Err(ConfigError::value("classes", "must be a number, or \"list\"")),
        };
        if follows_list && classes < 2 {
            let problem = format!("the host's list has {classes}, at least 2 are needed: twin-host classes add NAME");
            return Err(ConfigError::value("classes", problem));
        }
        if !(2..=10_000).contains(&classes) {
            return Err(ConfigError::value("classes", "must be 2 to 10000"));
        }
        if !(1.0..=1000.0).contains(&raw.deadline_factor) {
            return Err(ConfigError::value("deadline_factor", "must be 1 to 1000"));
        }
        Ok(Self {
            devices: devices(&raw.devices)?,
            classes,
            follows_list,
            seed: raw.seed,
            augmentation: Augmentation { crop_padding: raw.crop_padding.min(16), flip: raw.flip },
            patience: Duration::from_secs(raw.patience_s.clamp(1, 7 * 86_400)),
            deadline_factor: raw.deadline_factor,
            teacher: teacher(&raw.teacher)?,
            student: student(&raw.student)?,
        })
    }
}

fn devices(raw: &RawDevices) -> Result<Devices, ConfigError> {
    let names = match raw {
        RawDevices::Word(word) if word == "all" => return Ok(Devices::All),
        RawDevices::Word(_) => {
            return Err(ConfigError::value("devices", "must be \"all\", or names like [\"pi4\", \"pi5\"]"));
        }
        RawDevices::These(names) => names,
    };
    let mut devices = Vec::new();
    for (k, name) in names.iter().enumerate() {
        let device: DeviceId = name.parse().map_err(|error| ConfigError::value(format!("devices[{k}]"), error))?;
        if devices.contains(&device) {
            return Err(ConfigError::value(format!("devices[{k}]"), format!("{device} is named twice")));
        }
        devices.push(device);
    }
    if devices.is_empty() {
        return Err(ConfigError::value("devices", "must name at least one device"));
    }
    Ok(Devices::These(devices))
}

fn teacher(raw: &RawTeacher) -> Result<Teacher, ConfigError> {
    let architecture = raw.architecture.parse().map_err(|error| ConfigError::value("teacher.architecture", error))?;
    let batch = match raw.batch.as_str() {
        "full" => TeacherBatch::Full,
        number => match number.parse() {
            Ok(samples @ 1..=65_536) => TeacherBatch::PerTwin(samples),
            Ok(_) | Err(_) => {
                return Err(ConfigError::value("teacher.batch", "must be \"full\" or samples a twin, like \"16\""));
            }
        },
    };
    let recipe = recipe("teacher", raw.epochs, raw.learning_rate, raw.momentum, raw.weight_decay)?;
    Ok(Teacher { architecture, recipe, batch, warm_start: raw.warm_start })
}

fn student(raw: &RawStudent) -> Result<Student, ConfigError> {
    let method = match raw.method.as_str() {
        "simkd" => Method::SimKd,
        "kd" => Method::Kd { temperature: 4.0, soft_weight: 0.9 },
        _ => return Err(ConfigError::value("student.method", "must be simkd or kd")),
    };
    let labels = match (raw.labels.as_str(), method) {
        (_, Method::Kd { .. }) => LabelKind::Logits,
        ("map", _) => LabelKind::Map,
        ("vector", _) => LabelKind::Vector,
        _ => return Err(ConfigError::value("student.labels", "must be map or vector")),
    };
    let precision = match raw.precision.as_str() {
        "f32" => LabelPrecision::F32,
        "bf16" => LabelPrecision::Bf16,
        "int8" => LabelPrecision::Int8,
        _ => return Err(ConfigError::value("student.precision", "must be f32, bf16 or int8")),
    };
    if !(1..=4096).contains(&raw.batch) {
        return Err(ConfigError::value("student.batch", "must be 1 to 4096"));
    }
    if !(1..=1024).contains(&raw.batches_per_block) {
        return Err(ConfigError::value("student.batches_per_block", "must be 1 to 1024"));
    }
    let compression = raw.compression.parse().map_err(|error| ConfigError::value("student.compression", error))?;
    let sync_every = match &raw.sync_every {
        RawSync::Epochs(epochs) => std::num::NonZeroU32::new(*epochs).map(SyncEvery::Epochs),
        RawSync::Word(word) => (word == "final").then_some(SyncEvery::Final),
    };
    let sync_every = sync_every
        .ok_or_else(|| ConfigError::value("student.sync_every", "must be a number of epochs, or \"final\""))?;
    let recipe = recipe("student", raw.epochs, raw.learning_rate, raw.momentum, raw.weight_decay)?;
    let (batch, batches_per_block, score_every) = (raw.batch, raw.batches_per_block, raw.score_every);
    Ok(Student { recipe, batch, method, labels, precision, batches_per_block, compression, sync_every, score_every })
}

fn recipe(
    section: &str,
    epochs: u32,
    learning_rate: f64,
    momentum: f64,
    weight_decay: f64,
) -> Result<Recipe, ConfigError> {
    let refuse =
        |key: &str, range: &str| Err(ConfigError::value(format!("{section}.{key}"), format!("must be {range}")));
    if !(1..=100_000).contains(&epochs) {
        return refuse("epochs", "1 to 100000");
    }
    if !(learning_rate > 0.0 && learning_rate <= 100.0) {
        return refuse("learning_rate", "above 0 and at most 100");
    }
    if !(0.0..1.0).contains(&momentum) {
        return refuse("momentum", "0 or above, and below 1");
    }
    if !(0.0..=1.0).contains(&weight_decay) {
        return refuse("weight_decay", "0 to 1");
    }
    Ok(Recipe { learning_rate, momentum, weight_decay, epochs })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "devices = [\"a\"]\nclasses = 10\n[teacher]\narchitecture = \"vgg8\"\nepochs = 2\nbatch = \"16\"\n\
                         [student]\nepochs = 3";

    #[test]
    fn the_least_file_takes_the_recipe_of_the_paper() {
        let job = Job::parse(LEAST, 0).expect("valid");
        assert_eq!(job.student.recipe, Recipe::student(3));
        assert_eq!((job.student.method, job.student.labels), (Method::SimKd, LabelKind::Vector));
        assert_eq!((job.student.compression, job.student.sync_every), (Compression::None, SyncEvery::EPOCH));
    }

    #[test]
    fn what_is_spared_is_read() {
        let read = |sync: &str| {
            let text = LEAST.replace("epochs = 3", &format!("epochs = 3\ncompression = \"int4\"\nsync_every = {sync}"));
            Job::parse(&text, 0).map(|job| (job.student.compression, job.student.sync_every))
        };
        let five = SyncEvery::Epochs(5.try_into().expect("not 0"));
        assert_eq!(read("5").expect("valid"), (Compression::Int4, five));
        assert_eq!(read("\"final\"").expect("valid"), (Compression::Int4, SyncEvery::Final));
        for wrong in ["0", "\"never\""] {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains("sync_every"), "{error}");
        }
    }

    #[test]
    fn the_hosts_list_counts_the_classes() {
        let job = Job::parse(&LEAST.replace("classes = 10", "classes = \"list\""), 7).expect("valid");
        assert_eq!((job.classes, job.follows_list), (7, true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, named) in [
            ("\"a\"", "\"A\"", "devices[0]"),
            ("\"a\"", "\"a\", \"a\"", "devices[1]"),
            ("[\"a\"]", "\"some\"", "devices"),
            ("classes = 10", "classes = 1", "classes"),
            ("classes = 10", "classes = \"all\"", "classes"),
            ("classes = 10", "classes = \"list\"", "twin-host classes add"),
            ("vgg8", "vgg9", "teacher.architecture"),
            ("\"16\"", "\"0\"", "teacher.batch"),
            ("epochs = 3", "epochs = 0", "student.epochs"),
            ("epochs = 3", "epoch = 3", "epoch"),
            ("epochs = 3", "epochs = 3\nmethod = \"magic\"", "student.method"),
            ("epochs = 3", "epochs = 3\ncompression = \"int3\"", "student.compression"),
            ("epochs = 3", "epochs = 3\nlearning_rate = nan", "student.learning_rate"),
        ] {
            let error = Job::parse(&LEAST.replace(from, to), 0).expect_err(named).to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
