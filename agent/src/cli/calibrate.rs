//! `twin-agent calibrate`: what training each student takes here, for people or programs.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use twin_data::Part;

use super::{Format, print};
use crate::calibration::{BATCH, Calibration, Conditions, Verdict, calibrate};
use crate::config::Config;
use crate::{dataset, lock};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// Images of a mini-batch; the host asks for its job's
    #[arg(long, value_name = "IMAGES", default_value_t = BATCH, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Measure everything again, also what still holds, and try students again that did not fit
    #[arg(long)]
    again: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

pub(super) fn run(options: &Options) -> anyhow::Result<()> {
    let config = Config::load(&options.config)?;
    let program = config.trainer.program.display();
    let conditions = Conditions::now(&config.trainer, options.batch)
        .with_context(|| format!("nothing can be trained here without a trainer: {program}"))?;
    let kept = Calibration::kept(&config.data_dir, &conditions).filter(|_| !options.again);
    let calibration = match kept {
        Some(kept) if kept.is_complete() => kept,
        kept => measured(&config, options.batch, kept)?,
    };
    let samples = samples(&config);
    match options.format {
        Format::Table => print(&table(&calibration, samples)),
        Format::Json => print(&format!("{:#}\n", as_json(&calibration, samples))),
    }
}

/// Measures what is missing, keeping each student's figures at once: who stops it loses the student in progress only.
fn measured(config: &Config, batch: u32, kept: Option<Calibration>) -> anyhow::Result<Calibration> {
    let _lock = lock::take(&config.data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let people = io::stderr().is_terminal();
    let mut keeping = Ok(());
    let told = |calibration: &Calibration| {
        keeping = calibration.keep(&config.data_dir);
        if people {
            let left = calibration.missing().count();
            // Progress is no reason to fail.
            let _ = writeln!(io::stderr(), "measured {}; {left} to go", calibration.verdicts().count());
        }
    };
    let calibration = runtime.block_on(calibrate(&config.trainer, kept, batch, told))?;
    keeping.with_context(|| format!("the calibration cannot be kept in {}", config.data_dir.display()))?;
    Ok(calibration)
}

/// Images of an epoch: those of the board's dataset that are not held out.
fn samples(config: &Config) -> Option<usize> {
    let described = config.dataset.as_ref()?;
    match dataset::read(described) {
        Ok(set) => Some(set.indices(Part::Train).len()),
        Err(error) => {
            tracing::warn!(%error, "the dataset of [dataset] cannot be read: no times of an epoch");
            None
        }
    }
}

/// An epoch of so many images, seconds.
fn seconds_per_epoch(seconds_per_step: f64, samples: usize, batch: u32) -> f64 {
    let steps = samples.div_ceil(batch as usize);
    seconds_per_step * f64::from(u32::try_from(steps).unwrap_or(u32::MAX))
}

fn table(calibration: &Calibration, samples: Option<usize>) -> String {
    let Conditions { kernel, threads, batch, .. } = &calibration.conditions;
    let mut text = format!(
        "LibTorch {}, kernel {kernel}, {threads} threads, mini-batches of {batch}\n{:<12}{:>16}",
        calibration.libtorch, "student", "seconds a step"
    );
    if let Some(samples) = samples {
        let head = format!("an epoch of {samples}");
        write!(text, "{head:>22}").expect("a string takes all");
    }
    writeln!(text, "{:>14}", "peak memory").expect("a string takes all");
    for (student, verdict) in calibration.verdicts() {
        let line = match verdict {
            Verdict::Fits { seconds_per_step, peak_memory } => {
                let epoch = samples.map_or_else(String::new, |samples| {
                    format!("{:>20.1} s", seconds_per_epoch(*seconds_per_step, samples, *batch))
                });
                let memory = peak_memory.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
                format!("{student:<12}{seconds_per_step:>16.3}{epoch}{memory:>14}")
            }
            Verdict::DoesNotFit { why } => format!("{student:<12}does not fit: {why}"),
        };
        writeln!(text, "{line}").expect("a string takes all");
    }
    text
}

fn as_json(calibration: &Calibration, samples: Option<usize>) -> Value {
    let Conditions { kernel, threads, batch, .. } = &calibration.conditions;
    let students: Vec<Value> = calibration
        .verdicts()
        .map(|(student, verdict)| match verdict {
            Verdict::Fits { seconds_per_step, peak_memory } => json!({
                "student": student.name(),
                "fits": true,
                "seconds_per_step": seconds_per_step,
                "seconds_per_epoch": samples.map(|samples| seconds_per_epoch(*seconds_per_step, samples, *batch)),
                "peak_memory_bytes": peak_memory,
            }),
            Verdict::DoesNotFit { why } => json!({ "student": student.name(), "fits": false, "why": why }),
        })
        .collect();
    json!({
        "libtorch": calibration.libtorch,
        "kernel": kernel,
        "threads": threads,
        "batch": batch,
        "samples": samples,
        "students": students,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::model::Architecture;

    #[test]
    fn people_and_programs_read_the_same() {
        let conditions = Conditions { kernel: "6.6".to_owned(), threads: 4, batch: 64, trainer: (0, 0) };
        let mut calibration = Calibration::new("2.9.0".to_owned(), conditions);
        let fits = Verdict::Fits { seconds_per_step: 2.0, peak_memory: Some(600 << 20) };
        calibration.judge(Architecture::Vgg8, fits);
        calibration.judge(Architecture::Resnet8x4, Verdict::DoesNotFit { why: "memory ran out".to_owned() });
        let text = table(&calibration, Some(100));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("LibTorch 2.9.0, kernel 6.6, 4 threads"), "{text}");
        assert!(lines[2].starts_with("vgg8 ") && lines[2].contains("4.0 s") && lines[2].ends_with("600 MiB"), "{text}");
        assert_eq!(lines[3], "resnet8x4   does not fit: memory ran out");
        assert!(lines.iter().all(|line| !line.ends_with(' ')), "{text}");
        let json = as_json(&calibration, Some(100));
        assert_eq!(json["students"][0]["seconds_per_epoch"], 4.0, "100 images are two mini-batches of 64");
        assert_eq!(json["students"][1]["fits"], false);
        assert_eq!(as_json(&calibration, None)["students"][0]["seconds_per_epoch"], Value::Null);
    }
}
