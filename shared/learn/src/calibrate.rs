//! Timing real training steps: what a device's works and memory are measured by.

use std::fs;
use std::time::Instant;

use tch::{Device, Kind, Tensor};
use twin_shared::model::Architecture;
use twin_shared::pipe::{CalibrateJob, Outcome};

use crate::distill::cross_entropy::cross_entropy;
use crate::distill::simkd::vector_loss;
use crate::error::LearnError;
use crate::model::{Model, channels_last};
use crate::place::Place;
use crate::run::{Progress, Run};
use crate::sgd::Sgd;
use crate::zoo::{HeadKind, Mode, NormKind};

/// Steps before the clock counts: oneDNN chooses and caches its kernels in the first ones.
pub const WARM_UP: u32 = 3;
/// Largest mini-batch that is tried.
const MAX_BATCH: u32 = 65_536;
/// Most steps that are timed.
const MAX_STEPS: u32 = 100_000;

/// What a timed step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exercise {
    /// Forward, backward and update against hard labels.
    Classify {
        /// Outputs of the classifier.
        classes: i64,
    },
    /// Forward, backward and update of a SimKD student against the vectors of a teacher with 256 channels.
    Distill,
    /// Forward alone, as a teacher giving labels.
    Forward {
        /// Outputs of the classifier.
        classes: i64,
    },
}

/// A network on random images.
#[derive(Debug)]
pub struct Stopwatch {
    exercise: Exercise,
    model: Model,
    optimiser: Sgd,
    images: Tensor,
    target: Tensor,
}

impl Stopwatch {
    /// Prepares a mini-batch of `batch` images.
    ///
    /// # Errors
    /// When the batch is empty or beyond all reason, or memory does not suffice.
    pub fn new(architecture: Architecture, exercise: Exercise, batch: u32, place: Place) -> Result<Self, LearnError> {
        let head = match exercise {
            Exercise::Classify { classes } | Exercise::Forward { classes } if classes < 1 => {
                return Err(LearnError::Job("a classifier needs at least one class".into()));
            }
            Exercise::Classify { classes } | Exercise::Forward { classes } => HeadKind::Classifier { classes },
            Exercise::Distill => HeadKind::Projector { channels: 256 },
        };
        if batch == 0 || batch > MAX_BATCH {
            return Err(LearnError::Job(format!("a mini-batch has 1 to {MAX_BATCH} images, not {batch}")));
        }
        let model = Model::initial(architecture, head, NormKind::Batch, 1, place)?;
        let optimiser = Sgd::new(&model, 0.9, 5e-4)?;
        let rows = i64::from(batch);
        let images = Tensor::f_randn([rows, 3, 32, 32], (Kind::Float, Device::Cpu))?;
        let target = match exercise {
            Exercise::Classify { classes } => Tensor::f_randint(classes, [rows], (Kind::Int64, Device::Cpu))?,
            Exercise::Distill | Exercise::Forward { .. } => Tensor::f_rand([rows, 256], (Kind::Float, Device::Cpu))?,
        };
        Ok(Self {
            exercise,
            model,
            optimiser,
            images: channels_last(&images.f_to_device(place.device)?)?,
            target: target.f_to_device(place.device)?,
        })
    }

    /// Does one step and returns its wall time, seconds.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn step(&mut self) -> Result<f64, LearnError> {
        let start = Instant::now();
        let loss = match self.exercise {
            Exercise::Forward { .. } => {
                // Reading a value back waits for a GPU.
                self.model.evaluate(&self.images)?.head.f_sum(Kind::Float)?.f_double_value(&[])?;
                return Ok(start.elapsed().as_secs_f64());
            }
            Exercise::Classify { .. } => {
                cross_entropy(&self.model.forward(&self.images, Mode::Train)?.head, &self.target)?
            }
            Exercise::Distill => vector_loss(&self.model.forward(&self.images, Mode::Train)?.head, &self.target)?,
        };
        let trained: Vec<&Tensor> = self.model.trained().map(|(_, tensor)| tensor).collect();
        let gradients = Tensor::f_run_backward(&[&loss], &trained, false, false)?;
        // So small that the weights stay usable however long it runs.
        self.optimiser.step(&self.model, gradients, 1e-6)?;
        loss.f_double_value(&[])?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Peak resident memory of this process, bytes; `None` where the system does not say.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The middle one of some times; `None` of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A prepared [`CalibrateJob`].
#[derive(Debug)]
pub struct CalibrateRun {
    stopwatch: Stopwatch,
    timed: u32,
    done: u32,
    seconds: Vec<f64>,
}

impl CalibrateRun {
    /// Prepares the network.
    ///
    /// # Errors
    /// When nothing is to be timed, or memory does not suffice.
    pub fn new(job: &CalibrateJob, place: Place) -> Result<Self, LearnError> {
        if job.steps == 0 || job.steps > MAX_STEPS {
            return Err(LearnError::Job(format!("1 to {MAX_STEPS} steps can be timed, not {}", job.steps)));
        }
        let classes = job.classes.into();
        let exercise = if job.train { Exercise::Distill } else { Exercise::Forward { classes } };
        Ok(Self {
            stopwatch: Stopwatch::new(job.architecture, exercise, job.batch, place)?,
            timed: job.steps,
            done: 0,
            seconds: Vec::new(),
        })
    }
}

impl Run for CalibrateRun {
    fn steps(&self) -> u32 {
        WARM_UP + self.timed
    }

    fn step(&mut self) -> Result<Progress, LearnError> {
        let seconds = self.stopwatch.step()?;
        self.done += 1;
        if self.done > WARM_UP {
            self.seconds.push(seconds);
        }
        let outcome = (self.done == self.steps()).then(|| Outcome::Calibration {
            seconds_per_step: median(std::mem::take(&mut self.seconds)).expect("at least one step was timed"),
            peak_memory: peak_memory(),
        });
        Ok(Progress { outcome, ..Progress::default() })
    }
}
