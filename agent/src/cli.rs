//! The command line.

mod calibrate;
mod connect;
mod data;
mod diag;
mod model;
mod predict;
mod probe;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use twin_shared::config::ConfigError;

use crate::config::{self, Config, LoadError};

/// Where the packages put the configuration.
const CONFIG: &str = "/etc/twin-agent/agent.toml";

/// The resident agent of a board: reports what the board can do, and trains its student when it may.
#[derive(Debug, Parser)]
#[command(name = "twin-agent", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect to the host, report, and train when it may: what the service runs
    Run(RunOptions),
    /// Take one sample of the board and print it: every figure with its source, "unknown" where the board cannot tell
    Probe(probe::Options),
    /// Time real training steps of every student that fits, and print seconds and memory
    Calibrate(calibrate::Options),
    /// Find out what works between this board and its host, and what does not
    Connect(connect::Options),
    /// Collect one archive for a bug report: logs, configuration, condition; no keys, images or weights
    Diag(diag::Options),
    /// The board's pictures: add, check, count and label them
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Say what pictures show, by the model that is active here
    Predict(predict::Options),
    /// The models that this board may answer by
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Work with configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
struct RunOptions {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the default configuration with its documentation
    Default,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// One JSON object
    Json,
}

/// Why a command line or a configuration is wrong; told apart from work that failed by its exit status.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs the program: exit status 0 if done, 1 if it failed, 2 if it was called or configured wrongly.
#[must_use]
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run(options) => run(&options),
        Command::Probe(options) => probe::run(&options),
        Command::Calibrate(options) => calibrate::run(&options),
        Command::Connect(options) => connect::run(&options),
        Command::Diag(options) => diag::run(&options),
        Command::Data(command) => data::run(&command),
        Command::Predict(options) => predict::run(&options),
        Command::Model(command) => model::run(&command),
        Command::Config(ConfigCommand::Default) => print(config::DEFAULT),
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    // Standard error may be closed; the exit status says it too.
    let _ = writeln!(io::stderr(), "twin-agent: {error:#}");
    ExitCode::from(if error.is::<Usage>() || error.is::<ConfigError>() || error.is::<LoadError>() { 2 } else { 1 })
}

/// The resident agent. Logs go to standard error, filtered by `RUST_LOG` (default `info`).
fn run(options: &RunOptions) -> anyhow::Result<()> {
    let config = Config::load(&options.config)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,rumqttc=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    crate::run::run(config)
}

/// Puts text on standard output; whoever stops reading has seen enough.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
