//! What this host takes for each network, measured with real steps and kept until LibTorch, threads or device change.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use twin_shared::model::Architecture;
use twin_shared::pipe::{CalibrateJob, Job, Outcome};
use twin_shared::units::Gigahertz;

use crate::train::{Ask, Told, Trainer, TrainerInfo};

/// Steps that are timed for each network.
const STEPS: u32 = 5;

/// Seconds a sample, by network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    libtorch: String,
    device: String,
    threads: u32,
    batch: u32,
    train: BTreeMap<String, f64>,
    label: BTreeMap<String, f64>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// The trainer failed.
    #[error("calibrating {0}: {1}")]
    Trainer(Architecture, String),
}

/// What is measured: a network, and whether it is trained or gives labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// The network.
    pub architecture: Architecture,
    /// Trained, rather than run forward only.
    pub train: bool,
}

impl Calibration {
    /// Reads what was measured before, or measures. `say` hears how far it is.
    ///
    /// # Errors
    /// When the trainer fails.
    pub(crate) async fn load_or_measure<K: From<Probe> + Ord + Clone + Send + 'static>(
        path: &Path,
        trainer: &mut Trainer<K>,
        students: &[Architecture],
        teacher: Architecture,
        classes: u16,
        batch: u32,
        mut say: impl FnMut(usize, usize),
    ) -> Result<Self, CalibrationError> {
        let TrainerInfo { libtorch, device, threads, precision } = trainer.info.clone();
        let device = format!("{device} in {precision}");
        let mut calibration = Self { libtorch, device, threads, batch, train: BTreeMap::new(), label: BTreeMap::new() };
        if let Some(known) = Self::read(path).filter(|known| known.is_of_kind(&calibration)) {
            calibration = known;
        }
        let wanted = students.iter().map(|&architecture| Probe { architecture, train: true });
        let wanted: Vec<Probe> = wanted.chain([Probe { architecture: teacher, train: false }]).collect();
        for (done, probe) in wanted.iter().enumerate() {
            say(done, wanted.len());
            let name = probe.architecture.name();
            let table = if probe.train { &calibration.train } else { &calibration.label };
            if !table.contains_key(name) {
                let seconds = measure(trainer, *probe, classes, batch).await?;
                let table = if probe.train { &mut calibration.train } else { &mut calibration.label };
                table.insert(name.to_owned(), seconds);
            }
        }
        if let Err(error) = calibration.write(path) {
            tracing::warn!(path = %path.display(), %error, "the calibration cannot be kept");
        }
        Ok(calibration)
    }

    /// One sample of training, seconds, on the whole trainer. A network that was not measured is extrapolated by its
    /// work from one that was.
    #[must_use]
    pub fn train_seconds_per_sample(&self, architecture: Architecture) -> f64 {
        look_up(&self.train, architecture)
    }

    /// f_ser in the measure of [`Architecture::training_work`]: the work of what was trained over the seconds that it
    /// took. `None` where nothing was measured.
    #[must_use]
    pub fn frequency(&self) -> Option<Gigahertz> {
        let measured = self.train.iter().filter_map(|(name, seconds)| Some((name.parse().ok()?, seconds)));
        let (work, seconds) = measured.fold((0.0, 0.0), |(work, seconds), (network, took): (Architecture, _)| {
            (work + network.training_work().0, seconds + took)
        });
        let frequency = Gigahertz(work / seconds);
        frequency.is_positive_finite().then_some(frequency)
    }

    /// Where it was measured, and with which LibTorch.
    #[must_use]
    pub fn measured_on(&self) -> String {
        format!("{}, {} threads, LibTorch {}", self.device, self.threads, self.libtorch)
    }

    /// One sample of a teacher's labels, seconds, on the whole trainer.
    #[must_use]
    pub fn label_seconds_per_sample(&self, architecture: Architecture) -> f64 {
        look_up(&self.label, architecture)
    }

    fn is_of_kind(&self, other: &Self) -> bool {
        (&self.libtorch, &self.device, self.threads, self.batch)
            == (&other.libtorch, &other.device, other.threads, other.batch)
    }

    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let partial = path.with_extension("part");
        std::fs::write(&partial, serde_json::to_vec_pretty(self).expect("numbers and names serialise"))?;
        std::fs::rename(partial, path)
    }
}

fn look_up(table: &BTreeMap<String, f64>, architecture: Architecture) -> f64 {
    let nearest = || {
        let known = table.iter().filter_map(|(name, seconds)| Some((name.parse::<Architecture>().ok()?, seconds)));
        known.map(|(known, seconds)| seconds * architecture.training_work().0 / known.training_work().0).next()
    };
    table.get(architecture.name()).copied().or_else(nearest).unwrap_or(1.0)
}

async fn measure<K: From<Probe> + Ord + Clone + Send + 'static>(
    trainer: &mut Trainer<K>,
    probe: Probe,
    classes: u16,
    batch: u32,
) -> Result<f64, CalibrationError> {
    let Probe { architecture, train } = probe;
    let job = Job::Calibrate(CalibrateJob { architecture, classes, batch, steps: STEPS, train });
    let ask = Ask::Run { key: K::from(probe), flow: "calibration".into(), job: Box::new(job) };
    let fail = |why: &str| CalibrationError::Trainer(architecture, why.to_owned());
    trainer.asks.send(ask).map_err(|_: mpsc::error::SendError<_>| fail("the trainer is gone"))?;
    loop {
        match trainer.told.recv().await {
            Some((_, Told::Done(Outcome::Calibration { seconds_per_step, .. }))) => {
                return Ok(seconds_per_step / f64::from(batch));
            }
            Some((_, Told::Failed(message))) => return Err(fail(&message)),
            Some((_, Told::Done(outcome))) => return Err(fail(&format!("it answered {outcome:?}"))),
            Some((_, Told::Progress { .. } | Told::Block(_))) => {}
            None => return Err(fail("the trainer is gone")),
        }
    }
}
