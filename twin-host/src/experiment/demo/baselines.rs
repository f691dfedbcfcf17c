//! What the demo compares with: students alone and FedAvg, on the same split and seed, and the scoring of all.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use twin_shared::model::Architecture;
use twin_shared::pipe::{
    DeviceScores, EpochJob, EvaluateJob, Evaluation, FedAvgJob, InitStudentJob, Job as TrainerJob, LabelSource,
    Normalisation, Outcome, Part,
};
use twin_shared::plan::{EpochPlan, Method, Recipe};

use super::result::MethodScores;
use super::scenario::FedAvg;
use crate::config::Job;
use crate::train::{Ask, Told, Trainer, TrainerConfig};

/// One board in the comparison.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Its name.
    pub(crate) name: String,
    /// Its dataset on the host.
    pub(crate) dataset: PathBuf,
    /// Its training samples of each class.
    pub(crate) labels: Vec<u32>,
    /// The network that it was assigned.
    pub(crate) architecture: Architecture,
}

/// Runs the baselines' jobs one after the other.
pub(crate) struct Baselines {
    trainer: Trainer<u32>,
    asked: u32,
    folder: PathBuf,
    test: PathBuf,
}

impl Baselines {
    /// Starts a trainer. `folder` is made for what is written.
    pub(crate) async fn start(config: &TrainerConfig, folder: PathBuf, test: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { trainer: Trainer::start(config).await?, asked: 0, folder, test })
    }

    /// A student alone: the same network, data, order and recipe but for the learning rate, hard labels only. Scored after the epochs where
    /// `scored` says so; `step` hears of every epoch.
    pub(crate) async fn alone(
        &mut self,
        subject: &Subject,
        learning_rate: f64,
        job: &Job,
        scored: &dyn Fn(u32) -> bool,
        step: &mut dyn FnMut(),
    ) -> anyhow::Result<Vec<(u32, MethodScores)>> {
        let state = self.folder.join(format!("alone-{}.state", subject.name));
        let momentum = self.folder.join(format!("alone-{}.momentum", subject.name));
        let (state_path, momentum_path) = (text(&state), text(&momentum));
        self.run(TrainerJob::InitStudent(InitStudentJob {
            architecture: subject.architecture,
            method: Method::CrossEntropy,
            teacher: String::new(),
            classes: job.classes,
            seed: job.seed,
            out: state_path.clone(),
        }))
        .await?;
        let mut scores = Vec::new();
        let recipe = Recipe { learning_rate, ..job.student.recipe };
        for epoch in 0..recipe.epochs {
            let plan = EpochPlan { seed: job.seed, epoch, batch: job.student.batch, augmentation: job.augmentation };
            self.run(TrainerJob::Epoch(EpochJob {
                architecture: subject.architecture,
                method: Method::CrossEntropy,
                state: state_path.clone(),
                momentum: (epoch > 0).then(|| momentum_path.clone()),
                dataset: text(&subject.dataset),
                plan,
                recipe,
                labels: LabelSource::None,
                state_out: state_path.clone(),
                momentum_out: Some(momentum_path.clone()),
                checkpoint: None,
                compression: None,
            }))
            .await?;
            step();
            if scored(epoch + 1) {
                scores.push((epoch + 1, self.score(&state, None, &subject.labels).await?));
            }
        }
        Ok(scores)
    }

    /// FedAvg over all boards; every board's scores with the averaged student.
    pub(crate) async fn fedavg(
        &mut self,
        subjects: &[Subject],
        architecture: Architecture,
        constants: FedAvg,
        job: &Job,
        step: &mut dyn FnMut(),
    ) -> anyhow::Result<Vec<MethodScores>> {
        let out = self.folder.join("fedavg.safetensors");
        let mut recipe = job.student.recipe;
        (recipe.epochs, recipe.learning_rate) = (constants.rounds, constants.learning_rate);
        let ask = TrainerJob::FedAvg(FedAvgJob {
            architecture,
            classes: job.classes,
            twins: subjects.iter().map(|subject| text(&subject.dataset)).collect(),
            rounds: constants.rounds,
            local_epochs: constants.local_epochs,
            recipe,
            normalisation: Normalisation::Batch,
            batch: job.student.batch,
            augmentation: job.augmentation,
            fine_tune_epochs: 0,
            seed: job.seed,
            checkpoint: None,
            out: text(&out),
        });
        self.run_with(ask, step).await?;
        let labels = subjects.iter().map(|subject| subject.labels.clone()).collect();
        let Evaluation { full_top1, full_top5, devices } = self.evaluate(&out, None, labels).await?;
        Ok(devices.into_iter().map(|device| MethodScores { full_top1, full_top5, device }).collect())
    }

    /// Scores weights on the test set for a device with these label counts.
    pub(crate) async fn score(
        &mut self,
        weights: &Path,
        teacher: Option<&Path>,
        labels: &[u32],
    ) -> anyhow::Result<MethodScores> {
        let evaluation = self.evaluate(weights, teacher, vec![labels.to_vec()]).await?;
        let device = evaluation.devices.first().copied().unwrap_or(DeviceScores::default());
        Ok(MethodScores { full_top1: evaluation.full_top1, full_top5: evaluation.full_top5, device })
    }

    /// Scores weights on the test set.
    pub(crate) async fn evaluate(
        &mut self,
        weights: &Path,
        teacher: Option<&Path>,
        devices: Vec<Vec<u32>>,
    ) -> anyhow::Result<Evaluation> {
        let job = EvaluateJob {
            weights: text(weights),
            teacher: teacher.map(text),
            dataset: text(&self.test),
            part: Part::All,
            devices,
        };
        match self.run(TrainerJob::Evaluate(job)).await? {
            Outcome::Evaluation(evaluation) => Ok(evaluation),
            other @ (Outcome::Weights { .. }
            | Outcome::Student { .. }
            | Outcome::Labels { .. }
            | Outcome::Counts { .. }
            | Outcome::Calibration { .. }) => bail!("the trainer answered scores by {other:?}"),
        }
    }

    async fn run(&mut self, job: TrainerJob) -> anyhow::Result<Outcome> {
        self.run_with(job, &mut || {}).await
    }

    async fn run_with(&mut self, job: TrainerJob, step: &mut dyn FnMut()) -> anyhow::Result<Outcome> {
        self.asked += 1;
        let ask = Ask::Run { key: self.asked, flow: "baselines".into(), job: Box::new(job) };
        self.trainer.asks.send(ask).ok().context("the trainer is gone")?;
        loop {
            match self.trainer.told.recv().await {
                Some((_, Told::Done(outcome))) => return Ok(outcome),
                Some((_, Told::Failed(message))) => bail!(message),
                Some((_, Told::Progress { .. })) => step(),
                Some((_, Told::Block(_))) => {}
                None => bail!("the trainer is gone"),
            }
        }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
