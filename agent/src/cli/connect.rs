//! `twin-agent connect --test`: what works between this board and its host, and what does not.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::{Format, print};
use crate::config::Config;
use crate::connect::{Check, Verdict, test};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Look at broker, certificate, access rules, round trip and throughput; nothing else connects from the command line
    #[arg(long, required = true)]
    test: bool,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let config = Config::load(&options.config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut told = Ok(());
    let tell = |check: &Check| {
        if options.format == Format::Table && told.is_ok() {
            told = print(&format!("{check}\n"));
        }
    };
    let checks = runtime.block_on(test(&config, tell))?;
    told?;
    if options.format == Format::Json {
        print(&format!("{:#}\n", as_json(&checks)))?;
    }
    let failed: Vec<&str> =
        checks.iter().filter(|check| matches!(check.verdict, Verdict::Fails { .. })).map(|check| check.name).collect();
    if !failed.is_empty() {
        bail!("{} of {} do not work: {}", failed.len(), checks.len(), failed.join(", "));
    }
    Ok(())
}

fn as_json(checks: &[Check]) -> Value {
    let works = checks.iter().all(|check| matches!(check.verdict, Verdict::Works(_)));
    let checks: Vec<Value> = checks
        .iter()
        .map(|Check { name, verdict }| match verdict {
            Verdict::Works(what) => json!({ "check": name, "works": true, "what": what }),
            Verdict::Fails { what, advice } => json!({ "check": name, "works": false, "what": what, "advice": advice }),
            Verdict::NotTried => json!({ "check": name, "works": null }),
        })
        .collect();
    json!({ "works": works, "checks": checks })
}
