//! The job that computes labels, a block a step.

use std::path::{Path, PathBuf};

use tch::Tensor;
use twin_data::augment::Augmenter;
use twin_shared::id::BlobHash;
use twin_shared::pipe::{LabelBlock, LabelsJob, Outcome};
use twin_shared::plan::LabelKind;

use super::block::{Block, Header, block_path};
use crate::epoch::Batches;
use crate::error::LearnError;
use crate::model::Model;
use crate::place::Place;
use crate::run::{Progress, Run};
use crate::samples::TwinSamples;
use crate::tensor_file::write_whole;

/// A prepared [`LabelsJob`].
#[derive(Debug)]
pub struct LabelsRun {
    job: LabelsJob,
    samples: TwinSamples,
    teacher: Model,
    batches: Batches,
    directory: PathBuf,
    done: u32,
}

impl LabelsRun {
    /// Opens what the job names.
    ///
    /// # Errors
    /// When a file does not serve, or the plan makes no sense.
    pub fn new(job: LabelsJob, place: Place) -> Result<Self, LearnError> {
        if job.batches_per_block == 0 {
            return Err(LearnError::Job("a block of labels needs at least one batch".into()));
        }
        let samples = TwinSamples::open(Path::new(&job.dataset), place.device)?;
        let teacher = Model::load(Path::new(&job.teacher), place)?;
        let batches = Batches::of(&samples, job.plan)?;
        let directory = PathBuf::from(&job.out);
        if !directory.is_dir() {
            return Err(LearnError::Job(format!("{} is not a directory", directory.display())));
        }
        Ok(Self { job, samples, teacher, batches, directory, done: 0 })
    }

    fn block(&self, index: u32) -> Result<LabelBlock, LearnError> {
        let plan = self.job.plan;
        let first_batch = index * self.job.batches_per_block;
        let batches = self.job.batches_per_block.min(self.batches.count() - first_batch);
        let augmenter = Augmenter::new(plan.seed, plan.epoch, plan.augmentation);
        let mut labels = Vec::new();
        for batch in first_batch..first_batch + batches {
            let indices = self.batches.indices(batch);
            labels.push(self.samples.features(&self.teacher, self.job.kind, indices, &augmenter)?);
        }
        let labels = Tensor::f_cat(&labels, 0)?;
        let shape = labels.size();
        let covered = self.batches.span(first_batch, batches);
        let header = Header {
            kind: self.job.kind,
            precision: self.job.precision,
            plan,
            first_batch,
            batches,
            samples: u32::try_from(covered.len()).expect("fewer than 2^32 samples"),
            channels: u32::try_from(shape[1]).expect("a layer's width"),
            side: match self.job.kind {
                LabelKind::Map => u32::try_from(shape[2]).expect("a map's side"),
                LabelKind::Vector | LabelKind::Logits => 1,
            },
            digest: self.samples.batch_digest(covered, &augmenter),
        };
        let bytes = Block::new(header, &labels)?.to_bytes();
        let path = block_path(&self.directory, index);
        write_whole(&path, &bytes)?;
        Ok(LabelBlock {
            index,
            first_batch,
            batches,
            path: path.to_string_lossy().into_owned(),
            hash: BlobHash::of(&bytes),
            bytes: bytes.len() as u64,
        })
    }
}

impl Run for LabelsRun {
    fn steps(&self) -> u32 {
        self.batches.count().div_ceil(self.job.batches_per_block)
    }

    fn step(&mut self) -> Result<Progress, LearnError> {
        let block = self.block(self.done)?;
        self.done += 1;
        let outcome = (self.done == self.steps()).then_some(Outcome::Labels { blocks: self.done });
        Ok(Progress { loss: None, block: Some(block), outcome })
    }
}
