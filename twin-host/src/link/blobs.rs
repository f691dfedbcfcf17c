//! Blobs, both ways: which are wanted of the board, what is sent, what is taken.

use std::time::{Duration, SystemTime};

use twin_core::coordinator::BoardInput;
use twin_data::delta;
use twin_shared::id::{BlobHash, RoundId};
use twin_shared::model::Site;
use twin_shared::transfer::{OnDisk, Output, chunk_for};
use twin_shared::wire::{BlobAck, BlobMessage, Channel, Manifest, Order, Purpose, Refusal, Sparing};

use super::Link;
use crate::store::Named;
use crate::traffic::{Day, Use};

/// Largest dataset and student state that are taken from a board, bytes.
const MAX_DATASET: u64 = 8 << 30;
const MAX_STATE: u64 = 512 << 20;

/// Largest batch of kept samples, and of random bytes that measure the way, bytes.
const MAX_SAMPLES: u64 = 1 << 20;
const MAX_PROBE: u64 = 4 << 20;

impl Link {
    /// What the board will send because of an order, and what it will not any more.
    pub(super) fn expect_by(&mut self, order: &Order) {
        match order {
            Order::SendDataset(version) => {
                self.expected.insert(Purpose::Dataset(*version));
            }
            Order::SendDelta { from, to } => {
                self.expected.insert(Purpose::DatasetDelta { from: *from, to: *to });
                self.expected.insert(Purpose::Dataset(*to));
            }
            Order::Assign(assignment) | Order::AssignOn { assignment, sparing: Sparing { upload: true, .. }, .. } => {
                self.begin_epoch();
                if assignment.site == Site::Local {
                    self.expected.insert(Purpose::Student { job: assignment.job, round: assignment.round });
                }
            }
            Order::AssignOn { .. } => self.begin_epoch(),
            Order::Rebirth | Order::Stop(_) | Order::Calibrate { .. } | Order::Activate(_) => {}
        }
    }

    /// Nothing more is wanted of the epochs before.
    fn begin_epoch(&mut self) {
        self.expected.retain(is_of_dataset);
        for carrier in std::mem::take(&mut self.carriers) {
            if let Err(error) = self.parts.blobs.remove(&carrier) {
                tracing::warn!(device = %self.parts.device, %error, "a difference that has served stays on disk");
            }
        }
    }

    /// Queues a blob of the device's own.
    pub(super) fn send(&mut self, blob: BlobHash, purpose: Purpose) {
        match self.parts.blobs.size(&blob) {
            Ok(size) => {
                let chunk = chunk_for(whole(self.rate.0));
                self.exchange.send(Manifest { blob, size, chunk, purpose });
            }
            Err(error) => tracing::error!(device = %self.parts.device, %error, "a blob to be sent is missing"),
        }
    }

    /// Gives up blobs of this epoch and those before.
    pub(super) fn forget(&mut self, until: RoundId) {
        self.exchange.cancel(|manifest| manifest.purpose.epoch().is_some_and(|(_, round)| round <= until));
    }

    /// Removes what nobody has named or wanted for a while.
    pub(super) async fn collect(&self, named: Named) {
        let (blobs, device) = (self.parts.blobs.clone(), self.parts.device.clone());
        // Awaited: what comes meanwhile waits.
        let swept = tokio::task::spawn_blocking(move || named.sweep(&blobs)).await;
        match swept {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(removed)) => tracing::info!(%device, removed, "blobs that nothing names are removed"),
            Ok(Err(error)) => tracing::warn!(%device, %error, "blobs that nothing names stay"),
        }
    }

    /// The board says what it holds of a blob.
    pub(super) async fn on_ack(&mut self, ack: &BlobAck) {
        let now = self.now();
        match self.exchange.on_ack(ack, now) {
            Some(
                Output::Sent(Manifest { purpose: Purpose::Probe(_), .. })
                | Output::Refused(Manifest { purpose: Purpose::Probe(_), .. }, _),
            ) => self.forget_probe(),
            Some(Output::Sent(manifest)) => self.tell(BoardInput::Sent { purpose: manifest.purpose }).await,
            Some(Output::Refused(manifest, why)) => {
                self.tell(BoardInput::BlobRefused { purpose: manifest.purpose, why }).await;
            }
            Some(Output::Offer(_) | Output::Chunk { .. } | Output::Ack(_) | Output::Verify(_)) | None => {}
        }
    }

    /// Holds blobs back both ways once the day's allowance is spent, and lets them go on the next day.
    pub(super) async fn mind_allowance(&mut self) {
        let Some(allowance) = self.parts.allowance else { return };
        let spent = self.parts.ledger.spent(&self.parts.device, Day::of(SystemTime::now())) >= allowance;
        if spent != self.spent {
            self.spent = spent;
            tracing::info!(device = %self.parts.device, allowance, spent, "the day's allowance of bytes");
        }
        for ack in self.exchange.open(!spent) {
            self.publish(Channel::DnAck, &ack).await;
        }
    }

    /// Sends what is due of blobs, as far as the rate allows; the time to wait where it does not.
    pub(super) async fn send_blobs(&mut self) -> Option<Duration> {
        loop {
            let now = self.now();
            if self.exchange.wake_at().is_none_or(|at| at > now) {
                return None;
            }
            if let Err(wait) = self.bucket.ready(now) {
                return Some(wait);
            }
            match self.exchange.poll(now) {
                Some(Output::Offer(manifest)) => {
                    self.used = manifest.purpose.into();
                    self.publish(Channel::DnBlob, &BlobMessage::Manifest(manifest)).await;
                }
                Some(Output::Chunk { blob, index, offset, length }) => {
                    match self.parts.blobs.read_chunk(&blob, offset, length) {
                        Ok(bytes) => {
                            self.used = self.exchange.progress().map_or(Use::Control, |(sent, ..)| sent.purpose.into());
                            self.publish(Channel::DnBlob, &BlobMessage::Chunk { blob, index, bytes: &bytes }).await;
                        }
                        Err(error) => {
                            tracing::error!(device = %self.parts.device, %error, "a blob to be sent is unreadable");
                            self.exchange.cancel(|manifest| manifest.blob == blob);
                        }
                    }
                }
                Some(Output::Ack(_) | Output::Verify(_) | Output::Sent(_) | Output::Refused(..)) | None => return None,
            }
        }
    }

    pub(super) async fn on_manifest(&mut self, manifest: Manifest) {
        let on_disk = self.parts.blobs.on_disk(&manifest);
        let limit = match manifest.purpose {
            Purpose::Telemetry => Ok(MAX_SAMPLES),
            Purpose::Probe(_) => Ok(MAX_PROBE),
            Purpose::Waiting => Ok(twin_data::waiting::MAX_BYTES),
            _ if !self.expected.contains(&manifest.purpose) => Err(Refusal::Unexpected),
            Purpose::Dataset(_) => Ok(MAX_DATASET),
            Purpose::DatasetDelta { .. } => Ok(delta::MAX_BYTES),
            Purpose::Student { .. } => Ok(MAX_STATE),
            Purpose::Base { .. }
            | Purpose::Labels { .. }
            | Purpose::Classes { .. }
            | Purpose::Model { .. }
            | Purpose::WaitingLabels => Err(Refusal::Unexpected),
        };
        // Held already, and wanted again: the board has not heard of it, and the coordinator may not have either.
        if limit.is_ok() && on_disk == OnDisk::Whole {
            return self.receive(manifest).await;
        }
        let answer = self.exchange.on_manifest(manifest, limit, on_disk);
        self.answer(Some(answer)).await;
    }

    pub(super) async fn on_chunk(&mut self, blob: BlobHash, index: u32, bytes: &[u8]) {
        let Some((manifest, offset)) = self.exchange.place(&blob, index, bytes.len()) else {
            let holding = self.exchange.holding(&blob);
            return self.answer(holding).await;
        };
        let next = self.parts.blobs.take_chunk(&mut self.exchange, &manifest, (index, offset), bytes);
        let next = next.unwrap_or_else(|error| {
            tracing::error!(device = %self.parts.device, %error, "a chunk cannot be stored");
            Some(self.exchange.verified(&blob, Err(Refusal::Storage)))
        });
        self.answer(next).await;
    }

    /// Publishes an acknowledgement; takes a blob that is whole first, so that nothing is acknowledged before it is
    /// stored.
    async fn answer(&mut self, output: Option<Output>) {
        match output {
            Some(Output::Verify(manifest)) => self.receive(manifest).await,
            Some(Output::Ack(ack)) => self.publish(Channel::DnAck, &ack).await,
            Some(Output::Offer(_) | Output::Chunk { .. } | Output::Sent(_) | Output::Refused(..)) | None => {}
        }
    }

    /// A blob is all here: checked, told and acknowledged, in this order.
    async fn receive(&mut self, manifest: Manifest) {
        let blobs = self.parts.blobs.clone();
        let verdict = match tokio::task::spawn_blocking(move || blobs.receive(&manifest)).await {
            Ok(Ok(blob)) => Ok(blob),
            Ok(Err(error)) => {
                tracing::warn!(device = %self.parts.device, %error, "a blob is refused");
                Err(error.refusal())
            }
            // The runtime ends.
            Err(_) => return,
        };
        if let (Ok(_), Purpose::Probe(_)) = (&verdict, manifest.purpose) {
            self.send_probe_back(manifest);
        } else if let Ok(blob) = verdict {
            if blob != manifest.blob && !self.carriers.contains(&manifest.blob) {
                self.carriers.push(manifest.blob);
            }
            let purpose = match manifest.purpose {
                // What changed has become the dataset.
                Purpose::DatasetDelta { to, .. } => Purpose::Dataset(to),
                purpose @ (Purpose::Dataset(_)
                | Purpose::Student { .. }
                | Purpose::Base { .. }
                | Purpose::Labels { .. }
                | Purpose::Classes { .. }
                | Purpose::Model { .. }
                | Purpose::Telemetry
                | Purpose::Waiting
                | Purpose::WaitingLabels
                | Purpose::Probe(_)) => purpose,
            };
            self.tell(BoardInput::Received { purpose, blob }).await;
        }
        if let Output::Ack(ack) = self.exchange.verified(&manifest.blob, verdict.map(drop)) {
            self.publish(Channel::DnAck, &ack).await;
        }
    }

    /// The board times both ways with the same bytes.
    fn send_probe_back(&mut self, manifest: Manifest) {
        if self.probe == Some(manifest.blob) {
            return;
        }
        self.forget_probe();
        self.probe = Some(manifest.blob);
        self.exchange.send(Manifest { chunk: chunk_for(whole(self.rate.0)), ..manifest });
    }

    pub(super) fn forget_probe(&mut self) {
        let Some(blob) = self.probe.take() else { return };
        self.exchange.cancel(|manifest| manifest.blob == blob);
        if let Err(error) = self.parts.blobs.remove(&blob) {
            tracing::warn!(device = %self.parts.device, %error, "bytes that measured the way stay on disk");
        }
    }
}

/// Whether a blob is a board's dataset, or what changed in it.
const fn is_of_dataset(purpose: &Purpose) -> bool {
    matches!(purpose, Purpose::Dataset(_) | Purpose::DatasetDelta { .. })
}

/// The nearest whole number; what is negative or no number is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
