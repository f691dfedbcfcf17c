//! Does what the session wants.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use twin_shared::id::{BlobHash, DatasetVersion};
use twin_shared::pipe::{Job, Request, Ticket};
use twin_shared::units::BitsPerSecond;
use twin_shared::wire::{Assignment, LogLevel, LogLine, Purpose, Sparing, codec};

use super::Agent;
use crate::outbox::Parcel;
use crate::session::{Input, Memory, Message, Output};
use crate::trainer::TrainerProcess;
use crate::{durable, off_loop};

/// Version of the memory's file. Version 1 ended before the assigned epoch, version 2 before how states travel, version
/// 3 before the assigned epoch's dataset.
const MEMORY_VERSION: u8 = 4;
/// What older versions lack at their end is nothing, and nothing is a zero: so many of them.
const OLDER: [(u8, usize); 3] = [(1, 4), (2, 3), (3, 1)];

/// Partial files that nothing was written to for so long are given up.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// Reads what an earlier life left.
pub(super) fn recall(folder: &Path) -> anyhow::Result<Memory> {
    let file = memory_file(folder);
    let bytes = durable::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let memory = bytes.as_deref().map(|bytes| match bytes.split_first() {
        Some((&MEMORY_VERSION, rest)) => codec::decode::<Memory>(rest).ok(),
        Some((version, rest)) => OLDER
            .iter()
            .find(|(older, _)| older == version)
            .and_then(|&(_, missing)| codec::decode::<Memory>(&[rest, &vec![0; missing]].concat()).ok()),
        None => None,
    });
    Ok(match memory {
        None => Memory::default(),
        Some(Some(memory)) => memory,
        Some(None) => {
            tracing::warn!(file = %file.display(), "what was remembered is not readable and is forgotten");
            Memory::default()
        }
    })
}

fn memory_file(folder: &Path) -> PathBuf {
    folder.join("memory")
}

fn remember(folder: &Path, memory: &Memory) -> Result<(), String> {
    let mut buffer = [0; 1024];
    let body = codec::encode(memory, &mut buffer).map_err(|error| error.to_string())?;
    let mut bytes = vec![MEMORY_VERSION];
    bytes.extend_from_slice(body);
    durable::replace(&memory_file(folder), &bytes).map_err(|error| error.to_string())
}

impl Agent {
    /// Tells the session, and does what it wants, until it wants nothing more.
    pub(super) async fn tell(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.session.handle(self.started.elapsed(), input) {
                inputs.extend(self.perform(output).await);
            }
        }
        self.tell_service();
    }

    /// Does one thing; what comes of it at once is the next input.
    async fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Persist(memory) => {
                let folder = self.config.data_dir.clone();
                let stored = off_loop(move || remember(&folder, &memory)).await;
                return stored.err().map(|error| Input::StorageFailed(format!("memory: {error}")));
            }
            Output::Adopt(boot) => {
                self.mailbox.adopt(boot);
                self.courier.reconnect();
            }
            Output::Publish(message) => self.outbox.push(match message {
                Message::State(state) => Parcel::State(Box::new(state)),
                Message::Reported(document) => Parcel::Reported(document),
                Message::Reply(reply) => {
                    tracing::debug!(command = reply.command, status = ?reply.status, "reply");
                    Parcel::Reply(reply)
                }
            }),
            Output::Send { blob, purpose } => return self.offer(blob, purpose),
            Output::Abandon { but } => {
                self.courier.cancel(|manifest| manifest.purpose.epoch().is_some_and(|epoch| but != Some(epoch)));
            }
            Output::Look(blob) => {
                return Some(Input::Found { blob, held: self.courier.blobs().contains(&blob) });
            }
            Output::Rehash(document) => {
                let blobs = self.courier.blobs().clone();
                let found = off_loop(move || {
                    let held = blobs.contains(&document.state);
                    held.then(|| blobs.rehash(&document.state))
                });
                return Some(match found.await.transpose() {
                    Ok(found) => Input::Hashed { document, found },
                    Err(error) => Input::StorageFailed(error.to_string()),
                });
            }
            Output::Prepare { job, round, common } => {
                let workspace = self.workspace.clone();
                let prepared = off_loop(move || workspace.prepare(job, round, &common)).await;
                return prepared.err().map(|error| Input::StorageFailed(format!("work: {error}")));
            }
            Output::PlaceLabels { job, round, index, blob } => {
                let file = self.courier.blobs().path(&blob);
                let placed = self.workspace.place_labels(&file, job, round, index);
                return placed.err().map(|error| Input::StorageFailed(format!("labels {index}: {error}")));
            }
            Output::RecallLabels { job, round } => {
                let workspace = self.workspace.clone();
                return Some(match off_loop(move || workspace.labels_at_hand(job, round)).await {
                    Ok(blocks) => Input::LabelsAtHand { job, round, blocks },
                    Err(error) => Input::StorageFailed(format!("labels: {error}")),
                });
            }
            Output::Submit { ticket, assignment, sparing, dataset, momentum } => {
                return self.submit(ticket, &assignment, &sparing, dataset, momentum);
            }
            Output::Grant(ticket) => self.ask_trainer(Request::Grant { ticket, steps: 1 }),
            Output::Cancel(ticket) => self.ask_trainer(Request::Cancel { ticket }),
            Output::Save(ticket) => self.ask_trainer(Request::Save { ticket }),
            Output::RecallCalibration(batch) => return Some(Input::Recalled(self.calibrator.recall(batch))),
            Output::Calibrate(batch) => self.calibrator.begin(batch),
            Output::StopCalibration => self.calibrator.stop(),
            Output::Unfit { architecture, batch, why } => {
                return self.calibrator.mark(architecture, batch, why).map(Input::Calibrated);
            }
            Output::Keep { ticket, job, round } => {
                let (blobs, workspace) = (self.courier.blobs().clone(), self.workspace.clone());
                let kept = off_loop(move || workspace.keep(job, round, &blobs)).await;
                return Some(Input::Kept { ticket, kept });
            }
            Output::StopTrainer => {
                if let Some(trainer) = self.trainer.take() {
                    tokio::spawn(trainer.retire());
                }
            }
            Output::KillTrainer => self.trainer = None,
            Output::Pace(bits_per_second) => self.pace.allot(bits_per_second, self.started.elapsed()),
            Output::Collect(needed) => {
                let (blobs, delta) = (self.courier.blobs().clone(), self.delta);
                let flying = self.flying.as_ref().map(|(blob, _)| *blob);
                let waiting = self.waiting.as_ref().and_then(|waiting| waiting.made);
                let others = [flying, delta, waiting];
                let keep = move |blob: &BlobHash| needed.contains(blob) || others.contains(&Some(*blob));
                match off_loop(move || blobs.retain(keep, PATIENCE)).await {
                    Ok(removed) => tracing::debug!(removed, "blobs that are no longer needed went"),
                    Err(error) => tracing::warn!(%error, "blobs that are no longer needed stay"),
                }
            }
            Output::SendDelta { from, to } => return self.send_delta(from, to).await,
            Output::TakeClasses(blob) => self.take_classes(blob).await,
            Output::TakeLabels(blob) => self.take_labels(blob),
            Output::Install { version, blob } => return Some(self.install(version, blob).await),
            Output::Activate(version) => return Some(self.activate(version).await),
            Output::Warn(text) => {
                tracing::warn!("{text}");
                if self.session.connection().is_some() {
                    let text = text.chars().take(60).collect::<String>();
                    let text = heapless::String::try_from(text.as_str()).unwrap_or_default();
                    self.outbox.push(Parcel::Log(LogLine { level: LogLevel::Warning, text }));
                }
            }
        }
        None
    }

    /// Offers a blob to the host.
    pub(super) fn offer(&mut self, blob: BlobHash, purpose: Purpose) -> Option<Input> {
        let measured = self.path.reading(std::time::Instant::now()).goodput_up.value().copied();
        let rate = self.pace.chunk_rate(measured.map(BitsPerSecond::from));
        let sent = self.courier.send(blob, purpose, rate);
        sent.err().map(|error| Input::StorageFailed(error.to_string()))
    }

    fn submit(
        &mut self,
        ticket: Ticket,
        assignment: &Assignment,
        sparing: &Sparing,
        dataset: DatasetVersion,
        momentum: bool,
    ) -> Option<Input> {
        // A dataset's version is the hash of its bytes, and so the name of its blob.
        let dataset = BlobHash(dataset.0);
        let job = match self.workspace.epoch_job(assignment, sparing, momentum, self.courier.blobs(), &dataset) {
            Ok(job) => job,
            Err(error) => return Some(Input::StorageFailed(error.to_string())),
        };
        if self.trainer.is_none() {
            match TrainerProcess::start(&self.config.trainer) {
                Ok(trainer) => self.trainer = Some(trainer),
                Err(error) => return Some(Input::NoTrainer(error.to_string())),
            }
        }
        let (job_id, round, architecture) = (assignment.job, assignment.round, assignment.architecture);
        tracing::info!(job = %job_id, %round, %architecture, momentum = job.momentum.is_some(), "an epoch is trained here");
        self.ask_trainer(Request::Submit { ticket, job: Box::new(Job::Epoch(job)) });
        None
    }

    fn ask_trainer(&self, request: Request) {
        if let Some(trainer) = &self.trainer {
            trainer.request(request);
        }
    }

    /// One line for the service manager, when it changes.
    fn tell_service(&mut self) {
        let status = match (self.session.is_served(), self.session.connection()) {
            (true, _) => "connected to the host",
            (false, Some(_)) => "at the broker; the host is away",
            (false, None) => "no broker",
        };
        if self.told_service != status {
            self.told_service = status;
            tracing::info!("{status}");
            self.service.status(status);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_agent_remembered_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(recall(folder.path()).expect("nothing there"), Memory::default());
        let memory = Memory { host_epoch: 300, ..Memory::default() };
        remember(folder.path(), &memory).expect("written");
        assert_eq!(recall(folder.path()).expect("readable"), memory);
        // Version 1: life 300 of the host, nothing trained, nothing reported, nothing confirmed.
        std::fs::write(memory_file(folder.path()), [1, 0xac, 0x02, 0, 0, 0]).expect("written");
        assert_eq!(recall(folder.path()).expect("readable"), memory);
        std::fs::write(memory_file(folder.path()), [9, 0xac]).expect("written");
        assert_eq!(recall(folder.path()).expect("readable"), Memory::default());
    }
}
