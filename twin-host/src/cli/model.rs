//! `model list` and `model eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use twin_shared::model::Architecture;

use super::trainer::TrainerArguments;
use super::{Failure, Format, print};

/// Classes that the listed sizes are for: CIFAR-100's, as the papers count.
const CLASSES: usize = 100;
/// Channels of the last feature map of the listed projectors' teacher, a ResNet.
const TEACHER_CHANNELS: usize = 256;

/// `model …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// List the networks of the zoo
    List(ListArguments),
    /// Run a network with any weights of the public names on normalised images
    Eval(EvalArguments),
}

/// Arguments of `model list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Arguments of `model eval`.
#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    /// The network, as `model list` names it
    #[arg(long)]
    arch: Architecture,
    /// Its weights: safetensors with the public names; the number of classes is read from them
    #[arg(long)]
    weights: PathBuf,
    /// Safetensors with tensor `input` [n, 3, 32, 32], f32, normalised as the network needs it
    #[arg(long)]
    input: PathBuf,
    /// Safetensors to be written: `logits` [n, classes] and `features`, the last feature map
    #[arg(long)]
    output: PathBuf,
    #[command(flatten)]
    trainer: TrainerArguments,
}

/// Runs `model …`.
pub(crate) fn model(command: ModelCommand) -> Result<(), Failure> {
    match command {
        ModelCommand::List(arguments) => list(&arguments),
        ModelCommand::Eval(arguments) => eval(arguments),
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let text = match arguments.format {
        Format::Json => {
            let models = Architecture::ALL.map(|network| {
                let (channels, side) = network.feature_map();
                json!({
                    "name": network.name(),
                    "title": network.title(),
                    "student": Architecture::STUDENTS.contains(&network),
                    "parameters": network.parameters(CLASSES),
                    "projector_parameters": network.projector_parameters(TEACHER_CHANNELS),
                    "features": [channels, side, side],
                    "relative_work": network.relative_work(),
                })
            });
            format!("{}\n", json!({ "classes": CLASSES, "models": models }))
        }
        Format::Table => {
            let mut builder = tabled::builder::Builder::default();
            let header = ["name", "network", "parameters", "projector", "features", "work"];
            builder.push_record(header);
            for network in Architecture::ALL {
                let (channels, side) = network.feature_map();
                builder.push_record([
                    network.name().to_owned(),
                    network.title().to_owned(),
                    network.parameters(CLASSES).to_string(),
                    network.projector_parameters(TEACHER_CHANNELS).to_string(),
                    format!("{channels}x{side}x{side}"),
                    format!("{:.2}", network.relative_work()),
                ]);
            }
            let table = builder.build().with(tabled::settings::Style::markdown()).to_string();
            format!(
                "{table}\nParameters with {CLASSES} classes; projector onto a map of {TEACHER_CHANNELS} channels; work \
                 relative to VGG-8's.\n"
            )
        }
    };
    print(&text)
}

fn eval(arguments: EvalArguments) -> Result<(), Failure> {
    let path = |path: &PathBuf| path.display().to_string();
    let (weights, input, output) = (path(&arguments.weights), path(&arguments.input), path(&arguments.output));
    let name = arguments.arch.name();
    let words = ["model-eval", "--arch", name, "--weights", &weights, "--input", &input, "--output", &output];
    arguments.trainer.run(&words).map(drop)
}
