//! FedAvg, the baseline: twins train copies of one network on their own samples, and the copies are averaged.

use std::path::Path;

use tch::Tensor;
use twin_data::augment::Augmenter;
use twin_shared::pipe::{FedAvgJob, Normalisation, Outcome};
use twin_shared::plan::{EpochPlan, Method};

use crate::checkpoint;
use crate::epoch::{Batches, check_recipe};
use crate::error::LearnError;
use crate::fedsgd::open_twins;
use crate::model::Model;
use crate::place::Place;
use crate::run::{MeanLoss, Progress, Run};
use crate::samples::{Guide, TwinSamples, common_normalisation};
use crate::sgd::Sgd;
use crate::zoo::{HeadKind, NormKind};

/// What fine-tuning divides the first learning rate by.
const FINE_TUNE_DIVISOR: f64 = 5.0;

/// A prepared [`FedAvgJob`].
#[derive(Debug)]
pub struct FedAvgRun {
    job: FedAvgJob,
    fingerprint: String,
    twins: Vec<TwinSamples>,
    global: Model,
    /// Σ n_i w_i of the twins that are done this round.
    sum: Vec<Tensor>,
    round: u32,
    twin: usize,
    first_round: u32,
    loss: MeanLoss,
}

impl FedAvgRun {
    /// Opens the twins, and the checkpoint where there is one.
    ///
    /// # Errors
    /// When a file does not serve, or the job makes no sense.
    pub fn new(job: FedAvgJob, place: Place) -> Result<Self, LearnError> {
        check_recipe(&job.recipe)?;
        if job.rounds == 0 || job.local_epochs == 0 {
            return Err(LearnError::Job("FedAvg needs at least one round of one local epoch".into()));
        }
        let twins = open_twins(&job.twins, job.classes, place.device)?;
        let head = HeadKind::Classifier { classes: job.classes.into() };
        let norm = match job.normalisation {
            Normalisation::Batch => NormKind::Batch,
            Normalisation::Group => NormKind::Group,
        };
        let mut global = Model::initial(job.architecture, head, norm, job.seed, place)?;
        global.normalisation = common_normalisation(&twins);
        // A job of more rounds goes on where one of fewer ended.
        let fingerprint = checkpoint::fingerprint(&FedAvgJob {
            checkpoint: None,
            out: String::new(),
            rounds: 0,
            fine_tune_epochs: 0,
            ..job.clone()
        });
        let mut round = 0;
        if let Some(path) = &job.checkpoint
            && let Some((resumed, done)) = checkpoint::resume(Path::new(path), &fingerprint, &global, None)?
        {
            (global, round) = (resumed, done);
        }
        Ok(Self {
            job,
            fingerprint,
            twins,
            global,
            sum: Vec::new(),
            round,
            twin: 0,
            first_round: round,
            loss: MeanLoss::default(),
        })
    }

    /// Trains a copy on one twin's samples; gives the copy and its mean loss.
    fn local(&self, twin: usize, first_epoch: u32, epochs: u32, rate: f64) -> Result<(Model, MeanLoss), LearnError> {
        let samples = &self.twins[twin];
        let copy = self.global.duplicate()?;
        let mut optimiser = Sgd::new(&copy, self.job.recipe.momentum, self.job.recipe.weight_decay)?;
        let mut mean = MeanLoss::default();
        for epoch in first_epoch..first_epoch.saturating_add(epochs) {
            let plan =
                EpochPlan { seed: self.job.seed, epoch, batch: self.job.batch, augmentation: self.job.augmentation };
            let augmenter = Augmenter::new(plan.seed, plan.epoch, plan.augmentation);
            let batches = Batches::of(samples, plan)?;
            for batch in 0..batches.count() {
                let indices = batches.indices(batch);
                let (loss, gradients) =
                    samples.gradient(&copy, Method::CrossEntropy, Guide::Labels, indices, &augmenter)?;
                if !loss.is_finite() {
                    return Err(LearnError::Diverged { step: batch, loss, learning_rate: rate });
                }
                optimiser.step(&copy, gradients, rate)?;
                mean.add(loss, indices.len());
            }
        }
        Ok((copy, mean))
    }

    fn train(&mut self) -> Result<f32, LearnError> {
        let rate = self.job.recipe.learning_rate_at(self.round);
        let first = self.round.saturating_mul(self.job.local_epochs);
        let (copy, mean) = self.local(self.twin, first, self.job.local_epochs, rate)?;
        let weight = self.twins[self.twin].train_count() as f64;
        tch::no_grad(|| -> Result<(), LearnError> {
            if self.sum.is_empty() {
                self.sum = copy.weights().iter().map(|w| w.f_mul_scalar(weight)).collect::<Result<_, _>>()?;
            } else {
                for (sum, own) in self.sum.iter_mut().zip(copy.weights()) {
                    let _ = sum.f_add_(&own.f_mul_scalar(weight)?)?;
                }
            }
            Ok(())
        })?;
        self.loss.add(mean.value().into(), self.twins[self.twin].train_count());
        self.twin += 1;
        if self.twin == self.twins.len() {
            self.average()?;
        }
        Ok(mean.value())
    }

    fn average(&mut self) -> Result<(), LearnError> {
        let total: usize = self.twins.iter().map(TwinSamples::train_count).sum();
        tch::no_grad(|| -> Result<(), LearnError> {
            for (weight, sum) in self.global.weights().iter().zip(self.sum.drain(..)) {
                weight.shallow_clone().f_copy_(&sum.f_div_scalar(total as f64)?)?;
            }
            Ok(())
        })?;
        self.round += 1;
        self.twin = 0;
        if let Some(path) = &self.job.checkpoint {
            checkpoint::save(Path::new(path), &self.fingerprint, &self.global, None, self.round)?;
        }
        Ok(())
    }

    fn fine_tune(&mut self) -> Result<f32, LearnError> {
        let first = self.job.rounds.saturating_mul(self.job.local_epochs);
        let rate = self.job.recipe.learning_rate / FINE_TUNE_DIVISOR;
        let (copy, mean) = self.local(self.twin, first, self.job.fine_tune_epochs, rate)?;
        copy.save(Path::new(&format!("{}.{}", self.job.out, self.twin)))?;
        self.twin += 1;
        Ok(mean.value())
    }
}

impl Run for FedAvgRun {
    fn steps(&self) -> u32 {
        let rounds = self.job.rounds.saturating_sub(self.first_round);
        let passes = rounds + u32::from(self.job.fine_tune_epochs > 0);
        // A finished checkpoint still takes one step to write the weights.
        u32::try_from(self.twins.len()).unwrap_or(u32::MAX).saturating_mul(passes).max(1)
    }

    fn step(&mut self) -> Result<Progress, LearnError> {
        if self.round < self.job.rounds && self.twin == 0 {
            self.loss = MeanLoss::default();
        }
        let loss = if self.round < self.job.rounds {
            Some(self.train()?)
        } else if self.job.fine_tune_epochs > 0 {
            Some(self.fine_tune()?)
        } else {
            None
        };
        let tuned = self.job.fine_tune_epochs == 0 || self.twin == self.twins.len();
        let mut progress = Progress { loss, ..Progress::default() };
        if self.round >= self.job.rounds && tuned {
            let written = self.global.save(Path::new(&self.job.out))?;
            progress.outcome = Some(Outcome::Weights { hash: written.hash, loss: self.loss.value() });
        }
        Ok(progress)
    }
}
