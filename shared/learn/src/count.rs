//! The job that counts a dataset's samples.

use std::path::Path;

use tch::Device;
use twin_data::Part;
use twin_shared::pipe::{CountJob, Outcome};

use crate::error::LearnError;
use crate::run::{Progress, Run};
use crate::samples::TwinSamples;

/// A prepared [`CountJob`].
#[derive(Debug)]
pub struct CountRun(TwinSamples);

impl CountRun {
    /// Opens the dataset.
    ///
    /// # Errors
    /// When the file does not serve.
    pub fn new(job: &CountJob) -> Result<Self, LearnError> {
        TwinSamples::open(Path::new(&job.dataset), Device::Cpu).map(Self)
    }
}

impl Run for CountRun {
    fn steps(&self) -> u32 {
        1
    }

    fn step(&mut self) -> Result<Progress, LearnError> {
        let count = |part| u32::try_from(self.0.indices(part).len()).expect("fewer than 2^32 samples");
        Ok(Progress {
            outcome: Some(Outcome::Counts {
                train: count(Part::Train),
                held: count(Part::Held),
                labels: self.0.train_label_counts(),
            }),
            ..Progress::default()
        })
    }
}
