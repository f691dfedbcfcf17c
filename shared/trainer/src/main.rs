//! The training process of boards and host: jobs over standard input and output, or one measurement and done.
//!
//! Standard output carries frames (`twin_shared::pipe`) or one JSON object, nothing else; people read standard error.
#![forbid(unsafe_code)]

mod bench;
mod jobs;
mod model_eval;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use twin_learn::precision::{self, Precision};
use twin_shared::model::Architecture;

/// Trains, labels and scores; driven by twin-agent or twin-host over its standard input and output.
#[derive(Debug, Parser)]
#[command(name = "twin-trainer", version)]
struct Arguments {
    /// Threads of a step; by default as many as the machine runs at once.
    #[arg(long, global = true)]
    threads: Option<u16>,
    /// Where to compute: auto, cpu or cuda:N. A GPU that is not there falls back to the CPU.
    #[arg(long, global = true, default_value = "auto")]
    device: String,
    /// Number format of convolutions: f32, bf16, or auto, which takes bf16 where it measures faster.
    #[arg(long, global = true, default_value = "f32")]
    precision: Precision,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run a network on tensor `input` [n, 3, 32, 32] and write tensors `logits` and `features`.
    ModelEval {
        /// The network, for example resnet32x4.
        #[arg(long)]
        arch: Architecture,
        /// Its weights, safetensors with the public names.
        #[arg(long)]
        weights: PathBuf,
        /// Safetensors with tensor `input`, f32, normalised already.
        #[arg(long)]
        input: PathBuf,
        /// Where the answer goes.
        #[arg(long)]
        output: PathBuf,
    },
    /// Time training steps on random images and print one JSON object.
    Bench {
        /// The network.
        #[arg(long)]
        arch: Architecture,
        /// Images a step.
        #[arg(long, default_value_t = 64)]
        batch: u32,
        /// Steps that are timed, after three that are not.
        #[arg(long, default_value_t = 20)]
        steps: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            serve::tell(&format!("twin-trainer: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let choice = twin_learn::device::choose(&arguments.device)?;
    let threads = match arguments.threads {
        Some(threads) => i32::from(threads.clamp(1, 1024)),
        None => std::thread::available_parallelism().map_or(1, |n| i32::try_from(n.get()).unwrap_or(1)),
    };
    tch::set_num_threads(threads);
    let settled = precision::settle(arguments.precision, choice.device)?;
    if let Some(gain) = settled.gain {
        let name = precision::name(settled.place.compute);
        serve::tell(&format!("bf16 steps measured {gain:.2} times as fast as f32 ones on {threads} threads: {name}"));
    }
    let place = settled.place;
    match arguments.task {
        None => serve::serve(&choice, place, threads),
        Some(Task::ModelEval { arch, weights, input, output }) => {
            model_eval::model_eval(arch, &weights, &input, &output, place)
        }
        Some(Task::Bench { arch, batch, steps }) => bench::bench(arch, batch, steps, &choice, place, threads),
    }
}
