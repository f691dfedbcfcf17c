//! A `twin-trainer` that does one thing and ends: this program does not link LibTorch.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use clap::Args;

use super::Failure;

/// Which trainer, and how it computes.
#[derive(Debug, Args)]
pub(crate) struct TrainerArguments {
    /// Threads of the trainer; one for each processor core unless said
    #[arg(long)]
    threads: Option<u16>,
    /// Where to compute: auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// The twin-trainer program; beside this one unless said
    #[arg(long)]
    trainer: Option<PathBuf>,
}

/// The trainer beside this program, unless another was named.
pub(crate) fn program(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match named {
        Some(program) => Ok(program),
        None => Ok(std::env::current_exe().context("this program's own place")?.with_file_name("twin-trainer")),
    }
}

impl TrainerArguments {
    /// Runs it to its end; gives its standard output. What it says to people is passed on if it succeeds, and is the
    /// failure if not.
    pub(crate) fn run(self, arguments: &[&str]) -> Result<String, Failure> {
        let program = program(self.trainer)?;
        let mut command = Command::new(&program);
        command.arg("--device").arg(self.device);
        if let Some(threads) = self.threads {
            command.arg("--threads").arg(threads.to_string());
        }
        let output = command.args(arguments).stdin(Stdio::null()).output().with_context(|| {
            format!("{} does not start; build it with scripts/demo or cargo build -p twin-trainer", program.display())
        });
        let output = output.map_err(Failure::from)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let line = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            let line = line.strip_prefix("twin-trainer: ").unwrap_or(line);
            return Err(match output.status.code() {
                Some(_) => anyhow!("{line}"),
                None => anyhow!("twin-trainer was killed ({}): {line}", output.status),
            }
            .into());
        }
        for line in said.lines() {
            super::note(line);
        }
        String::from_utf8(output.stdout).context("the trainer's answer is no text").map_err(Failure::from)
    }
}
