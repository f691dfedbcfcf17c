//! `twin-trainer bench`: images a second of real training steps.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use twin_data::IMAGE_BYTES;
use twin_data::augment::Augmenter;
use twin_learn::calibrate::{Exercise, Stopwatch, WARM_UP, median, peak_memory};
use twin_learn::device::Choice;
use twin_learn::{Place, precision};
use twin_shared::model::Architecture;
use twin_shared::plan::Augmentation;

/// Classes of the network that is timed: CIFAR-100's.
const CLASSES: i64 = 100;

/// Prints `images_per_s` (of the median step), what part of a step augmenting its images would take, and what it was
/// measured with.
pub(crate) fn bench(
    architecture: Architecture,
    batch: u32,
    steps: u32,
    choice: &Choice,
    place: Place,
    threads: i32,
) -> anyhow::Result<()> {
    anyhow::ensure!(steps > 0, "--steps must be at least 1");
    let exercise = Exercise::Classify { classes: CLASSES };
    let mut stopwatch = Stopwatch::new(architecture, exercise, batch, place)?;
    for _ in 0..WARM_UP {
        stopwatch.step()?;
    }
    let seconds = (0..steps).map(|_| stopwatch.step()).collect::<Result<Vec<_>, _>>()?;
    let median = median(seconds).expect("at least one step");
    let report = serde_json::json!({
        "arch": architecture.name(),
        "batch": batch,
        "steps": steps,
        "precision": precision::name(place.compute),
        "device": choice.told,
        "threads": threads,
        "images_per_s": f64::from(batch) / median,
        "seconds_per_step": median,
        "augmentation_share": augmentation_seconds(batch) / median,
        "peak_memory_bytes": peak_memory(),
    });
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

/// What augmenting a mini-batch takes, as in training: a crop out of the padded image, mirrored half of the time.
fn augmentation_seconds(batch: u32) -> f64 {
    let augmenter = Augmenter::new(1, 0, Augmentation { crop_padding: 4, flip: true });
    let image = [127; IMAGE_BYTES];
    let mut out = [0; IMAGE_BYTES];
    let start = Instant::now();
    for index in 0..batch {
        augmenter.apply(index, black_box(&image), &mut out);
        black_box(&mut out);
    }
    start.elapsed().as_secs_f64()
}
