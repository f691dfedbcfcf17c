//! Seconds a sample on a board, by student: from its calibration, and better, from its real epochs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use twin_shared::model::Architecture;
use twin_shared::units::Gigahertz;
use twin_shared::wire::BoardCalibration;

/// The weight of the newest epoch: a few epochs decide, a single odd one does not.
const NEWEST: f64 = 0.5;

/// Where a speed comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpeedSource {
    /// Timed steps.
    Calibration,
    /// Real epochs.
    Epochs,
    /// A deadline that passed: it takes at least that long.
    Missed,
}

impl SpeedSource {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calibration => "measured by calibration",
            Self::Epochs => "measured in epochs",
            Self::Missed => "a missed deadline",
        }
    }
}

/// What a student takes on a board.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Seconds a sample, at `clock`.
    pub seconds_per_sample: f64,
    /// The board's clock then, where it was known.
    pub clock: Option<f64>,
    /// How it is known.
    pub source: SpeedSource,
}

impl Speed {
    fn checked(seconds_per_sample: f64, clock: Option<Gigahertz>, source: SpeedSource) -> Option<Self> {
        let clock = clock.filter(|ghz| ghz.is_positive_finite()).map(|ghz| ghz.0);
        let sound = seconds_per_sample > 0.0 && seconds_per_sample.is_finite();
        sound.then_some(Self { seconds_per_sample, clock, source })
    }

    /// Seconds a sample at another clock: work that is bound by arithmetic slows down with it.
    #[must_use]
    pub fn at(&self, clock: Option<Gigahertz>) -> f64 {
        match (self.clock, clock.filter(|ghz| ghz.is_positive_finite())) {
            (Some(then), Some(now)) => self.seconds_per_sample * then / now.0,
            (None, _) | (_, None) => self.seconds_per_sample,
        }
    }
}

/// What every student takes on a board, as far as it is known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Speeds {
    /// The latest calibration.
    calibration: Option<BoardCalibration>,
    known: BTreeMap<Architecture, Speed>,
    /// Students that were tried and did not train there.
    unfit: BTreeSet<Architecture>,
    /// Peak memory of the trainer, KiB.
    memory_kib: BTreeMap<Architecture, u32>,
}

impl Speeds {
    /// Takes a calibration; whether it says anything new. It replaces what was known of the students in it: the board,
    /// its system or its LibTorch has changed since. The same one again (a board says it at every birth) changes
    /// nothing, and leaves what real epochs have told.
    pub fn calibrate(&mut self, calibration: BoardCalibration) -> bool {
        if calibration.students.is_empty() || self.calibration.as_ref() == Some(&calibration) {
            return false;
        }
        let clock = calibration.megahertz.map(|mhz| Gigahertz(f64::from(mhz) / 1e3));
        for student in &calibration.students {
            let architecture = student.architecture;
            self.known.remove(&architecture);
            if student.fits {
                self.unfit.remove(&architecture);
                let seconds = f64::from(student.seconds_per_sample);
                self.known.extend(
                    Speed::checked(seconds, clock, SpeedSource::Calibration).map(|speed| (architecture, speed)),
                );
            } else {
                self.unfit.insert(architecture);
            }
            if student.peak_memory_kib > 0 {
                self.memory_kib.insert(architecture, student.peak_memory_kib);
            }
        }
        self.calibration = Some(calibration);
        true
    }

    /// The latest calibration.
    #[must_use]
    pub const fn calibration(&self) -> Option<&BoardCalibration> {
        self.calibration.as_ref()
    }

    /// An epoch was trained there: seconds without the wait for labels.
    pub fn trained(&mut self, architecture: Architecture, seconds: f64, samples: u32, clock: Option<Gigahertz>) {
        let Some(newest) = Speed::checked(seconds / f64::from(samples), clock, SpeedSource::Epochs) else { return };
        let smoothed = match self.known.get(&architecture) {
            Some(known) if known.source == SpeedSource::Epochs => {
                let seconds = NEWEST * newest.seconds_per_sample + (1.0 - NEWEST) * known.at(clock);
                Speed { seconds_per_sample: seconds, ..newest }
            }
            Some(_) | None => newest,
        };
        self.known.insert(architecture, smoothed);
    }

    /// An epoch was not done after so many seconds: it takes at least that. Says so until an epoch or a calibration
    /// tells better.
    pub fn missed(&mut self, architecture: Architecture, seconds: f64, samples: u32, clock: Option<Gigahertz>) {
        let Some(least) = Speed::checked(seconds / f64::from(samples), clock, SpeedSource::Missed) else { return };
        let known = self.known.get(&architecture).map(|known| known.at(clock));
        if known.is_none_or(|known| known < least.seconds_per_sample) {
            self.known.insert(architecture, least);
        }
    }

    /// What a student takes, if it was ever measured.
    #[must_use]
    pub fn of(&self, architecture: Architecture) -> Option<&Speed> {
        self.known.get(&architecture)
    }

    /// Whether a student was tried and did not train there.
    #[must_use]
    pub fn is_unfit(&self, architecture: Architecture) -> bool {
        self.unfit.contains(&architecture)
    }

    /// Peak memory of the trainer with a student, KiB, if it was ever measured.
    #[must_use]
    pub fn memory_kib(&self, architecture: Architecture) -> Option<u32> {
        self.memory_kib.get(&architecture).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use twin_shared::wire::StudentCalibration;

    const VGG: Architecture = Architecture::Vgg8;

    fn calibration(seconds_per_sample: f32, fits: bool) -> BoardCalibration {
        let student = StudentCalibration { architecture: VGG, seconds_per_sample, peak_memory_kib: 1, fits };
        BoardCalibration {
            libtorch: heapless::String::new(),
            kernel: heapless::String::new(),
            threads: 4,
            batch: 64,
            megahertz: Some(1500),
            students: heapless::Vec::from_slice(&[student]).expect("one"),
        }
    }

    #[test]
    fn a_calibration_is_scaled_to_the_present_clock() {
        let mut speeds = Speeds::default();
        speeds.calibrate(calibration(0.5, true));
        let speed = speeds.of(VGG).expect("known");
        assert_eq!(speed.at(Some(Gigahertz(1.5))), 0.5);
        assert_eq!(speed.at(Some(Gigahertz(0.75))), 1.0);
        assert_eq!(speed.at(None), 0.5);
    }

    #[test]
    fn a_student_that_does_not_fit_is_out_until_it_does() {
        let mut speeds = Speeds::default();
        speeds.calibrate(calibration(0.0, false));
        assert!(speeds.is_unfit(VGG) && speeds.of(VGG).is_none());
        speeds.calibrate(calibration(0.5, true));
        assert!(!speeds.is_unfit(VGG) && speeds.of(VGG).is_some());
    }

    #[test]
    fn real_epochs_replace_a_calibration_and_smooth_each_other() {
        let mut speeds = Speeds::default();
        speeds.calibrate(calibration(0.5, true));
        speeds.trained(VGG, 100.0, 100, Some(Gigahertz(1.5)));
        assert_eq!(speeds.of(VGG).expect("known").seconds_per_sample, 1.0);
        speeds.trained(VGG, 300.0, 100, Some(Gigahertz(1.5)));
        assert_eq!(speeds.of(VGG).expect("known").seconds_per_sample, 2.0);
    }

    #[test]
    fn the_same_calibration_again_leaves_what_epochs_told() {
        let mut speeds = Speeds::default();
        assert!(speeds.calibrate(calibration(0.5, true)));
        speeds.trained(VGG, 100.0, 100, None);
        assert!(!speeds.calibrate(calibration(0.5, true)));
        assert_eq!(speeds.of(VGG).map(|speed| speed.source), Some(SpeedSource::Epochs));
        assert!(speeds.calibrate(calibration(0.25, true)));
        assert_eq!(speeds.of(VGG).map(|speed| speed.source), Some(SpeedSource::Calibration));
    }

    #[test]
    fn a_missed_deadline_is_a_lower_bound_only() {
        let mut speeds = Speeds::default();
        speeds.calibrate(calibration(0.5, true));
        speeds.missed(VGG, 10.0, 100, Some(Gigahertz(1.5)));
        assert_eq!(speeds.of(VGG).expect("known").source, SpeedSource::Calibration);
        speeds.missed(VGG, 200.0, 100, Some(Gigahertz(1.5)));
        assert_eq!(
            speeds.of(VGG).map(|speed| (speed.seconds_per_sample, speed.source)),
            Some((2.0, SpeedSource::Missed))
        );
        speeds.trained(VGG, 100.0, 100, Some(Gigahertz(1.5)));
        assert_eq!(speeds.of(VGG).expect("known").seconds_per_sample, 1.0);
    }

    proptest! {
        /// Whatever a board claims, what is kept is a positive number of seconds.
        #[test]
        fn nothing_but_positive_numbers_is_kept(
            calibrated in any::<f32>(), seconds in any::<f64>(), samples in any::<u32>(), clock in any::<f64>(),
        ) {
            let mut speeds = Speeds::default();
            speeds.calibrate(calibration(calibrated, true));
            speeds.trained(VGG, seconds, samples, Some(Gigahertz(clock)));
            speeds.missed(VGG, seconds, samples, Some(Gigahertz(clock)));
            if let Some(speed) = speeds.of(VGG) {
                prop_assert!(speed.seconds_per_sample > 0.0 && speed.seconds_per_sample.is_finite());
            }
        }
    }
}
