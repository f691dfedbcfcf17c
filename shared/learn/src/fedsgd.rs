//! FedSGD: one shared teacher, trained in lockstep over twins that hand out moments and gradients only.

use std::path::Path;

use tch::{Device, Tensor};
use twin_data::Part;
use twin_data::augment::Augmenter;
use twin_data::order::{batch_count, batch_range, epoch_order};
use twin_shared::pipe::{Outcome, TeacherBatch, TeacherJob};
use twin_shared::plan::Method;

use crate::checkpoint;
use crate::epoch::check_recipe;
use crate::error::LearnError;
use crate::model::Model;
use crate::place::Place;
use crate::run::{MeanLoss, Progress, Run};
use crate::samples::{Guide, MICRO_BATCH, Moments, Pass, TwinSamples, common_normalisation, norm_layers};
use crate::sgd::Sgd;
use crate::zoo::{HeadKind, NormKind};

/// Loss and gradients, in the order of [`Model::trained`], of one step over twins: `indices[i]` are the samples of
/// twin i that take part. Equal to the gradients of the mean loss over all of them in one place; batch norm's
/// statistics are those of all of them, and its running ones are updated.
///
/// # Errors
/// When no twin takes part, or a twin's classes do not fit the classifier.
pub fn synchronised_gradient(
    model: &Model,
    twins: &[TwinSamples],
    indices: &[&[u32]],
    augmenter: &Augmenter,
    micro: usize,
) -> Result<(f64, Vec<Tensor>), LearnError> {
    let mut passes = twins
        .iter()
        .zip(indices)
        .filter(|(_, part)| !part.is_empty())
        .map(|(twin, part)| twin.begin(model, part, augmenter, micro))
        .collect::<Result<Vec<_>, _>>()?;
    let total: usize = passes.iter().map(Pass::samples).sum();
    let layers = norm_layers(model.network());
    let mut pooled = Vec::with_capacity(layers.len());
    for &(layer, norm) in &layers {
        let each = passes.iter_mut().map(|pass| pass.moments(layer)).collect::<Result<Vec<_>, _>>()?;
        let all = sum(each, |a: Moments, b| a.pooled(b))?;
        for pass in &mut passes {
            pass.normalise(layer, norm, &all)?;
        }
        all.update_running(model, norm)?;
        pooled.push(all);
    }
    let mut loss = 0.0;
    for pass in &mut passes {
        loss += pass.loss(total)?;
    }
    for (&(layer, norm), moments) in layers.iter().zip(&pooled).rev() {
        let each = passes.iter_mut().map(|pass| pass.norm_gradient(layer, norm)).collect::<Result<Vec<_>, _>>()?;
        let all = sum(each, |a, b| a.pooled(b))?;
        for pass in &mut passes {
            pass.norm_input(layer, norm, moments, &all)?;
        }
    }
    let each = passes.into_iter().map(Pass::finish).collect::<Result<Vec<_>, _>>()?;
    let gradients = sum(each, |mut a: Vec<Tensor>, b| {
        for (into, from) in a.iter_mut().zip(b) {
            let _ = into.f_add_(from)?;
        }
        Ok(a)
    })?;
    Ok((loss, gradients))
}

fn sum<T>(each: Vec<T>, add: impl Fn(T, &T) -> Result<T, LearnError>) -> Result<T, LearnError> {
    let mut each = each.into_iter();
    let first = each.next().ok_or_else(|| LearnError::Job("no twin has samples for this step".into()))?;
    each.try_fold(first, |total, next| add(total, &next))
}

/// A prepared [`TeacherJob`].
#[derive(Debug)]
pub struct TeacherRun {
    job: TeacherJob,
    fingerprint: String,
    twins: Vec<TwinSamples>,
    model: Model,
    optimiser: Sgd,
    steps_per_epoch: usize,
    epoch: u32,
    step: usize,
    orders: Vec<Vec<u32>>,
    first_epoch: u32,
    loss: MeanLoss,
}

impl TeacherRun {
    /// Opens the twins, and the checkpoint where there is one.
    ///
    /// # Errors
    /// When a file does not serve, or the job makes no sense.
    pub fn new(job: TeacherJob, place: Place) -> Result<Self, LearnError> {
        check_recipe(&job.recipe)?;
        let twins = open_twins(&job.twins, job.classes, place.device)?;
        let head = HeadKind::Classifier { classes: job.classes.into() };
        let mut model = Model::initial(job.architecture, head, NormKind::Batch, job.seed, place)?;
        model.normalisation = common_normalisation(&twins);
        if let Some(path) = &job.warm_start {
            model.take_over(&Model::load_as(job.architecture, Path::new(path), place.device)?)?;
        }
        let mut optimiser = Sgd::new(&model, job.recipe.momentum, job.recipe.weight_decay)?;
        let fingerprint = checkpoint::fingerprint(&TeacherJob { checkpoint: None, out: String::new(), ..job.clone() });
        let mut epoch = 0;
        if let Some(path) = &job.checkpoint
            && let Some((resumed, done)) =
                checkpoint::resume(Path::new(path), &fingerprint, &model, Some(&mut optimiser))?
        {
            (model, epoch) = (resumed, done);
        }
        let steps_per_epoch = match job.batch {
            TeacherBatch::Full => 1,
            TeacherBatch::PerTwin(0) => return Err(LearnError::Job("a mini-batch of 0 samples is empty".into())),
            TeacherBatch::PerTwin(batch) => {
                twins.iter().map(|twin| batch_count(twin.train_count(), batch)).max().unwrap_or(0).max(1)
            }
        };
        let mut run = Self {
            job,
            fingerprint,
            twins,
            model,
            optimiser,
            steps_per_epoch,
            epoch,
            step: 0,
            orders: Vec::new(),
            first_epoch: epoch,
            loss: MeanLoss::default(),
        };
        run.begin_epoch();
        Ok(run)
    }

    fn begin_epoch(&mut self) {
        self.step = 0;
        self.loss = MeanLoss::default();
        self.orders =
            self.twins.iter().map(|twin| epoch_order(self.job.seed, self.epoch, &twin.indices(Part::Train))).collect();
    }

    fn finish(&self) -> Result<Progress, LearnError> {
        let written = self.model.save(Path::new(&self.job.out))?;
        Ok(Progress {
            outcome: Some(Outcome::Weights { hash: written.hash, loss: self.loss.value() }),
            ..Progress::default()
        })
    }

    fn train(&mut self) -> Result<f64, LearnError> {
        let augmenter = Augmenter::new(self.job.seed, self.epoch, self.job.augmentation);
        let indices: Vec<&[u32]> =
            self.orders.iter().map(|order| &order[batch_range(order.len(), self.steps_per_epoch, self.step)]).collect();
        let samples: usize = indices.iter().map(|part| part.len()).sum();
        let (loss, gradients) = match (self.twins.as_slice(), indices.as_slice()) {
            // A single twin needs no lockstep for the same result.
            ([twin], [part]) if part.len() <= 4 * MICRO_BATCH && !part.is_empty() => {
                twin.gradient(&self.model, Method::CrossEntropy, Guide::Labels, part, &augmenter)?
            }
            (twins, indices) => synchronised_gradient(&self.model, twins, indices, &augmenter, MICRO_BATCH)?,
        };
        let learning_rate = self.job.recipe.learning_rate_at(self.epoch);
        if !loss.is_finite() {
            let step = u32::try_from(self.step).unwrap_or(u32::MAX);
            return Err(LearnError::Diverged { step, loss, learning_rate });
        }
        self.optimiser.step(&self.model, gradients, learning_rate)?;
        self.loss.add(loss, samples);
        Ok(loss)
    }
}

/// Opens every twin's samples and refuses a dataset with more classes than the network will have.
pub(crate) fn open_twins(paths: &[String], classes: u16, device: Device) -> Result<Vec<TwinSamples>, LearnError> {
    if paths.is_empty() || classes == 0 {
        return Err(LearnError::Job("training over twins needs twins and classes".into()));
    }
    paths
        .iter()
        .map(|path| {
            let twin = TwinSamples::open(Path::new(path), device)?;
            twin.require_outputs(classes.into())?;
            Ok(twin)
        })
        .collect()
}

impl Run for TeacherRun {
    fn steps(&self) -> u32 {
        let epochs = self.job.recipe.epochs.saturating_sub(self.first_epoch);
        let steps = u32::try_from(self.steps_per_epoch).unwrap_or(u32::MAX);
        // A finished checkpoint still takes one step to write the weights.
        steps.saturating_mul(epochs).max(1)
    }

    fn step(&mut self) -> Result<Progress, LearnError> {
        if self.epoch >= self.job.recipe.epochs {
            return self.finish();
        }
        let loss = Some(self.train()? as f32);
        self.step += 1;
        if self.step < self.steps_per_epoch {
            return Ok(Progress { loss, ..Progress::default() });
        }
        self.epoch += 1;
        if let Some(path) = &self.job.checkpoint {
            checkpoint::save(Path::new(path), &self.fingerprint, &self.model, Some(&self.optimiser), self.epoch)?;
        }
        if self.epoch == self.job.recipe.epochs {
            return Ok(Progress { loss, ..self.finish()? });
        }
        self.begin_epoch();
        Ok(Progress { loss, ..Progress::default() })
    }
}
