//! `twin-agent model`: which models are kept here, and which one answers.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::data::Place;
use super::{Format, print};
use crate::config::Config;
use crate::hook;
use crate::models::{Activation, Models};

#[derive(Debug, Subcommand)]
pub(super) enum ModelCommand {
    /// List the models that are kept, oldest first
    List(ListOptions),
    /// Answer by an earlier model from now on
    Rollback(RollbackOptions),
}

#[derive(Debug, Args)]
pub(super) struct ListOptions {
    #[command(flatten)]
    place: Place,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct RollbackOptions {
    /// The first digits of a version; left out: the one that came before the active
    version: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
struct Row {
    version: String,
    active: bool,
    network: &'static str,
    method: String,
    classes: Vec<String>,
    job: u32,
    epochs: u32,
}

pub(super) fn run(command: &ModelCommand) -> anyhow::Result<()> {
    match command {
        ModelCommand::List(options) => list(options),
        ModelCommand::Rollback(options) => rollback(options),
    }
}

fn list(options: &ListOptions) -> anyhow::Result<()> {
    let config = Config::load(&options.place.config)?;
    let rows: Vec<Row> = Models::at(&config.data_dir)
        .list()?
        .into_iter()
        .map(|kept| Row {
            version: kept.version.to_string(),
            active: kept.active,
            network: kept.about.architecture.name(),
            method: kept.about.method,
            classes: kept.about.classes,
            job: kept.about.job,
            epochs: kept.about.epochs,
        })
        .collect();
    if options.format == Format::Json {
        return print(&format!("{}\n", serde_json::json!({ "models": rows })));
    }
    let mut text = String::from("   version       network     method         classes  job  epochs\n");
    for row in &rows {
        let mark = if row.active { '*' } else { ' ' };
        let version = row.version.get(..12).unwrap_or(&row.version);
        text.push_str(&format!(
            "{mark}  {version:12}  {:10}  {:13}  {:7}  {:3}  {:6}\n",
            row.network,
            row.method,
            row.classes.len(),
            row.job,
            row.epochs
        ));
    }
    print(if rows.is_empty() { "no model is kept here: `twin-host promote` sends one\n" } else { &text })
}

fn rollback(options: &RollbackOptions) -> anyhow::Result<()> {
    let config = Config::load(&options.place.config)?;
    let models = Models::at(&config.data_dir);
    let version = models.target(options.version.as_deref())?;
    match models.roll_back(version)? {
        Activation::Switched => {
            print(&format!("model {version:.12} answers from now on\n"))?;
            Ok(hook::run(&config.model, &config.device, &version, &models.path(&version))?)
        }
        Activation::Already => print(&format!("model {version:.12} answers already\n")),
        Activation::Absent | Activation::Declined => {
            anyhow::bail!("the file of model {version:.12} is gone; `twin-host promote` sends it again")
        }
    }
}
