//! What training each student takes on this board, measured with real steps, and which students do not fit.
//!
//! It holds for the trainer, its LibTorch, the kernel, the threads and the mini-batch that it was measured with, and
//! is measured again when one of them changes.

mod measure;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use twin_shared::model::Architecture;
use twin_shared::wire::{BoardCalibration, StudentCalibration};

use crate::config::Trainer;
use crate::durable;
pub use measure::{CalibrateError, calibrate};

/// Images of a mini-batch that is timed where nobody asks for another size.
pub const BATCH: u32 = 64;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// LibTorch's version.
    pub libtorch: String,
    /// What else it holds for.
    pub conditions: Conditions,
    /// Mean clock of the cores while it was measured, MHz; `None` where unknown.
    pub megahertz: Option<u32>,
    students: BTreeMap<Architecture, Verdict>,
}

/// What can be known without starting the trainer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The kernel's release.
    pub kernel: String,
    /// Threads of a step.
    pub threads: u32,
    /// Images of a mini-batch.
    pub batch: u32,
    /// The trainer's length, bytes, and the time of its last change, seconds since 1970: another one is measured
    /// afresh.
    pub trainer: (u64, u64),
}

/// How a student does here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It can be trained.
    Fits {
        /// One mini-batch, median after warm-up, seconds.
        seconds_per_step: f64,
        /// The trainer's peak resident memory, bytes, where the kernel says.
        peak_memory: Option<u64>,
    },
    /// It cannot.
    DoesNotFit {
        /// What became of the attempt.
        why: String,
    },
}

impl Conditions {
    /// Those of now.
    ///
    /// # Errors
    /// When there is no trainer, or the kernel does not say its release.
    pub fn now(trainer: &Trainer, batch: u32) -> io::Result<Self> {
        let program = fs::metadata(&trainer.program)?;
        let changed = program.modified()?.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = trainer.threads.map_or_else(|| u32::try_from(cores()).unwrap_or(1), u32::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim_end().to_owned();
        Ok(Self { kernel, threads, batch, trainer: (program.len(), changed) })
    }
}

impl Calibration {
    /// Nothing measured yet.
    #[must_use]
    pub const fn new(libtorch: String, conditions: Conditions) -> Self {
        Self { libtorch, conditions, megahertz: None, students: BTreeMap::new() }
    }

    /// What an earlier life measured, if it still holds as far as can be known without starting the trainer. One that
    /// cannot be read is measured again.
    #[must_use]
    pub fn kept(data_dir: &Path, conditions: &Conditions) -> Option<Self> {
        let file = file(data_dir);
        match durable::read(&file) {
            Ok(None) => None,
            Ok(Some(bytes)) => match serde_json::from_slice::<Self>(&bytes) {
                Ok(calibration) => Some(calibration).filter(|calibration| calibration.conditions == *conditions),
                Err(error) => {
                    tracing::warn!(file = %file.display(), %error, "the calibration is damaged and is measured again");
                    None
                }
            },
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the calibration cannot be read");
                None
            }
        }
    }

    /// Keeps it for later lives.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep(&self, data_dir: &Path) -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        durable::replace(&file(data_dir), &bytes)
    }

    /// What is known of a student.
    #[must_use]
    pub fn verdict(&self, student: Architecture) -> Option<&Verdict> {
        self.students.get(&student)
    }

    /// A student was measured, or failed.
    pub fn judge(&mut self, student: Architecture, verdict: Verdict) {
        self.students.insert(student, verdict);
    }

    /// Students of which nothing is known yet, least work first.
    pub fn missing(&self) -> impl Iterator<Item = Architecture> + '_ {
        Architecture::STUDENTS.into_iter().filter(|student| !self.students.contains_key(student))
    }

    /// Whether every student was measured or did not fit.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// As the host is told. `duty` is the share of time, in (0, 1], that training takes here: what it adds is in the
    /// seconds.
    #[must_use]
    pub fn report(&self, duty: f64) -> BoardCalibration {
        let batch = self.conditions.batch;
        let students = self.students.iter().map(|(&architecture, verdict)| match verdict {
            Verdict::Fits { seconds_per_step, peak_memory } => {
                let kib = peak_memory.map_or(0, |bytes| u32::try_from(bytes >> 10).unwrap_or(u32::MAX));
                let seconds = seconds_per_step / f64::from(batch.max(1)) / duty;
                #[expect(clippy::cast_possible_truncation, reason = "a time needs no 53 bits")]
                let seconds_per_sample = seconds as f32;
                StudentCalibration { architecture, seconds_per_sample, peak_memory_kib: kib, fits: true }
            }
            Verdict::DoesNotFit { .. } => {
                StudentCalibration { architecture, seconds_per_sample: 0.0, peak_memory_kib: 0, fits: false }
            }
        });
        BoardCalibration {
            libtorch: cut(&self.libtorch),
            kernel: cut(&self.conditions.kernel),
            threads: u16::try_from(self.conditions.threads).unwrap_or(u16::MAX),
            batch,
            megahertz: self.megahertz,
            // Every one of the zoo has room.
            students: students.take(5).collect(),
        }
    }

    /// What is known, least work first.
    pub fn verdicts(&self) -> impl Iterator<Item = (Architecture, &Verdict)> {
        self.students.iter().map(|(student, verdict)| (*student, verdict))
    }
}

/// As much of a text as there is room for.
fn cut<const N: usize>(text: &str) -> heapless::String<N> {
    let mut kept = heapless::String::new();
    for character in text.chars() {
        if kept.push(character).is_err() {
            break;
        }
    }
    kept
}

/// Where a calibration is kept.
#[must_use]
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("calibration.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions() -> Conditions {
        Conditions { kernel: "6.6.31+rpt-rpi-v8".to_owned(), threads: 4, batch: 64, trainer: (1, 2) }
    }

    #[test]
    fn what_was_kept_serves_until_something_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut calibration = Calibration::new("2.9.0".to_owned(), conditions());
        calibration.judge(Architecture::Vgg8, Verdict::Fits { seconds_per_step: 1.5, peak_memory: Some(400 << 20) });
        let why = "killed by the kernel: memory ran out".to_owned();
        calibration.judge(Architecture::Resnet8x4, Verdict::DoesNotFit { why });
        calibration.keep(folder.path()).expect("kept");
        assert_eq!(Calibration::kept(folder.path(), &conditions()), Some(calibration.clone()));
        assert_eq!(
            calibration.missing().collect::<Vec<_>>(),
            [Architecture::Resnet14x4, Architecture::Resnet26x4],
            "a student that did not fit is not tried again"
        );
        for other in [
            Conditions { kernel: "6.12.1".to_owned(), ..conditions() },
            Conditions { threads: 2, ..conditions() },
            Conditions { batch: 32, ..conditions() },
            Conditions { trainer: (1, 3), ..conditions() },
        ] {
            assert_eq!(Calibration::kept(folder.path(), &other), None, "{other:?}");
        }
    }

    #[test]
    fn the_host_is_told_seconds_a_sample_with_what_the_duty_adds() {
        let mut calibration =
            Calibration::new("2.9.0".to_owned(), Conditions { kernel: "k".repeat(99), ..conditions() });
        calibration.judge(Architecture::Vgg8, Verdict::Fits { seconds_per_step: 3.2, peak_memory: Some(400 << 20) });
        calibration.judge(Architecture::Resnet8x4, Verdict::DoesNotFit { why: String::new() });
        let report = calibration.report(0.5);
        assert_eq!((report.batch, report.kernel.len()), (64, 64), "a long release is cut");
        let [vgg, resnet] = report.students.as_slice() else { panic!("{report:?}") };
        assert!((vgg.seconds_per_sample - 0.1).abs() < 1e-6 && vgg.fits && vgg.peak_memory_kib == 400 << 10);
        assert!(!resnet.fits && resnet.architecture == Architecture::Resnet8x4);
    }

    #[test]
    fn a_damaged_file_is_no_calibration() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Calibration::kept(folder.path(), &conditions()), None);
        fs::write(file(folder.path()), "{\"libtorch\": ").expect("written");
        assert_eq!(Calibration::kept(folder.path(), &conditions()), None);
    }
}
