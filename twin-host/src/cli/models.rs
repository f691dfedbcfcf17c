//! `export`, `promote`, `rollback` and `models`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;
use twin_data::bundle::Bundle;
use twin_shared::id::DeviceId;

use super::devices::{DataArguments, failed};
use super::{Failure, Format, print};
use crate::control::{Answer, Request, ask};
use crate::durable;
use crate::export::onnx;

/// The form of an exported model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One file of tensors with everything else in its metadata; what boards hold themselves.
    Safetensors,
    /// A network for any runtime: plain pixels in, logits out.
    Onnx,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The device whose model it is
    device: DeviceId,
    /// Which one: the beginning of its version; the latest without one
    #[arg(long)]
    version: Option<String>,
    /// The form
    #[arg(long, value_enum)]
    format: Form,
    /// The file to write
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    data: DataArguments,
}

/// Writes a model for whoever wants to use it.
pub(crate) fn export(arguments: &ExportArguments) -> Result<(), Failure> {
    let store = arguments.data.store()?;
    let model = store.model(&arguments.device, arguments.version.as_deref()).map_err(failed)?;
    let path = store.blobs(&arguments.device).map_err(failed)?.path(&model.bundle);
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let bytes = match arguments.format {
        Form::Safetensors => bytes,
        Form::Onnx => {
            let bundle = Bundle::from_bytes(&bytes).with_context(|| path.display().to_string())?;
            onnx(&bundle).context("the model")?
        }
    };
    durable::replace(&arguments.out, &bytes).with_context(|| arguments.out.display().to_string())?;
    print(&format!("{}: model {} of {}\n", arguments.out.display(), model.version, arguments.device))
}

/// Arguments of `promote` and `rollback`.
#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// The device
    device: DeviceId,
    /// Which model: the beginning of its version
    version: Option<String>,
    #[command(flatten)]
    data: DataArguments,
}

/// Has a device answer by a model.
pub(crate) fn promote(arguments: VersionArguments) -> Result<(), Failure> {
    let VersionArguments { device, version, data } = arguments;
    steer(&data, &device, &Request::Promote { device: device.clone(), version })
}

/// Has a device answer by an earlier model.
pub(crate) fn rollback(arguments: VersionArguments) -> Result<(), Failure> {
    let VersionArguments { device, version, data } = arguments;
    steer(&data, &device, &Request::RollBack { device: device.clone(), version })
}

fn steer(data: &DataArguments, device: &DeviceId, request: &Request) -> Result<(), Failure> {
    let said = ask(&data.directory()?, request).map_err(anyhow::Error::from)?;
    let Answer::Done { version, .. } = said.answer else { return Ok(()) };
    print(&format!("{device} answers by model {} from now on\n", version.unwrap_or_default()))
}

/// Arguments of `models`.
#[derive(Debug, Args)]
pub(crate) struct ModelsArguments {
    /// The device
    device: DeviceId,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    data: DataArguments,
}

/// Lists a device's models.
pub(crate) fn models(arguments: &ModelsArguments) -> Result<(), Failure> {
    let store = arguments.data.store()?;
    store.device(&arguments.device).map_err(failed)?;
    let models = store.models(&arguments.device).map_err(failed)?;
    let promoted = store.promoted(&arguments.device).map_err(failed)?.map(|model| model.version);
    match arguments.format {
        Format::Json => {
            let models = models.iter().map(|model| {
                json!({
                    "version": model.version.to_string(),
                    "job": model.job.0,
                    "epochs": model.epochs,
                    "network": model.architecture,
                    "held_out": { "correct": model.held_out.correct, "total": model.held_out.total },
                    "promoted": promoted == Some(model.version),
                    "made": model.made,
                })
            });
            let models = models.collect::<Vec<_>>();
            print(&format!("{}\n", json!({ "device": arguments.device.as_str(), "models": models })))
        }
        Format::Table => {
            let mut table = tabled::builder::Builder::default();
            table.push_record(["version", "job", "epochs", "network", "held out", ""]);
            for model in &models {
                let score = model.held_out;
                table.push_record([
                    format!("{:.12}", model.version.to_string()),
                    model.job.to_string(),
                    model.epochs.to_string(),
                    model.architecture.clone(),
                    format!("{} of {}", score.correct, score.total),
                    if promoted == Some(model.version) { "promoted".into() } else { String::new() },
                ]);
            }
            print(&format!("{}\n", table.build().with(tabled::settings::Style::psql())))
        }
    }
}
