//! `classes …`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::json;
use twin_data::classes::ClassList;

use super::devices::{DataArguments, failed};
use super::{Failure, Format, print};
use crate::control::{Answer, ControlError, Request, ask};
use crate::store::Store;

/// `classes …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ClassesCommand {
    /// List the classes by index
    List(ListArguments),
    /// Append a class; a job on the list's classes goes on as a new job with a wider teacher
    Add(AddArguments),
    /// Append the classes of a file, a name a line
    Import(ImportArguments),
}

/// Arguments of `classes list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    data: DataArguments,
}

/// Arguments of `classes add`.
#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// The name, as boards' folders have it
    name: String,
    /// Open no job
    #[arg(long)]
    no_job: bool,
    #[command(flatten)]
    data: DataArguments,
}

/// Arguments of `classes import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    /// The file
    file: PathBuf,
    /// Open no job
    #[arg(long)]
    no_job: bool,
    #[command(flatten)]
    data: DataArguments,
}

/// Does what `classes` is asked.
pub(crate) fn classes(command: ClassesCommand) -> Result<(), Failure> {
    match command {
        ClassesCommand::List(arguments) => list(&arguments),
        ClassesCommand::Add(arguments) => append(&arguments.data, vec![arguments.name], arguments.no_job),
        ClassesCommand::Import(arguments) => {
            let path = &arguments.file;
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
            let names: Vec<String> =
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(Into::into).collect();
            if names.is_empty() {
                return Err(Failure::Usage(format!("{}: no names", path.display())));
            }
            append(&arguments.data, names, arguments.no_job)
        }
    }
}

fn append(data: &DataArguments, names: Vec<String>, no_job: bool) -> Result<(), Failure> {
    let mut store = data.store()?;
    let list = store.add_classes(names).map_err(failed)?;
    print(&format!("version {} of the list has {} classes\n", list.version(), list.count()))?;
    match ask(&data.directory()?, &Request::ClassesChanged) {
        // Without a host that serves, boards hear of it when one does.
        Ok(_) | Err(ControlError::NobodyServes(_)) => {}
        Err(error) => return Err(anyhow::Error::from(error).context("telling the host of the new classes").into()),
    }
    if no_job {
        return Ok(());
    }
    widen(data, &store, &list)
}

/// Opens a job that goes on from the latest finished one with the longer list: through the host that serves, else for
/// its next start.
fn widen(data: &DataArguments, store: &Store, list: &ClassList) -> Result<(), Failure> {
    let Some(earlier) = store.widened(list).map_err(failed)? else {
        return print("no finished job is on the list's classes: job start begins one\n");
    };
    let opened = match ask(&data.directory()?, &Request::JobWiden { job: earlier }) {
        Ok(said) => match said.answer {
            Answer::Done { job: Some(job), .. } => job,
            Answer::Done { job: None, .. } | Answer::Refused(_) => return Err(anyhow!("the host opened no job").into()),
        },
        Err(ControlError::NobodyServes(_)) => store.widen_job(earlier).map_err(failed)?,
        Err(error) => return Err(anyhow::Error::from(error).context("opening a job with the new classes").into()),
    };
    print(&format!("job {opened} goes on from job {earlier} with {} classes\n", list.count()))
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let list = arguments.data.store()?.classes().map_err(failed)?;
    match arguments.format {
        Format::Json => print(&format!("{}\n", json!({ "version": list.version(), "classes": list.names() }))),
        Format::Table => {
            let mut table = tabled::builder::Builder::default();
            table.push_record(["index", "class"]);
            for (index, name) in list.names().iter().enumerate() {
                table.push_record([index.to_string(), name.clone()]);
            }
            print(&format!("{}\n", table.build().with(tabled::settings::Style::psql())))
        }
    }
}
