//! `devices` and `show`.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use serde_json::json;
use twin_shared::id::DeviceId;

use super::serve::configuration;
use super::{Failure, Format, print, show};
use crate::config::Config;
use crate::store::{Store, StoreError};
use crate::traffic::{Carried, Day};

/// Which host's data.
#[derive(Debug, Args)]
pub(crate) struct DataArguments {
    /// The configuration; the documented defaults without one
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where twins, jobs and keys are kept, instead of the configuration's
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

impl DataArguments {
    /// The configuration, with the data directory that counts.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let mut config = configuration(self.config.as_deref())?;
        if let Some(directory) = &self.data_dir {
            config.data_dir.clone_from(directory);
        }
        Ok(config)
    }

    /// The data directory.
    pub(crate) fn directory(&self) -> Result<PathBuf, Failure> {
        Ok(self.config()?.data_dir)
    }

    /// The store of the data directory.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        Store::open(self.directory()?).map_err(failed)
    }
}

/// Arguments of commands on one device.
#[derive(Debug, Args)]
pub(crate) struct DeviceArguments {
    /// The device's name
    pub(crate) device: DeviceId,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    pub(crate) data: DataArguments,
}

/// Arguments of `devices`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    data: DataArguments,
}

pub(crate) fn failed(error: StoreError) -> Failure {
    Failure::Failed(error.into())
}

/// What is known of a device, for both formats.
fn summary(store: &Store, device: &DeviceId, revoked: bool) -> Result<serde_json::Value, Failure> {
    let twin = store.twin(device).map_err(failed)?;
    let student = store.student(device).map_err(failed)?;
    let dataset = twin.dataset().map(|dataset| {
        let counts = dataset.counts.as_ref();
        json!({
            "version": dataset.version.to_string(),
            "train": counts.map(|counts| counts.train),
            "held_out": counts.map(|counts| counts.held),
            "labels": counts.map(|counts| &counts.labels),
        })
    });
    let student = student.map(|student| {
        json!({
            "job": student.job.0,
            "epochs": student.round + 1,
            "network": student.architecture,
            "site": student.site,
            "state": student.state.to_string(),
        })
    });
    let traffic = json!({ "total": traffic(store, device, Day(0))?, "today": traffic(store, device, today())? });
    let kept = store.kept_samples(device).map_err(failed)?;
    let kept = json!({ "samples": kept.samples, "dropped": kept.dropped });
    Ok(json!({
        "id": device.as_str(),
        "revoked": revoked,
        "dataset": dataset,
        "student": student,
        "samples_from_offline": kept,
        "traffic": traffic,
    }))
}

fn today() -> Day {
    Day::of(SystemTime::now())
}

/// Bytes since a day, by use and way.
fn traffic(store: &Store, device: &DeviceId, since: Day) -> Result<serde_json::Value, Failure> {
    let uses = store.traffic(device, since).map_err(failed)?;
    let uses = uses
        .into_iter()
        .map(|(used, Carried { up, down })| (used.name().to_owned(), json!({ "up_bytes": up, "down_bytes": down })));
    Ok(serde_json::Value::Object(uses.collect()))
}

/// Lists the devices.
pub(crate) fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let store = arguments.data.store()?;
    let devices = store.devices().map_err(failed)?;
    let summaries = devices.iter().map(|record| summary(&store, &record.device, record.revoked));
    let summaries = summaries.collect::<Result<Vec<_>, _>>()?;
    match arguments.format {
        Format::Json => print(&format!("{}\n", json!({ "devices": summaries }))),
        Format::Table => {
            let mut table = tabled::builder::Builder::default();
            table.push_record(["device", "dataset", "images", "student", "epochs"]);
            for device in &summaries {
                let text = |value: &serde_json::Value| match value {
                    serde_json::Value::Null => "-".to_owned(),
                    serde_json::Value::String(text) => text.chars().take(20).collect(),
                    serde_json::Value::Bool(_)
                    | serde_json::Value::Number(_)
                    | serde_json::Value::Array(_)
                    | serde_json::Value::Object(_) => value.to_string(),
                };
                let revoked = device["revoked"].as_bool().unwrap_or(false);
                let name = format!("{}{}", text(&device["id"]), if revoked { " (revoked)" } else { "" });
                let (dataset, student) = (&device["dataset"], &device["student"]);
                table.push_record([
                    name,
                    text(&dataset["version"]),
                    text(&dataset["train"]),
                    text(&student["network"]),
                    text(&student["epochs"]),
                ]);
            }
            print(&format!("{}\n", table.build().with(tabled::settings::Style::psql())))
        }
    }
}

/// Shows one device's twin.
pub(crate) fn show(arguments: &DeviceArguments) -> Result<(), Failure> {
    let store = arguments.data.store()?;
    let record = store.device(&arguments.device).map_err(failed)?;
    let mut shown = summary(&store, &record.device, record.revoked)?;
    let (learnt, decision) = show::details(&store, &record.device)?;
    (shown["learnt"], shown["decision"]) = (learnt, decision);
    match arguments.format {
        Format::Json => print(&format!("{shown}\n")),
        Format::Table => print(&show::text(&shown)),
    }
}
