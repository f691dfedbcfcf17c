//! What trained an experiment: device, threads and number format decide the bits of a result, so they are recorded,
//! and an experiment is gone on with in the format in which it was begun.

use std::path::Path;

use anyhow::{Context, bail};

use super::work::write_json;
use crate::train::{TrainerConfig, TrainerInfo};

const FILE: &str = "trainer.json";

/// Every trainer that took part so far, in order; none at the beginning.
fn recorded(out: &Path) -> anyhow::Result<Vec<TrainerInfo>> {
    let path = out.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| path.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The trainer to start: an automatic number format is that of the beginning, and another one is refused.
pub(super) fn as_begun(out: &Path, trainer: &TrainerConfig) -> anyhow::Result<TrainerConfig> {
    let mut trainer = trainer.clone();
    if let Some(first) = recorded(out)?.into_iter().next() {
        if trainer.precision == "auto" {
            trainer.precision = first.precision;
        } else if trainer.precision != first.precision {
            bail!(
                "{} was begun in {}; go on with --precision {}, or name another --out",
                out.display(),
                first.precision,
                first.precision
            );
        }
    }
    Ok(trainer)
}

/// Adds a trainer to the record, unless it is the last one's like; gives all.
pub(super) fn record(out: &Path, info: &TrainerInfo) -> anyhow::Result<Vec<TrainerInfo>> {
    let mut all = recorded(out)?;
    if all.last() != Some(info) {
        all.push(info.clone());
        write_json(&out.join(FILE), &all)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_format_of_the_beginning_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let config = |precision: &str| TrainerConfig {
            program: "twin-trainer".into(),
            threads: 1,
            device: "cpu".into(),
            precision: precision.into(),
        };
        assert_eq!(as_begun(out, &config("auto")).unwrap().precision, "auto");
        let info =
            |threads| TrainerInfo { libtorch: "2.9".into(), device: "cpu".into(), threads, precision: "bf16".into() };
        assert_eq!(record(out, &info(1)).unwrap().len(), 1);
        assert_eq!(record(out, &info(1)).unwrap().len(), 1);
        assert_eq!(record(out, &info(2)).unwrap().len(), 2);
        assert_eq!(as_begun(out, &config("auto")).unwrap().precision, "bf16");
        assert!(as_begun(out, &config("f32")).unwrap_err().to_string().contains("--precision bf16"));
    }
}
