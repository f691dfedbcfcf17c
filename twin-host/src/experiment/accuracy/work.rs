//! One trainer that does one job after the other.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;
use twin_shared::pipe::{CountJob, EvaluateJob, Evaluation, Job, Outcome, Part};

use super::data::Data;
use crate::train::{Ask, Told, Trainer, TrainerConfig, TrainerInfo};

/// A trainer and the folder of an experiment.
pub(crate) struct Work {
    /// What the trainer said of itself.
    pub(crate) info: TrainerInfo,
    trainer: Trainer<u32>,
    asked: u32,
    out: PathBuf,
}

impl Work {
    pub(crate) async fn start(config: &TrainerConfig, out: &Path) -> anyhow::Result<Self> {
        let trainer = Trainer::start(config).await?;
        Ok(Self { info: trainer.info.clone(), trainer, asked: 0, out: out.to_owned() })
    }

    /// A path below the cells' folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.out.join("cells").join(name)
    }

    /// Runs a job; `step` hears the part that is done.
    pub(crate) async fn run(&mut self, job: Job, step: &mut dyn FnMut(f64)) -> anyhow::Result<Outcome> {
        self.asked += 1;
        let ask = Ask::Run { key: self.asked, flow: "experiment".into(), job: Box::new(job) };
        self.trainer.asks.send(ask).ok().context("the trainer is gone")?;
        loop {
            match self.trainer.told.recv().await {
                Some((_, Told::Done(outcome))) => return Ok(outcome),
                Some((_, Told::Failed(message))) => bail!(message),
                Some((_, Told::Progress { step: done, steps })) => step(f64::from(done) / f64::from(steps.max(1))),
                Some((_, Told::Block(_))) => {}
                None => bail!("the trainer is gone"),
            }
        }
    }

    /// Scores weights on a part of a dataset, for devices with these label counts.
    pub(crate) async fn score(
        &mut self,
        weights: &Path,
        teacher: Option<&Path>,
        dataset: &Path,
        part: Part,
        devices: Vec<Vec<u32>>,
    ) -> anyhow::Result<Evaluation> {
        let job =
            EvaluateJob { weights: text(weights), teacher: teacher.map(text), dataset: text(dataset), part, devices };
        let Outcome::Evaluation(evaluation) = self.run(Job::Evaluate(job), &mut |_| {}).await? else {
            bail!("the trainer answered a scoring by something else");
        };
        Ok(evaluation)
    }

    /// Training samples of each class, a device.
    pub(crate) async fn count(&mut self, data: &Data) -> anyhow::Result<Vec<Vec<u32>>> {
        let mut counts = Vec::new();
        for device in &data.devices {
            let job = Job::Count(CountJob { dataset: text(device) });
            let Outcome::Counts { labels, .. } = self.run(job, &mut |_| {}).await? else {
                bail!("the trainer answered a counting by something else");
            };
            counts.push(labels);
        }
        Ok(counts)
    }
}

/// Replaces a file's content, whole or not at all; on the disk when it returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    });
    written.with_context(|| text(path))
}

/// Replaces a file by a value as JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    replace(path, &serde_json::to_vec_pretty(value)?)
}

/// A path as jobs carry it.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
