//! One student through one epoch: the job that runs on boards and on the host alike.

use std::ops::Range;
use std::path::{Path, PathBuf};

use twin_data::Part;
use twin_data::augment::Augmenter;
use twin_data::order::{batch_count, batch_range, epoch_order};
use twin_shared::pipe::{EpochJob, LabelSource, Outcome};
use twin_shared::plan::{EpochPlan, LabelKind, Recipe};

use crate::checkpoint::{self, fingerprint};
use crate::compressed;
use crate::error::LearnError;
use crate::labels::{Block, block_path};
use crate::model::Model;
use crate::place::Place;
use crate::run::{MeanLoss, Progress, Run};
use crate::samples::{Guide, TwinSamples};
use crate::sgd::Sgd;

/// The mini-batches of an epoch, as indices into the dataset.
#[derive(Debug, Clone)]
pub struct Batches {
    order: Vec<u32>,
    count: u32,
}

impl Batches {
    /// Of what a plan makes of the samples for training.
    ///
    /// # Errors
    /// When the batch is empty or there is nothing to train on.
    pub fn of(samples: &TwinSamples, plan: EpochPlan) -> Result<Self, LearnError> {
        if plan.batch == 0 || samples.train_count() == 0 {
            return Err(LearnError::Job(format!(
                "a mini-batch of {} of {} training samples is empty",
                plan.batch,
                samples.train_count()
            )));
        }
        let order = epoch_order(plan.seed, plan.epoch, &samples.indices(Part::Train));
        let count = u32::try_from(batch_count(order.len(), plan.batch)).expect("no more batches than samples");
        Ok(Self { order, count })
    }

    /// Number of mini-batches.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Number of samples.
    #[must_use]
    pub const fn samples(&self) -> usize {
        self.order.len()
    }

    fn range(&self, batch: u32) -> Range<usize> {
        batch_range(self.order.len(), self.count as usize, batch as usize)
    }

    /// A mini-batch's samples.
    #[must_use]
    pub fn indices(&self, batch: u32) -> &[u32] {
        &self.order[self.range(batch)]
    }

    /// The samples of consecutive mini-batches.
    #[must_use]
    pub fn span(&self, first: u32, batches: u32) -> &[u32] {
        &self.order[self.range(first).start..self.range(first + batches - 1).end]
    }
}

/// Nothing, if an optimiser can work with the recipe.
///
/// # Errors
/// Names the number that is out of range.
pub fn check_recipe(recipe: &Recipe) -> Result<(), LearnError> {
    let wrong = |what: &str, value: f64| Err(LearnError::Job(format!("{what} {value} is out of range")));
    if !(recipe.learning_rate.is_finite() && recipe.learning_rate > 0.0) {
        return wrong("learning rate", recipe.learning_rate);
    }
    if !(0.0..1.0).contains(&recipe.momentum) {
        return wrong("momentum", recipe.momentum);
    }
    if !(recipe.weight_decay.is_finite() && recipe.weight_decay >= 0.0) {
        return wrong("weight decay", recipe.weight_decay);
    }
    if recipe.epochs == 0 {
        return wrong("number of epochs", 0.0);
    }
    Ok(())
}

#[derive(Debug)]
enum Source {
    None,
    Teacher {
        teacher: Model,
        kind: LabelKind,
    },
    /// `next`: the block to be read next, and the mini-batch that it must begin with.
    Blocks {
        directory: PathBuf,
        next: (u32, u32),
        block: Option<Block>,
    },
}

/// A prepared [`EpochJob`].
#[derive(Debug)]
pub struct EpochRun {
    job: EpochJob,
    samples: TwinSamples,
    student: Model,
    optimiser: Sgd,
    batches: Batches,
    source: Source,
    done: u32,
    /// Of that, what an earlier process did.
    resumed: u32,
    loss: MeanLoss,
    fingerprint: String,
}

impl EpochRun {
    /// Opens what the job names.
    ///
    /// # Errors
    /// When a file does not serve, or the job makes no sense.
    pub fn new(job: EpochJob, place: Place) -> Result<Self, LearnError> {
        check_recipe(&job.recipe)?;
        let samples = TwinSamples::open(Path::new(&job.dataset), place.device)?;
        let batches = Batches::of(&samples, job.plan)?;
        let mut student = Model::load_as(job.architecture, Path::new(&job.state), place)?;
        student.normalisation.get_or_insert(samples.normalisation());
        let mut optimiser = Sgd::new(&student, job.recipe.momentum, job.recipe.weight_decay)?;
        if let Some(path) = &job.momentum {
            optimiser.load(&student, Path::new(path))?;
        }
        let source = match &job.labels {
            LabelSource::None => Source::None,
            LabelSource::Teacher { weights, kind } => {
                Source::Teacher { teacher: Model::load(Path::new(weights), place)?, kind: *kind }
            }
            LabelSource::Blocks { directory } => {
                Source::Blocks { directory: directory.into(), next: (0, 0), block: None }
            }
        };
        let fingerprint = fingerprint(&job);
        let (mut resumed, mut loss) = (0, MeanLoss::default());
        if let Some(path) = &job.checkpoint
            && let Some((model, done, so_far)) =
                checkpoint::resume_within_epoch(Path::new(path), &fingerprint, &student, &mut optimiser)?
            && done < batches.count()
        {
            (student, resumed, loss) = (model, done, so_far);
        }
        Ok(Self { job, samples, student, optimiser, batches, source, done: resumed, resumed, loss, fingerprint })
    }

    fn train(&mut self, batch: u32) -> Result<f64, LearnError> {
        let plan = self.job.plan;
        let augmenter = Augmenter::new(plan.seed, plan.epoch, plan.augmentation);
        let indices = self.batches.indices(batch);
        let given;
        let guide = match &mut self.source {
            Source::None => Guide::Labels,
            Source::Teacher { teacher, kind } => Guide::Teacher(teacher, *kind),
            Source::Blocks { directory, next, block } => {
                let current = loop {
                    if let Some(current) = block.take_if(|b| b.header.first_batch + b.header.batches > batch) {
                        break block.insert(current);
                    }
                    // An epoch that goes on from a checkpoint passes by the blocks that it has used up.
                    let (index, first) = *next;
                    let path = block_path(directory, index);
                    let read = Block::read(&path)?;
                    check_block(&read, &path, plan, first, &self.batches, &self.samples, &augmenter)?;
                    *next = (index + 1, first + read.header.batches);
                    *block = Some(read);
                };
                let base = self.batches.range(current.header.first_batch).start;
                let range = self.batches.range(batch);
                given = current.rows(range.start - base, range.end - base, self.student.device())?;
                Guide::Given(&given, current.header.kind)
            }
        };
        let (loss, gradients) = self.samples.gradient(&self.student, self.job.method, guide, indices, &augmenter)?;
        let learning_rate = self.job.recipe.learning_rate_at(plan.epoch);
        if !loss.is_finite() {
            return Err(LearnError::Diverged { step: batch, loss, learning_rate });
        }
        self.optimiser.step(&self.student, gradients, learning_rate)?;
        Ok(loss)
    }

    fn finish(&self) -> Result<Outcome, LearnError> {
        if let Some(path) = &self.job.momentum_out {
            self.optimiser.save(&self.student, Path::new(path))?;
        }
        let out = Path::new(&self.job.state_out);
        let written = match &self.job.compression {
            None => self.student.save(out)?,
            Some(plan) => compressed::save(&self.student, plan, out)?,
        };
        if let Some(path) = &self.job.checkpoint {
            // Of no use any more; where it cannot be removed, the next epoch's name is another.
            let _ = std::fs::remove_file(path);
        }
        Ok(Outcome::Student {
            version: written.version,
            hash: written.hash,
            bytes: written.bytes,
            loss: self.loss.value(),
            samples: u32::try_from(self.batches.samples()).expect("fewer than 2^32 samples"),
        })
    }
}

/// Refuses a block of another plan, another place, or for another machine's samples.
fn check_block(
    block: &Block,
    path: &Path,
    plan: EpochPlan,
    batch: u32,
    batches: &Batches,
    samples: &TwinSamples,
    augmenter: &Augmenter,
) -> Result<(), LearnError> {
    let wrong = |problem: String| Err(LearnError::Labels { path: path.to_owned(), problem });
    let header = &block.header;
    if header.plan != plan {
        return wrong(format!("they belong to {:?}, this epoch is {plan:?}", header.plan));
    }
    let end = header.first_batch.checked_add(header.batches);
    if header.first_batch != batch || header.batches == 0 || end.is_none_or(|end| end > batches.count()) {
        return wrong(format!(
            "they cover {} batches from {}, where batch {batch} of {} is due",
            header.batches,
            header.first_batch,
            batches.count()
        ));
    }
    let covered = batches.span(header.first_batch, header.batches);
    if header.samples as usize != covered.len() || header.digest != samples.batch_digest(covered, augmenter) {
        return wrong("they were computed for other samples or another augmentation".into());
    }
    Ok(())
}

impl Run for EpochRun {
    fn steps(&self) -> u32 {
        self.batches.count() - self.resumed
    }

    fn step(&mut self) -> Result<Progress, LearnError> {
        let loss = self.train(self.done)?;
        self.loss.add(loss, self.batches.indices(self.done).len());
        self.done += 1;
        let outcome = (self.done == self.batches.count()).then(|| self.finish()).transpose()?;
        Ok(Progress { loss: Some(loss as f32), block: None, outcome })
    }

    fn save(&self) -> Result<(), LearnError> {
        let Some(path) = &self.job.checkpoint else { return Ok(()) };
        let (student, optimiser) = (&self.student, &self.optimiser);
        checkpoint::save_within_epoch(Path::new(path), &self.fingerprint, student, optimiser, self.done, self.loss)
    }
}
