//! `experiment demo`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, print};
use crate::experiment::demo::{Programs, Request, Scored, run};

/// Arguments of `experiment demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Folder with boards.toml, host.toml and job.toml
    #[arg(long, default_value = "demo")]
    scenario: PathBuf,
    /// The handwritten digits
    #[arg(long, default_value = "data/digits/digits.csv.gz")]
    digits: PathBuf,
    /// Where everything goes; an earlier demo's folder is emptied
    #[arg(long, default_value = "out/demo")]
    out: PathBuf,
    /// Score on the images that neither a board nor the test set holds, to choose a recipe without the test set
    #[arg(long)]
    validation: bool,
    /// The twin-agent program; beside this one unless said
    #[arg(long)]
    agent: Option<PathBuf>,
    /// The twin-trainer program; beside this one unless said
    #[arg(long)]
    trainer: Option<PathBuf>,
}

/// Runs the demo and prints its table.
pub(crate) fn demo(arguments: DemoArguments) -> Result<(), Failure> {
    super::serve::log();
    let beside = |given: Option<PathBuf>, name: &str| -> Result<PathBuf, Failure> {
        let path = match given {
            Some(path) => path,
            None => std::env::current_exe().map_err(anyhow::Error::from)?.with_file_name(name),
        };
        path.canonicalize().map_err(|error| Failure::Usage(format!("{}: {error}; build it first", path.display())))
    };
    let request = Request {
        scenario: arguments.scenario,
        digits: arguments.digits,
        out: arguments.out,
        programs: Programs {
            agent: beside(arguments.agent, "twin-agent")?,
            trainer: beside(arguments.trainer, "twin-trainer")?,
        },
        scored: if arguments.validation { Scored::Validation } else { Scored::Test },
    };
    let table = super::serve::runtime()?.block_on(run(&request))?;
    print(&table)
}
