//! Says what waits, and hears what comes.

use std::time::Instant;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::mpsc::{OwnedPermit, Sender};
use twin_shared::wire::seal::SealError;
use twin_shared::wire::{BlobMessage, Channel, Manifest, Purpose, Refusal, RenewalAnswer, RenewalRequest};

use super::{Agent, Line};
use crate::courier::{self, Delivery, Taken};
use crate::mailbox::Letter;
use crate::outbox::Parcel;
use crate::session::Input;
use crate::transport::Outgoing;

impl Agent {
    /// A way to send, if there is something to send and the pace allows it; else when it will.
    pub(super) fn room_wanted(&mut self) -> (Option<Sender<Outgoing>>, Option<Instant>) {
        let Line::Up { connection, .. } = &self.line else { return (None, None) };
        let room = connection.outgoing().clone();
        if !self.handled.is_empty() {
            return (Some(room), None);
        }
        let elapsed = self.started.elapsed();
        let blobs_due = self.session.is_served() && self.courier.wake_at().is_some_and(|at| at <= elapsed);
        if self.outbox.is_empty() && !blobs_due {
            return (None, None);
        }
        match self.pace.ready(elapsed) {
            Ok(()) => (Some(room), None),
            Err(wait) => (None, Instant::now().checked_add(wait)),
        }
    }

    /// Sends the most urgent thing through a place in the connection's queue.
    pub(super) fn speak(&mut self, room: OwnedPermit<Outgoing>) {
        if !self.handled.is_empty() {
            // In the order in which they came.
            room.send(Outgoing::Acknowledge(self.handled.remove(0)));
            return;
        }
        let Some((channel, sealed)) = self.next_sealed() else { return };
        match sealed {
            Ok(payload) => {
                self.pace.charge(payload.len());
                room.send(Outgoing::Publish(self.mailbox.topic(channel), payload));
            }
            Err(error) => tracing::error!(?channel, %error, "a message cannot be sealed"),
        }
    }

    fn next_sealed(&mut self) -> Option<(Channel, Result<Vec<u8>, SealError>)> {
        let elapsed = self.started.elapsed();
        let mailbox = &mut self.mailbox;
        if let Some(parcel) = self.outbox.pop() {
            let (channel, sealed) = match parcel {
                Parcel::State(state) => (Channel::UpState, mailbox.seal(Channel::UpState, elapsed, &state)),
                Parcel::Reported(document) => {
                    (Channel::UpReported, mailbox.seal(Channel::UpReported, elapsed, &document))
                }
                Parcel::Reply(reply) => (Channel::UpCommand, mailbox.seal(Channel::UpCommand, elapsed, &reply)),
                Parcel::Ack(ack) => (Channel::UpAck, mailbox.seal(Channel::UpAck, elapsed, &ack)),
                Parcel::Renewal(request) => {
                    let message = RenewalRequest::Keys { share: request.share, request: &request.request };
                    (Channel::UpRenewal, mailbox.seal(Channel::UpRenewal, elapsed, &message))
                }
                Parcel::Ping(nonce) => {
                    self.ping = Some((nonce.0, Instant::now()));
                    (Channel::UpPing, mailbox.seal(Channel::UpPing, elapsed, &nonce))
                }
                Parcel::Telemetry(sample) => {
                    (Channel::UpTelemetry, mailbox.seal(Channel::UpTelemetry, elapsed, &sample))
                }
                Parcel::Log(line) => (Channel::UpLog, mailbox.seal(Channel::UpLog, elapsed, &line)),
            };
            return Some((channel, sealed));
        }
        if !self.session.is_served() {
            return None;
        }
        let parcel = self.courier.next(Instant::now())?;
        let message = match &parcel {
            courier::Parcel::Manifest(manifest) => BlobMessage::Manifest(*manifest),
            courier::Parcel::Chunk { blob, index, bytes } => BlobMessage::Chunk { blob: *blob, index: *index, bytes },
        };
        Some((Channel::UpBlob, mailbox.seal(Channel::UpBlob, elapsed, &message)))
    }

    /// Handles a message; it is acknowledged after that, and refused ones are too, or they would come again.
    pub(super) async fn hear(&mut self, mut message: Publish) {
        let mut payload = Vec::from(std::mem::take(&mut message.payload));
        // An empty retained payload is how a broker forgets: nothing is said.
        if !payload.is_empty() {
            self.open(&message.topic, &mut payload).await;
        }
        if message.qos != QoS::AtMostOnce {
            self.handled.push(message);
        }
    }

    async fn open(&mut self, topic: &[u8], payload: &mut [u8]) {
        let topic = String::from_utf8_lossy(topic);
        let letter = match self.mailbox.open(&topic, payload) {
            Ok(letter) => letter,
            // Left over in the broker from an earlier life of ours, before the host has said who it is.
            Err(error) if !self.session.is_served() => {
                tracing::debug!(topic = %topic.escape_debug(), %error, "a message is refused");
                return;
            }
            Err(error) => {
                tracing::warn!(topic = %topic.escape_debug(), %error, "a message is refused");
                return;
            }
        };
        let now = Instant::now();
        match letter {
            Letter::Host(state, boot) => {
                self.mailbox.speak(state.versions);
                self.on_spoken(state.versions.newest);
                self.tell(Input::Host { state, boot }).await;
            }
            Letter::Desired(document) => self.tell(Input::Desired(document)).await,
            Letter::Command(command) => {
                tracing::debug!(id = command.id, order = ?command.order, "order");
                self.tell(Input::Command(command)).await;
            }
            Letter::Pong(nonce) => {
                if let Some((_, sent)) = self.ping.take_if(|(sent, _)| *sent == nonce.0) {
                    self.path.round_trip(now, now.saturating_duration_since(sent));
                }
            }
            Letter::Ack(ack) => match self.courier.on_ack(&ack, now, &mut self.path) {
                Some(Delivery::Sent(Manifest { purpose: Purpose::Telemetry, .. })) => self.backlog_left(true).await,
                Some(Delivery::Refused(Manifest { purpose: Purpose::Telemetry, .. }, _)) => {
                    self.backlog_left(false).await;
                }
                Some(Delivery::Sent(Manifest { purpose: Purpose::Waiting, .. })) => self.waiting_left(true).await,
                Some(Delivery::Refused(Manifest { purpose: Purpose::Waiting, .. }, _)) => {
                    self.waiting_left(false).await
                }
                Some(Delivery::Sent(manifest)) => self.tell(Input::Sent { purpose: manifest.purpose }).await,
                Some(Delivery::Refused(manifest, why)) => {
                    self.tell(Input::NotSent { purpose: manifest.purpose, why }).await;
                }
                None => {}
            },
            Letter::Renewal(RenewalAnswer::Due) => {
                match self.renewal.ask(&self.config.device, &self.keys, now, rand::random()) {
                    Ok(Some(request)) => self.outbox.push(Parcel::Renewal(request)),
                    Ok(None) => {}
                    Err(error) => tracing::error!(%error, "new keys are due"),
                }
            }
            Letter::Renewal(answer @ (RenewalAnswer::Keys { .. } | RenewalAnswer::Refused { .. })) => {
                match self.renewal.take(&answer, &self.config.device, &self.keys) {
                    Ok(keys) => self.next_keys = Some(keys),
                    Err(error) => tracing::warn!(%error, "the present keys go on"),
                }
            }
            Letter::Blob(BlobMessage::Manifest(manifest)) => {
                let limit = self.session.limit(&manifest);
                if limit == Err(Refusal::Unexpected) {
                    tracing::debug!(?manifest, "a blob that nobody wants");
                }
                let taken = self.courier.on_manifest(manifest, limit, now).await;
                self.on_taken(taken).await;
            }
            Letter::Blob(BlobMessage::Chunk { blob, index, bytes }) => {
                let taken = self.courier.on_chunk(blob, index, bytes, &mut self.path).await;
                self.on_taken(taken).await;
            }
        }
    }

    async fn on_taken(&mut self, taken: Taken) {
        if let Some(ack) = taken.ack {
            self.outbox.push(Parcel::Ack(ack));
        }
        if let Some((blob, purpose)) = taken.whole {
            self.tell(Input::Received { blob, purpose }).await;
        }
    }
}
