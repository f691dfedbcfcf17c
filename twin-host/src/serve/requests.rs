//! What commands ask of a serving host.

use twin_shared::id::{DeviceId, JobId};

use super::{Host, JobFailure};
use crate::config::{Devices, Job};
use crate::control::{Answer, Asked, Happened, Request};
use crate::store::{JobState, StoreError};

/// What a request wants of the job that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    None,
    /// Rest.
    Pause,
    /// End.
    Stop,
    /// Take a device in.
    Join(DeviceId),
    /// Take a device out.
    Leave(DeviceId),
}

/// Why a request is refused, or could not be looked at.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Asker(String),
}

impl Host {
    /// Answers a request; `running` is the job that runs. What is asked of that job itself is returned.
    pub(super) fn answer(&self, asked: Asked, running: Option<JobId>) -> Result<Wish, StoreError> {
        let Asked { request, answer } = asked;
        let (said, wish) = match self.consider(request, running) {
            Ok((job, wish)) => (Answer::Done { job }, wish),
            Err(Refused::Asker(why)) => (Answer::Refused(why), Wish::None),
            Err(Refused::Store(error @ (StoreError::UnknownJob(_) | StoreError::UnknownDevice(..)))) => {
                (Answer::Refused(error.to_string()), Wish::None)
            }
            Err(Refused::Store(error)) => {
                let _ = answer.send(Answer::Refused(error.to_string()));
                return Err(error);
            }
        };
        // Whoever asked may have gone away.
        let _ = answer.send(said);
        Ok(wish)
    }

    fn consider(&self, request: Request, running: Option<JobId>) -> Result<(Option<JobId>, Wish), Refused> {
        match request {
            Request::JobStart { spec, .. } => {
                let job = Job::parse(&spec).map_err(|error| Refused::Asker(error.to_string()))?;
                self.require_known(&job).map_err(|failure| Refused::Asker(failure.to_string()))?;
                let id = self.store.queue_job(&spec)?;
                self.tell(id, Happened::Queued);
                Ok((Some(id), Wish::None))
            }
            Request::Watch { job } => {
                if let Some(job) = job {
                    let record = self.store.job(job)?;
                    if record.state.is_over() {
                        return Err(Refused::Asker(format!("job {job} is {} already", record.state)));
                    }
                }
                Ok((job, Wish::None))
            }
            Request::JobPause { job } => match self.store.job(job)?.state {
                JobState::Running if running == Some(job) => Ok((Some(job), Wish::Pause)),
                JobState::Running | JobState::Queued => {
                    self.set_state(job, JobState::Paused)?;
                    Ok((Some(job), Wish::None))
                }
                state @ (JobState::Paused | JobState::Finished | JobState::Failed | JobState::Stopped) => {
                    Err(Refused::Asker(format!("job {job} is {state}: only one that runs or waits can be paused")))
                }
            },
            Request::JobResume { job } => match self.store.job(job)?.state {
                JobState::Paused | JobState::Failed | JobState::Stopped => {
                    self.store.set_job_state(job, JobState::Queued, None)?;
                    self.tell(job, Happened::Queued);
                    Ok((Some(job), Wish::None))
                }
                state @ (JobState::Queued | JobState::Running | JobState::Finished) => {
                    Err(Refused::Asker(format!("job {job} is {state}: there is nothing to resume")))
                }
            },
            Request::JobStop { job } => match self.store.job(job)?.state {
                JobState::Running if running == Some(job) => Ok((Some(job), Wish::Stop)),
                JobState::Running | JobState::Queued | JobState::Paused => {
                    self.set_state(job, JobState::Stopped)?;
                    Ok((Some(job), Wish::None))
                }
                state @ (JobState::Finished | JobState::Failed | JobState::Stopped) => {
                    Err(Refused::Asker(format!("job {job} is {state} already")))
                }
            },
            Request::JobJoin { job, device } => {
                self.require_running(job, running)?;
                self.require_enrolled(&device)?;
                Ok((Some(job), Wish::Join(device)))
            }
            Request::JobLeave { job, device } => {
                self.require_running(job, running)?;
                self.store.device(&device)?;
                Ok((Some(job), Wish::Leave(device)))
            }
        }
    }

    fn set_state(&self, job: JobId, state: JobState) -> Result<(), StoreError> {
        self.store.set_job_state(job, state, None)?;
        self.tell(job, Happened::Ended { state: state.name().into(), why: None });
        Ok(())
    }

    fn require_running(&self, job: JobId, running: Option<JobId>) -> Result<(), Refused> {
        let state = self.store.job(job)?.state;
        if running == Some(job) {
            Ok(())
        } else {
            Err(Refused::Asker(format!("job {job} is {state}: devices join and leave one that runs")))
        }
    }

    fn require_enrolled(&self, device: &DeviceId) -> Result<(), Refused> {
        if self.store.device(device)?.revoked {
            return Err(Refused::Asker(format!("{device} is locked out; enroll it again first")));
        }
        Ok(())
    }

    /// Whether the job's devices are enrolled.
    pub(super) fn require_known(&self, job: &Job) -> Result<(), JobFailure> {
        let enrolled = self.enrolled()?;
        match &job.devices {
            Devices::All => Ok(()),
            Devices::These(devices) => match devices.iter().find(|device| !enrolled.contains(device)) {
                Some(unknown) => Err(JobFailure::Unknown(unknown.clone())),
                None => Ok(()),
            },
        }
    }

    /// The devices that take part in a job from its start.
    pub(super) fn participants(&self, job: &Job) -> Result<Vec<DeviceId>, StoreError> {
        match &job.devices {
            Devices::All => self.enrolled(),
            Devices::These(devices) => Ok(devices.clone()),
        }
    }

    fn enrolled(&self) -> Result<Vec<DeviceId>, StoreError> {
        let devices = self.store.devices()?.into_iter().filter(|record| !record.revoked);
        Ok(devices.map(|record| record.device).collect())
    }
}
