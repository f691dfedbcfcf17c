//! What commands ask of a serving host.

use twin_shared::id::{DeviceId, JobId};

use super::models::PromotionError;
use super::{Host, JobFailure};
use crate::config::{Devices, Job};
use crate::control::{Answer, Asked, Happened, Request};
use crate::store::{JobRecord, JobState, StoreError};

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
    /// A device's connection of before is worth nothing.
    Replaced(DeviceId),
}

/// Why a request is refused, or could not be looked at.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Promotion(#[from] PromotionError),
    #[error("{0}")]
    Asker(String),
}

impl Refused {
    /// Whether it is the asker's business alone, rather than the store's end.
    const fn is_the_askers(&self) -> bool {
        match self {
            Self::Store(error) | Self::Promotion(PromotionError::Store(error)) => matches!(
                error,
                StoreError::UnknownJob(_)
                    | StoreError::UnknownDevice(..)
                    | StoreError::NoModel(_)
                    | StoreError::UnknownModel { .. }
                    | StoreError::Class(_)
            ),
            Self::Promotion(PromotionError::Worse(_) | PromotionError::Nothing(_)) | Self::Asker(_) => true,
        }
    }
}

impl Host {
    /// Answers a request; `running` is the job that runs. What is asked of that job itself is returned.
    pub(super) fn answer(&self, asked: Asked, running: Option<JobId>) -> Result<Wish, StoreError> {
        let Asked { request, answer } = asked;
        let (said, wish) = match self.consider(request, running) {
            Ok((said, wish)) => (said, wish),
            Err(refused) => {
                let why = Answer::Refused(refused.to_string());
                if !refused.is_the_askers()
                    && let Refused::Store(error) | Refused::Promotion(PromotionError::Store(error)) = refused
                {
                    let _ = answer.send(why);
                    return Err(error);
                }
                (why, Wish::None)
            }
        };
        // Whoever asked may have gone away.
        let _ = answer.send(said);
        Ok(wish)
    }

    fn consider(&self, request: Request, running: Option<JobId>) -> Result<(Answer, Wish), Refused> {
        let done = |job: JobId, wish: Wish| Ok((Answer::Done { job: Some(job), version: None }, wish));
        match request {
            Request::JobStart { spec, .. } => {
                let listed = self.store.classes()?;
                let job = Job::parse(&spec, listed.count()).map_err(|error| Refused::Asker(error.to_string()))?;
                self.require_known(&job).map_err(|failure| Refused::Asker(failure.to_string()))?;
                let id = self.queue(&job, &spec)?;
                done(id, Wish::None)
            }
            Request::Watch { job } => {
                if let Some(job) = job {
                    let record = self.store.job(job)?;
                    if record.state.is_over() {
                        return Err(Refused::Asker(format!("job {job} is {} already", record.state)));
                    }
                }
                Ok((Answer::Done { job, version: None }, Wish::None))
            }
            Request::JobPause { job } => match self.store.job(job)?.state {
                JobState::Running if running == Some(job) => done(job, Wish::Pause),
                JobState::Running | JobState::Queued => {
                    self.set_state(job, JobState::Paused)?;
                    done(job, Wish::None)
                }
                state @ (JobState::Paused | JobState::Finished | JobState::Failed | JobState::Stopped) => {
                    Err(Refused::Asker(format!("job {job} is {state}: only one that runs or waits can be paused")))
                }
            },
            Request::JobResume { job } => match self.store.job(job)?.state {
                JobState::Paused | JobState::Failed | JobState::Stopped => {
                    self.store.set_job_state(job, JobState::Queued, None)?;
                    self.tell(job, Happened::Queued);
                    done(job, Wish::None)
                }
                state @ (JobState::Queued | JobState::Running | JobState::Finished) => {
                    Err(Refused::Asker(format!("job {job} is {state}: there is nothing to resume")))
                }
            },
            Request::JobStop { job } => match self.store.job(job)?.state {
                JobState::Running if running == Some(job) => done(job, Wish::Stop),
                JobState::Running | JobState::Queued | JobState::Paused => {
                    self.set_state(job, JobState::Stopped)?;
                    done(job, Wish::None)
                }
                state @ (JobState::Finished | JobState::Failed | JobState::Stopped) => {
                    Err(Refused::Asker(format!("job {job} is {state} already")))
                }
            },
            Request::JobJoin { job, device } => {
                self.require_running(job, running)?;
                self.require_enrolled(&device)?;
                done(job, Wish::Join(device))
            }
            Request::JobLeave { job, device } => {
                self.require_running(job, running)?;
                self.store.device(&device)?;
                done(job, Wish::Leave(device))
            }
            Request::JobWiden { job } => {
                let id = self.store.widen_job(job)?;
                self.tell(id, Happened::Queued);
                done(id, Wish::None)
            }
            Request::ClassesChanged => {
                for device in self.enrolled()? {
                    self.offer_classes(&device)?;
                }
                Ok((Answer::Done { job: None, version: None }, Wish::None))
            }
            Request::Promote { device, version } => {
                let version = self.promote(&device, version.as_deref())?.to_string();
                Ok((Answer::Done { job: None, version: Some(version) }, Wish::None))
            }
            Request::RollBack { device, version } => {
                let version = self.roll_back(&device, version.as_deref())?.to_string();
                Ok((Answer::Done { job: None, version: Some(version) }, Wish::None))
            }
            Request::Labelled { device } => {
                self.offer_labels(&device)?;
                Ok((Answer::Done { job: None, version: None }, Wish::None))
            }
            Request::Replaced { device } => Ok((Answer::Done { job: running, version: None }, Wish::Replaced(device))),
            Request::Release { device } => Ok((Answer::Done { job: running, version: None }, Wish::Leave(device))),
        }
    }

    /// Takes a job in with the names of its classes.
    pub(super) fn queue(&self, job: &Job, text: &str) -> Result<JobId, StoreError> {
        let listed = self.store.classes()?;
        let names = if job.follows_list {
            listed.names().to_vec()
        } else {
            // By number, unless the list has names for just so many.
            let numbers = (0..job.classes).map(|class| class.to_string()).collect();
            if listed.count() == job.classes { listed.names().to_vec() } else { numbers }
        };
        let parent = if job.teacher.warm_start { self.parent_of(job, &names)? } else { None };
        let id = self.store.queue_job(text, &names, parent)?;
        self.tell(id, Happened::Queued);
        Ok(id)
    }

    /// The latest finished job whose teacher a job's own can go on from.
    fn parent_of(&self, job: &Job, names: &[String]) -> Result<Option<JobId>, StoreError> {
        let fits = |record: &JobRecord| {
            let classes = u16::try_from(record.classes.len()).unwrap_or(u16::MAX);
            let earlier = Job::parse(&record.spec, classes).ok().map(|earlier| earlier.teacher.architecture);
            record.state == JobState::Finished
                && names.starts_with(&record.classes)
                && earlier == Some(job.teacher.architecture)
        };
        Ok(self.store.jobs()?.iter().rfind(|record| fits(record)).map(|record| record.job))
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
