//! `twin-agent diag`: one archive for a bug report.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::print;
use crate::config::Config;
use crate::diag::collect;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where the archive goes, gzipped tar
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let config = Config::load(&options.config)?;
    let out = options.out.display();
    let collected =
        collect(&options.config, &config, &options.out).with_context(|| format!("{out} cannot be written"))?;
    let left_out = match collected.left_out {
        0 => String::new(),
        found => format!("; {found} secrets were found and left out"),
    };
    print(&format!(
        "{out}: {} entries, no keys, images or weights{left_out}. It names this board, its files and its network: read \
         it before you send it.\n",
        collected.entries.len()
    ))
}
