//! From a job on the pipe to a run that can be stepped.

use twin_learn::calibrate::CalibrateRun;
use twin_learn::count::CountRun;
use twin_learn::epoch::EpochRun;
use twin_learn::evaluate::EvaluateRun;
use twin_learn::fedavg::FedAvgRun;
use twin_learn::fedsgd::TeacherRun;
use twin_learn::init::InitRun;
use twin_learn::labels::LabelsRun;
use twin_learn::{LearnError, Place, Run};
use twin_shared::pipe::Job;

/// Prepares a job: opens and checks everything that it names.
pub(crate) fn prepare(job: Job, place: Place) -> Result<Box<dyn Run>, LearnError> {
    Ok(match job {
        Job::Teacher(job) => Box::new(TeacherRun::new(job, place)?),
        Job::InitStudent(job) => Box::new(InitRun::new(job)?),
        Job::Labels(job) => Box::new(LabelsRun::new(job, place)?),
        Job::Epoch(job) => Box::new(EpochRun::new(job, place)?),
        Job::FedAvg(job) => Box::new(FedAvgRun::new(job, place)?),
        Job::Evaluate(job) => Box::new(EvaluateRun::new(job, place)?),
        Job::Count(job) => Box::new(CountRun::new(&job)?),
        Job::Calibrate(job) => Box::new(CalibrateRun::new(&job, place)?),
    })
}
