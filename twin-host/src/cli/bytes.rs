//! `experiment bytes`.

use std::path::PathBuf;

use clap::Args;
use twin_shared::model::Architecture;

use super::cell_bar::CellBar;
use super::{Failure, print};
use crate::experiment::bytes::{Plan, Request, run};
use crate::train::TrainerConfig;

/// Arguments of `experiment bytes`.
#[derive(Debug, Args)]
pub(crate) struct BytesArguments {
    /// The file of digits
    #[arg(long, default_value = "data/digits/digits.csv.gz")]
    data: PathBuf,
    /// The student
    #[arg(long, default_value = "vgg8")]
    student: Architecture,
    /// Its teacher
    #[arg(long, default_value = "vgg8")]
    teacher: Architecture,
    /// Epochs of the teacher
    #[arg(long, default_value_t = 12)]
    teacher_epochs: u32,
    /// Seeds, from 1 on
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..))]
    seeds: u64,
    /// Epochs of the student, with an exchange after each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Samples of each class to train on, and as many to test
    #[arg(long, default_value_t = 60)]
    per_class: usize,
    /// Samples a mini-batch
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// The student's learning rate
    #[arg(long, default_value_t = 0.5)]
    learning_rate: f64,
    /// Where everything goes; a folder of the same experiment is gone on with
    #[arg(long)]
    out: PathBuf,
    /// Threads of the trainer
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Where to train: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// The twin-trainer program; beside this one unless said
    #[arg(long)]
    trainer: Option<PathBuf>,
}

/// Runs the comparison, or what is left of it, and prints the table.
pub(crate) fn bytes(arguments: BytesArguments) -> Result<(), Failure> {
    super::serve::log();
    let program = match arguments.trainer {
        Some(program) => program,
        None => std::env::current_exe().map_err(anyhow::Error::from)?.with_file_name("twin-trainer"),
    };
    let request = Request {
        plan: Plan {
            data: arguments.data,
            student: arguments.student,
            teacher: arguments.teacher,
            teacher_epochs: arguments.teacher_epochs,
            seeds: arguments.seeds,
            epochs: arguments.epochs,
            per_class: arguments.per_class,
            batch: arguments.batch,
            learning_rate: arguments.learning_rate,
        },
        out: arguments.out,
        trainer: TrainerConfig {
            program,
            threads: arguments.threads,
            device: arguments.device,
            precision: "f32".into(),
        },
    };
    let bar = CellBar::new()?;
    let table = super::serve::runtime()?.block_on(run(&request, &mut |cell, part| bar.show(cell, part)));
    bar.clear();
    print(&table?)
}
