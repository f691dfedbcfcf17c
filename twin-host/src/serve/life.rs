//! A serving host's life: one job after the other, and commands in between.

use std::time::SystemTime;

use tokio::sync::watch;
use twin_core::coordinator::{BoardInput, Note};
use twin_shared::id::JobId;
use twin_shared::wire::Purpose;

use super::job::{Ending, JobFailure};
use super::{Host, ServeError};
use crate::config::Job;
use crate::control::{Event, Happened};
use crate::link::{FromBoard, LinkOrder, Said};
use crate::store::{JobRecord, JobState, StoreError};

impl Host {
    /// Runs the store's jobs as their turns come, and waits for more, until it is told to stop. A job that ran when
    /// the host ended goes on; one that fails is told and does not end the host.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn serve(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), ServeError> {
        self.collect();
        while !*stop.borrow() {
            match self.store.next_job()? {
                Some(record) => {
                    self.take_turn(&record, stop.clone()).await?;
                    self.collect();
                }
                None => self.idle(&mut stop).await?,
            }
        }
        Ok(())
    }

    /// Has what nothing names removed from every twin's blobs. Where it cannot be told what is named, all stays.
    fn collect(&self) {
        let ordered = || -> Result<(), StoreError> {
            let Some(turn) = self.store.turn_to_collect()? else { return Ok(()) };
            for record in self.store.devices()? {
                let named = self.store.named(&record.device, &turn)?;
                self.order(&record.device, LinkOrder::Collect(named));
            }
            Ok(())
        };
        if let Err(error) = ordered() {
            tracing::warn!(%error, "blobs that nothing names stay");
        }
    }

    /// Takes a job in, unless it is the latest one and not over: a host that is started again with the same job goes on
    /// with it.
    ///
    /// # Errors
    /// When it names a device that is not enrolled, or the store refuses.
    pub fn take_in(&self, job: &Job, text: &str) -> Result<(), JobFailure> {
        self.require_known(job)?;
        let latest = self.store.jobs()?.pop();
        if latest.is_none_or(|latest| latest.spec != text || latest.state.is_over()) {
            self.queue(job, text)?;
        }
        Ok(())
    }

    /// Waits for a command that gives the host something to do. Boards are greeted, answered and remembered.
    async fn idle(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), ServeError> {
        tokio::select! {
            asked = self.control.asked.recv() => if let Some(asked) = asked {
                self.answer(asked, None)?;
            },
            from = self.from_boards.recv() => if let Some(from) = from {
                self.remember(&from)?;
                tracing::debug!(device = %from.device, said = ?from.said, "no job");
            },
            _ = stop.changed() => {}
        }
        Ok(())
    }

    /// Does what matters with a job and without: stores what a board has for its operator and what it measured while this
    /// host was out of its reach, and greets it.
    pub(super) fn remember(&self, from: &FromBoard) -> Result<(), StoreError> {
        let device = &from.device;
        match &from.said {
            Said::Log(line) => self.store.keep_log(device, line),
            Said::Board(BoardInput::Online(birth)) => self.greet(device, birth),
            Said::Board(BoardInput::Received { purpose: Purpose::Telemetry, blob }) => {
                self.store.keep_samples(device, blob, SystemTime::now())
            }
            Said::Board(BoardInput::Telemetry(sample)) => {
                if let Some(recorder) = &self.recorder {
                    recorder.sample(device, sample);
                }
                Ok(())
            }
            Said::Board(BoardInput::Received { purpose: Purpose::Waiting, blob }) => {
                self.store.hold_waiting(device, blob)
            }
            Said::Board(_) => Ok(()),
        }
    }

    async fn take_turn(&mut self, record: &JobRecord, stop: watch::Receiver<bool>) -> Result<(), ServeError> {
        let id = record.job;
        let job = match Job::parse(&record.spec, u16::try_from(record.classes.len()).unwrap_or(u16::MAX)) {
            Ok(job) => job,
            Err(error) => return self.end(id, JobState::Failed, Some(&error.to_string())),
        };
        self.store.set_job_state(id, JobState::Running, None)?;
        self.tell(id, Happened::Started { resumed: record.state == JobState::Running });
        let note = &mut |note: &Note| tracing::info!(?note, "job");
        match self.run_record(record, &job, note, stop).await {
            Ok((Ending::Finished, _)) => {
                self.store.clear_job(id)?;
                self.end(id, JobState::Finished, None)
            }
            Ok((Ending::Paused, _)) => self.end(id, JobState::Paused, None),
            Ok((Ending::Stopped, _)) => self.end(id, JobState::Stopped, None),
            // The host stops; the job goes on with its next start.
            Err(JobFailure::Stopped) => Ok(()),
            Err(JobFailure::Store(error)) => Err(error.into()),
            Err(failure) => {
                tracing::error!(job = %id, %failure, "the job failed");
                self.end(id, JobState::Failed, Some(&failure.to_string()))
            }
        }
    }

    pub(super) fn end(&self, job: JobId, state: JobState, why: Option<&str>) -> Result<(), ServeError> {
        self.store.set_job_state(job, state, why)?;
        self.tell(job, Happened::Ended { state: state.name().into(), why: why.map(str::to_owned) });
        Ok(())
    }

    /// Tells whoever watches, and the recording.
    pub(super) fn tell(&self, job: JobId, happened: Happened) {
        let event = Event::now(job, happened);
        if let Some(recorder) = &self.recorder {
            recorder.event(&event);
        }
        // Nobody may watch.
        let _ = self.control.events.send(event);
    }
}
