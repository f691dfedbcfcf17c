//! `serve` and `config`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::sync::watch;

use super::Failure;
use crate::config::{Config, Job};
use crate::serve::Host;
use crate::store::Store;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The configuration; the documented defaults without one
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where twins, jobs and keys are kept, instead of the configuration's
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where to train: auto, cpu or cuda:0, instead of the configuration's
    #[arg(long)]
    device: Option<String>,
    /// embedded, or mqtts://HOST:PORT for another broker, instead of the configuration's
    #[arg(long)]
    broker: Option<String>,
    /// A job to run, unless the latest job is this one and is not over; the host goes on serving after it
    #[arg(long)]
    job: Option<PathBuf>,
    /// Append samples, events and decisions to files in this folder, for `experiment replay`
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
}

/// `config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the default configuration with its documentation
    Default,
}

/// Reads a configuration file, or takes the defaults.
pub(crate) fn configuration(path: Option<&Path>) -> Result<Config, Failure> {
    let Some(path) = path else { return Config::parse("").map_err(|error| Failure::Usage(error.to_string())) };
    Config::parse(&read(path)?).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Logs to standard error, as `RUST_LOG` says; warnings unless it says.
pub(crate) fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    // A second call, in tests, keeps the first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// The runtime of everything that waits.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::from(error).context("starting the runtime").into())
}

/// Serves until SIGINT or SIGTERM.
pub(crate) fn serve(arguments: ServeArguments) -> Result<(), Failure> {
    log();
    let mut config = configuration(arguments.config.as_deref())?;
    if let Some(data_dir) = arguments.data_dir {
        config.data_dir = data_dir;
    }
    if let Some(device) = arguments.device {
        config.trainer.device = device;
    }
    if let Some(broker) = &arguments.broker {
        config.choose_broker(broker).map_err(|error| Failure::Usage(error.to_string()))?;
    }
    let job = match &arguments.job {
        None => None,
        Some(path) => {
            let text = read(path)?;
            let listed =
                Store::open(&config.data_dir).and_then(|store| store.classes()).map_err(anyhow::Error::from)?;
            let job = Job::parse(&text, listed.count())
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
            Some((job, text))
        }
    };
    runtime()?.block_on(serving(config, job, arguments.record.as_deref())).map_err(Failure::from)
}

async fn serving(config: Config, job: Option<(Job, String)>, record: Option<&Path>) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let (stop, ending) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        let _ = stop.send(true);
        // Kept until the end: a dropped sender would count as a stop as well.
        std::future::pending::<()>().await;
    });
    let mut host = Host::start(config).await?;
    if let Some(folder) = record {
        host.record(folder).with_context(|| format!("--record {}", folder.display()))?;
    }
    for address in host.addresses() {
        tracing::info!(?address, "boards connect here");
    }
    if let Some((job, text)) = job {
        host.take_in(&job, &text)?;
    }
    let served = host.serve(ending).await;
    host.stop().await;
    served.map_err(Into::into)
}
