//! `twin-trainer bench`: images a second of real training steps.

use std::io::Write;

use tch::Kind;
use twin_learn::calibrate::{Exercise, Stopwatch, WARM_UP, median, peak_memory};
use twin_learn::device::Choice;
use twin_shared::model::Architecture;

use crate::Precision;

/// Classes of the network that is timed: CIFAR-100's.
const CLASSES: i64 = 100;

/// Prints `images_per_s` (of the median step) and what it was measured with.
pub(crate) fn bench(
    architecture: Architecture,
    batch: u32,
    steps: u32,
    precision: Precision,
    choice: &Choice,
    threads: i32,
) -> anyhow::Result<()> {
    anyhow::ensure!(steps > 0, "--steps must be at least 1");
    let (compute, name) = match precision {
        Precision::F32 => (Kind::Float, "f32"),
        Precision::Bf16 => (Kind::BFloat16, "bf16"),
    };
    let exercise = Exercise::Classify { classes: CLASSES };
    let mut stopwatch = Stopwatch::new(architecture, exercise, batch, compute, choice.device)?;
    for _ in 0..WARM_UP {
        stopwatch.step()?;
    }
    let seconds = (0..steps).map(|_| stopwatch.step()).collect::<Result<Vec<_>, _>>()?;
    let median = median(seconds).expect("at least one step");
    let report = serde_json::json!({
        "arch": architecture.name(),
        "batch": batch,
        "steps": steps,
        "precision": name,
        "device": choice.told,
        "threads": threads,
        "images_per_s": f64::from(batch) / median,
        "seconds_per_step": median,
        "peak_memory_bytes": peak_memory(),
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}
