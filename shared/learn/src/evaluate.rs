//! The job that scores a network on a dataset.

use std::path::Path;

use twin_shared::pipe::{EvaluateJob, Outcome};

use crate::error::LearnError;
use crate::model::Model;
use crate::place::Place;
use crate::run::{Progress, Run};
use crate::samples::TwinSamples;

/// A prepared [`EvaluateJob`].
#[derive(Debug)]
pub struct EvaluateRun {
    job: EvaluateJob,
    samples: TwinSamples,
    network: Model,
    teacher: Option<Model>,
}

impl EvaluateRun {
    /// Opens what the job names.
    ///
    /// # Errors
    /// When a file does not serve.
    pub fn new(job: EvaluateJob, place: Place) -> Result<Self, LearnError> {
        let teacher = job.teacher.as_deref().map(|path| Model::load(Path::new(path), place));
        Ok(Self {
            samples: TwinSamples::open(Path::new(&job.dataset), place.device)?,
            network: Model::load(Path::new(&job.weights), place)?,
            teacher: teacher.transpose()?,
            job,
        })
    }
}

impl Run for EvaluateRun {
    fn steps(&self) -> u32 {
        1
    }

    fn step(&mut self) -> Result<Progress, LearnError> {
        let scores = self.samples.score(&self.network, self.teacher.as_ref(), self.job.part, &self.job.devices)?;
        Ok(Progress { outcome: Some(Outcome::Evaluation(scores)), ..Progress::default() })
    }
}
