//! The job that writes a fresh student state.

use std::path::Path;

use tch::Device;
use twin_shared::pipe::{InitStudentJob, Outcome};
use twin_shared::plan::Method;

use crate::error::LearnError;
use crate::model::Model;
use crate::run::{Progress, Run};
use crate::zoo::{HeadKind, NormKind};

/// A prepared [`InitStudentJob`].
#[derive(Debug)]
pub struct InitRun {
    job: InitStudentJob,
    head: HeadKind,
}

impl InitRun {
    /// Looks up what the student's head must fit.
    ///
    /// # Errors
    /// When the teacher's weights do not serve, or there are no classes.
    pub fn new(job: InitStudentJob) -> Result<Self, LearnError> {
        let head = match job.method {
            Method::SimKd => {
                let teacher = Model::load(Path::new(&job.teacher), Device::Cpu)?;
                teacher.classifier()?;
                HeadKind::Projector { channels: teacher.architecture().feature_map().0 as i64 }
            }
            Method::Kd { .. } | Method::CrossEntropy if job.classes == 0 => {
                return Err(LearnError::Job("a classifier needs at least one class".into()));
            }
            Method::Kd { .. } | Method::CrossEntropy => HeadKind::Classifier { classes: job.classes.into() },
        };
        Ok(Self { job, head })
    }
}

impl Run for InitRun {
    fn steps(&self) -> u32 {
        1
    }

    fn step(&mut self) -> Result<Progress, LearnError> {
        let student = Model::initial(self.job.architecture, self.head, NormKind::Batch, self.job.seed, Device::Cpu)?;
        let written = student.save(Path::new(&self.job.out))?;
        Ok(Progress {
            outcome: Some(Outcome::Student {
                version: written.version,
                hash: written.hash,
                bytes: written.bytes,
                loss: 0.0,
                samples: 0,
            }),
            ..Progress::default()
        })
    }
}
