//! `experiment accuracy`.

use std::path::PathBuf;

use clap::Args;
use twin_shared::model::Architecture;
use twin_shared::plan::{LabelKind, LabelPrecision};

use super::cell_bar::CellBar;
use super::{Failure, print};
use crate::experiment::accuracy::{Format, Method, Plan, Request, run};
use crate::train::TrainerConfig;

/// Arguments of `experiment accuracy`.
#[derive(Debug, Args)]
pub(crate) struct AccuracyArguments {
    /// The dataset's folder
    #[arg(long)]
    data: PathBuf,
    /// Its format: cifar100, cifar10, digits, or folder: a sub-folder of pictures a class, or train/ and test/ of such
    #[arg(long)]
    dataset: Format,
    /// Classes A..B alone, B not included
    #[arg(long, value_parser = class_range)]
    classes: Option<(u16, u16)>,
    /// How samples are spread: iid, noniid, noniid:CLASSES or dirichlet:ALPHA
    #[arg(long, default_value = "noniid")]
    split: String,
    /// Devices
    #[arg(long, default_value_t = 4)]
    devices: u16,
    /// Students, by name
    #[arg(long, value_delimiter = ',', default_value = "vgg8,resnet8x4")]
    students: Vec<Architecture>,
    /// Methods: kd (distilled), fl (FedAvg), stu (alone), teacher (the teacher and nothing else)
    #[arg(long, value_delimiter = ',', default_value = "kd,fl,stu")]
    methods: Vec<Method>,
    /// Epochs of students
    #[arg(long, default_value_t = 100)]
    epochs: u32,
    /// Samples a mini-batch
    #[arg(long, default_value_t = 64)]
    batch: u32,
    /// Teacher labels: map or vector for SimKD, logits for classic distillation
    #[arg(long, default_value = "map", value_parser = label_kind)]
    labels: LabelKind,
    /// Hand labels on in files of this number format, as to a board (f32, bf16 or int8); straight from the teacher
    /// unless said
    #[arg(long, value_parser = label_precision)]
    label_precision: Option<LabelPrecision>,
    /// The teacher's network
    #[arg(long, default_value = "resnet32x4")]
    teacher: Architecture,
    /// Its epochs
    #[arg(long, default_value_t = 100)]
    teacher_epochs: u32,
    /// Samples a twin and step of the teacher; 0 is all, one step an epoch
    #[arg(long, default_value_t = 16)]
    teacher_batch: u32,
    /// The teacher's learning rate
    #[arg(long, default_value_t = 0.05)]
    teacher_rate: f64,
    /// A teacher that is trained already, safetensors with the public names
    #[arg(long)]
    teacher_weights: Option<PathBuf>,
    /// Learning rates of distillation to choose from on held-out samples
    #[arg(long, value_delimiter = ',', default_value = "0.05,0.2,0.5", allow_hyphen_values = true)]
    kd_rates: Vec<f64>,
    /// Those of students alone
    #[arg(long, value_delimiter = ',', default_value = "0.02,0.05,0.1")]
    stu_rates: Vec<f64>,
    /// FedAvg's learning rates to choose from on held-out samples
    #[arg(long, value_delimiter = ',', default_value = "0.02,0.05,0.1")]
    fl_rates: Vec<f64>,
    /// FedAvg's local epochs to choose from
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    fl_local_epochs: Vec<u32>,
    /// Group norm in FedAvg's students
    #[arg(long)]
    fl_group_norm: bool,
    /// Epochs that every device tunes FedAvg's network on its own samples in the end
    #[arg(long, default_value_t = 1)]
    fl_fine_tune: u32,
    /// Score after every so many epochs, and after the last
    #[arg(long, default_value_t = 1)]
    score_every: u32,
    /// Seed of split, weights, order and augmentation
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where everything goes; a folder of the same experiment is gone on with
    #[arg(long)]
    out: PathBuf,
    /// Threads of the trainer
    #[arg(long)]
    threads: Option<u32>,
    /// Where to train: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Number format of convolutions: f32, bf16, or auto, which takes bf16 where it measures faster
    #[arg(long, default_value = "auto", value_parser = ["auto", "f32", "bf16"])]
    precision: String,
    /// The twin-trainer program; beside this one unless said
    #[arg(long)]
    trainer: Option<PathBuf>,
}

fn class_range(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once("..").ok_or("A..B is needed, for example 0..20")?;
    let number = |part: &str| part.parse::<u16>().map_err(|error| format!("`{part}`: {error}"));
    match (number(from)?, number(to)?) {
        (from, to) if from < to => Ok((from, to)),
        (from, to) => Err(format!("{from}..{to} holds no class")),
    }
}

fn label_kind(text: &str) -> Result<LabelKind, String> {
    match text {
        "map" => Ok(LabelKind::Map),
        "vector" => Ok(LabelKind::Vector),
        "logits" => Ok(LabelKind::Logits),
        other => Err(format!("unknown labels `{other}`; known: map, vector, logits")),
    }
}

fn label_precision(text: &str) -> Result<LabelPrecision, String> {
    match text {
        "f32" => Ok(LabelPrecision::F32),
        "bf16" => Ok(LabelPrecision::Bf16),
        "int8" => Ok(LabelPrecision::Int8),
        other => Err(format!("unknown number format `{other}`; known: f32, bf16, int8")),
    }
}

/// Runs the experiment, or what is left of it, and prints the tables.
pub(crate) fn accuracy(arguments: AccuracyArguments) -> Result<(), Failure> {
    super::serve::log();
    arguments.split.parse::<twin_data::partition::Partition>().map_err(|error| Failure::Usage(error.to_string()))?;
    let positive = [
        ("--devices", u32::from(arguments.devices)),
        ("--epochs", arguments.epochs),
        ("--batch", arguments.batch),
        ("--teacher-epochs", arguments.teacher_epochs),
    ];
    if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(Failure::Usage(format!("{name} must be at least 1")));
    }
    let rates = [
        ("--kd-rates", &arguments.kd_rates),
        ("--stu-rates", &arguments.stu_rates),
        ("--fl-rates", &arguments.fl_rates),
        ("--teacher-rate", &vec![arguments.teacher_rate]),
    ];
    for (name, rates) in rates {
        if rates.is_empty() || rates.iter().any(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return Err(Failure::Usage(format!("{name} must be positive numbers")));
        }
    }
    if arguments.fl_local_epochs.is_empty() || arguments.fl_local_epochs.contains(&0) {
        return Err(Failure::Usage("--fl-local-epochs must be at least 1".into()));
    }
    let program = super::trainer::program(arguments.trainer)?;
    let cores = || std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let request = Request {
        plan: Plan {
            data: arguments.data,
            format: arguments.dataset,
            classes: arguments.classes,
            split: arguments.split,
            devices: arguments.devices,
            students: arguments.students,
            methods: arguments.methods,
            epochs: arguments.epochs,
            batch: arguments.batch,
            labels: arguments.labels,
            label_precision: arguments.label_precision,
            teacher: arguments.teacher,
            teacher_epochs: arguments.teacher_epochs,
            teacher_batch: arguments.teacher_batch,
            teacher_rate: arguments.teacher_rate,
            teacher_weights: arguments.teacher_weights,
            kd_rates: arguments.kd_rates,
            stu_rates: arguments.stu_rates,
            fl_rates: arguments.fl_rates,
            fl_local_epochs: arguments.fl_local_epochs,
            fl_group_norm: arguments.fl_group_norm,
            fl_fine_tune: arguments.fl_fine_tune,
            score_every: arguments.score_every,
            seed: arguments.seed,
        },
        out: arguments.out,
        trainer: TrainerConfig {
            program,
            threads: arguments.threads.unwrap_or_else(cores),
            device: arguments.device,
            precision: arguments.precision,
        },
    };
    let bar = CellBar::new()?;
    let tables = super::serve::runtime()?.block_on(run(&request, &mut |cell, part| bar.show(cell, part)));
    bar.clear();
    print(&tables?)
}
