//! `bench train`.

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use twin_shared::model::Architecture;

use super::trainer::TrainerArguments;
use super::{Failure, Format, print};

/// `bench …`.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time training steps: forward, backward and update on random images, the median after warming up
    Train(TrainArguments),
}

/// Number format of convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    F32,
    Bf16,
}

/// Arguments of `bench train`.
#[derive(Debug, Args)]
pub(crate) struct TrainArguments {
    /// The network, as `model list` names it
    #[arg(long)]
    arch: Architecture,
    /// Images a step
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Steps that are timed
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    steps: u32,
    /// Number format of convolutions
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    trainer: TrainerArguments,
}

/// Runs `bench …`.
pub(crate) fn bench(command: BenchCommand) -> Result<(), Failure> {
    let BenchCommand::Train(arguments) = command;
    let (batch, steps) = (arguments.batch.to_string(), arguments.steps.to_string());
    let precision = match arguments.precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    };
    let name = arguments.arch.name();
    let words = ["--precision", precision, "bench", "--arch", name, "--batch", &batch, "--steps", &steps];
    let report = arguments.trainer.run(&words)?;
    match arguments.format {
        Format::Json => print(&report),
        Format::Table => print(&table(&report).context("the trainer's report")?),
    }
}

/// The report for people, a line a number.
fn table(report: &str) -> anyhow::Result<String> {
    let numbers: serde_json::Map<String, serde_json::Value> = serde_json::from_str(report)?;
    let mut builder = tabled::builder::Builder::default();
    builder.push_record(["", ""]);
    for (name, value) in &numbers {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        builder.push_record([name.replace('_', " "), value]);
    }
    Ok(format!("{}\n", builder.build().with(tabled::settings::Style::markdown())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_lines_and_anything_else_an_error() {
        let text = table("{\"arch\":\"vgg8\",\"images_per_s\":12.5}\n").unwrap();
        assert!(text.contains("images per s") && text.contains("12.5") && text.contains("vgg8"), "{text}");
        assert!(table("no report").is_err());
    }
}
