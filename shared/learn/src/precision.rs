//! Whether convolutions run in f32 or bf16: as asked, or as measured.

use std::str::FromStr;

use tch::{Device, Kind};
use twin_shared::model::Architecture;

use crate::calibrate::{Exercise, Stopwatch};
use crate::error::LearnError;
use crate::place::Place;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// bf16 where training steps measure faster in it, else f32.
    Auto,
    /// 32-bit floats.
    F32,
    /// bfloat16.
    Bf16,
}

impl FromStr for Precision {
    type Err = LearnError;

    fn from_str(text: &str) -> Result<Self, LearnError> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => Err(LearnError::Job(format!("unknown precision `{other}`; known: auto, f32, bf16"))),
        }
    }
}

/// What was settled on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settled {
    /// Device and number format.
    pub place: Place,
    /// f32's time for a step over that of bf16, where it was measured.
    pub gain: Option<f64>,
}

/// Speed-up from which bf16 is worth its rounding.
const WORTH: f64 = 1.1;
/// The first steps choose kernels.
const WARM_UP: u32 = 2;
/// Steps that are timed in each format; the fastest counts, since others wait for whatever else the machine does.
const TIMED: u32 = 3;
/// Images a step.
const BATCH: u32 = 8;

/// Name of a number format.
#[must_use]
pub fn name(compute: Kind) -> &'static str {
    if compute == Kind::BFloat16 { "bf16" } else { "f32" }
}

/// Settles the number format for a device; measures only where the processor has bf16 at all.
///
/// # Errors
/// When LibTorch refuses a training step.
pub fn settle(asked: Precision, device: Device) -> Result<Settled, LearnError> {
    let place = |compute| Place { device, compute };
    match asked {
        Precision::F32 => Ok(Settled { place: place(Kind::Float), gain: None }),
        Precision::Bf16 => Ok(Settled { place: place(Kind::BFloat16), gain: None }),
        Precision::Auto if device == Device::Cpu && !processor_has_bf16() => {
            Ok(Settled { place: place(Kind::Float), gain: None })
        }
        Precision::Auto => {
            let gain = gain(device)?;
            let compute = if gain >= WORTH { Kind::BFloat16 } else { Kind::Float };
            Ok(Settled { place: place(compute), gain: Some(gain) })
        }
    }
}

fn gain(device: Device) -> Result<f64, LearnError> {
    let stopwatch = |compute| {
        let exercise = Exercise::Classify { classes: 10 };
        Stopwatch::new(Architecture::Resnet8x4, exercise, BATCH, Place { device, compute })
    };
    let (mut single, mut half) = (stopwatch(Kind::Float)?, stopwatch(Kind::BFloat16)?);
    let (mut best_single, mut best_half) = (f64::INFINITY, f64::INFINITY);
    for step in 0..WARM_UP + TIMED {
        // In turns, so that a busy moment does not fall on one format alone.
        let seconds = (single.step()?, half.step()?);
        if step >= WARM_UP {
            best_single = best_single.min(seconds.0);
            best_half = best_half.min(seconds.1);
        }
    }
    Ok(best_single / best_half)
}

#[cfg(target_arch = "x86_64")]
fn processor_has_bf16() -> bool {
    std::is_x86_feature_detected!("avx512bf16")
}

#[cfg(target_arch = "aarch64")]
fn processor_has_bf16() -> bool {
    std::arch::is_aarch64_feature_detected!("bf16")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn processor_has_bf16() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_taken_and_auto_measures_or_says_f32() {
        for (text, kind) in [("f32", Kind::Float), ("bf16", Kind::BFloat16)] {
            let settled = settle(text.parse().unwrap(), Device::Cpu).unwrap();
            assert_eq!((settled.place.compute, settled.gain), (kind, None));
            assert_eq!(name(kind), text);
        }
        let auto = settle("auto".parse().unwrap(), Device::Cpu).unwrap();
        let wanted = auto.gain.is_some_and(|gain| gain >= WORTH);
        assert_eq!(auto.place.compute == Kind::BFloat16, wanted);
        assert!("half".parse::<Precision>().is_err());
    }
}
