//! The calibration of the running agent: kept on disk, measured by a task of its own, changed by a trainer's death.

use std::future::pending;
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use twin_shared::model::Architecture;
use twin_shared::wire::BoardCalibration;
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::telemetry::quantity::Megahertz;

use crate::calibration::{CalibrateError, Calibration, Conditions, Verdict, calibrate};
use crate::config::{Config, Trainer};

/// What is known, and the measurement in progress.
pub(super) struct Calibrator {
    trainer: Trainer,
    data_dir: PathBuf,
    /// The share of time that training takes here: a board that plays another, or an owner's quota, makes epochs
    /// longer.
    duty: f64,
    /// Mean clock of the cores in the last sample, MHz.
    megahertz: Option<u32>,
    /// The version that a trainer of this life named.
    libtorch: Option<String>,
    known: Option<Calibration>,
    measuring: Option<Measuring>,
}

/// A measurement in progress; dropping it ends its trainer.
struct Measuring {
    news: mpsc::UnboundedReceiver<Progress>,
    task: AbortHandle,
}

/// How far a measurement is.
pub(super) enum Progress {
    /// One more student is known.
    Known(Calibration),
    /// The end.
    Ended(Result<Calibration, CalibrateError>),
}

impl Drop for Measuring {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Calibrator {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            trainer: config.trainer.clone(),
            data_dir: config.data_dir.clone(),
            duty: config.emulate.map_or(1.0, |board| board.duty) * config.guard.quota,
            megahertz: None,
            libtorch: None,
            known: None,
            measuring: None,
        }
    }

    /// What a sample says of the cores' clock.
    pub(super) fn look(&mut self, sample: &Telemetry) {
        self.megahertz = sample.cpu.current_mean().value().map(|clock| Megahertz::from(*clock).0.into());
    }

    /// An earlier measurement, if it is complete and still holds.
    pub(super) fn recall(&mut self, batch: u32) -> Option<BoardCalibration> {
        self.load(batch);
        self.known.as_ref().filter(|known| known.is_complete()).map(|known| known.report(self.duty))
    }

    fn load(&mut self, batch: u32) {
        let conditions = Conditions::now(&self.trainer, batch).ok();
        if self.known.as_ref().map(|known| &known.conditions) != conditions.as_ref() {
            self.known = conditions.and_then(|conditions| Calibration::kept(&self.data_dir, &conditions));
        }
    }

    /// A trainer is ready: what was measured with another LibTorch no longer holds.
    pub(super) fn on_libtorch(&mut self, version: &str) {
        if self.known.take_if(|known| known.libtorch != version).is_some() {
            tracing::info!(version, "LibTorch is another one: what was measured with the former no longer holds");
        }
        self.libtorch = Some(version.to_owned());
    }

    pub(super) fn begin(&mut self, batch: u32) {
        self.load(batch);
        let (told, news) = mpsc::unbounded_channel();
        let (trainer, kept) = (self.trainer.clone(), self.known.clone());
        tracing::info!(batch, "measuring what training takes here");
        let task = tokio::spawn(async move {
            let each = |known: &Calibration| {
                // Nobody listens only when the measurement was stopped.
                let _ = told.send(Progress::Known(known.clone()));
            };
            let ended = calibrate(&trainer, kept, batch, each).await;
            let _ = told.send(Progress::Ended(ended));
        });
        self.measuring = Some(Measuring { news, task: task.abort_handle() });
    }

    pub(super) fn stop(&mut self) {
        self.measuring = None;
    }

    /// What the measurement says next; never, where there is none.
    pub(super) async fn next(&mut self) -> Progress {
        match &mut self.measuring {
            Some(measuring) => match measuring.news.recv().await {
                Some(progress) => progress,
                None => pending().await,
            },
            None => pending().await,
        }
    }

    /// Takes in what a measurement says; at its end, what to tell the session.
    pub(super) fn on_progress(&mut self, progress: Progress) -> Option<Result<BoardCalibration, String>> {
        match progress {
            Progress::Known(known) => {
                self.keep(known);
                None
            }
            Progress::Ended(ended) => {
                self.measuring = None;
                Some(match ended {
                    Ok(known) => Ok(self.keep(known)),
                    Err(error) => Err(error.to_string()),
                })
            }
        }
    }

    /// A student's training, in mini-batches of so many, ended in a way that says that it does not fit. `None` where
    /// there is no trainer any more.
    pub(super) fn mark(&mut self, student: Architecture, batch: u32, why: String) -> Option<BoardCalibration> {
        self.load(batch);
        let mut known = match self.known.take() {
            Some(known) => known,
            None => Calibration::new(self.libtorch.clone()?, Conditions::now(&self.trainer, batch).ok()?),
        };
        known.judge(student, Verdict::DoesNotFit { why });
        Some(self.keep(known))
    }

    /// Keeps what is known, also for later lives; what the host is told of it.
    fn keep(&mut self, mut known: Calibration) -> BoardCalibration {
        known.megahertz = self.megahertz.or(known.megahertz);
        if let Err(error) = known.keep(&self.data_dir) {
            tracing::warn!(%error, "the calibration cannot be kept");
        }
        let told = known.report(self.duty);
        self.known = Some(known);
        told
    }
}
