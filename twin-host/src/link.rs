//! The host's end of one board's channels: a task that opens what the board sends, carries blobs both ways, and
//! passes on to the coordinator only what it means. What one board sends can disturb nobody else.

mod blobs;
mod keys;
mod message;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use twin_core::coordinator::BoardInput;
use twin_shared::id::BlobHash;
use twin_shared::pacing::TokenBucket;
use twin_shared::transfer::Exchange;
use twin_shared::units::BitsPerSecond;
use twin_shared::wire::seal::{DeviceKey, Opener, SealError, Sealer};
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::{
    BlobAck, BlobMessage, BoardState, Channel, Command, Direction, HostState, LogLine, MAX_CHUNK, Nonce, Order,
    Purpose, RenewalAnswer, RenewalRequest, Reply, Topic, TwinDocument, WIRE_VERSIONS, codec,
};

use crate::broker::{Inbound, Outbound};
use crate::traffic::{Day, Use, packet};
pub use message::LinkCounts;
pub(crate) use message::{Desk, FromBoard, Grant, GrantedKeys, LinkOrder, LinkParts, Said};

/// Without anything to do a link wakes this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// While the day's allowance is spent, whether a new day has begun is looked at this often.
const NEW_DAY: Duration = Duration::from_secs(60);

/// One board's link.
pub(crate) struct Link {
    parts: LinkParts,
    sealer: Sealer,
    opener: Opener,
    exchange: Exchange,
    bucket: TokenBucket,
    rate: BitsPerSecond,
    /// Birth counter of the newest birth; an older one is a leftover.
    birth: u64,
    commands: u64,
    /// The key that the board may change over to.
    next: Option<DeviceKey>,
    /// Whether the board should renew its keys.
    due: bool,
    /// When the board last asked for keys.
    asked: Option<Instant>,
    /// The last twin document, to be said again under another key.
    desired: Option<TwinDocument>,
    expected: BTreeSet<Purpose>,
    /// Differences that have come and become what they stand for. Until the next epoch they may be offered again.
    carriers: Vec<BlobHash>,
    /// The random bytes that the board has sent last to measure the way, until it has them back.
    probe: Option<BlobHash>,
    counts: LinkCounts,
    buffer: Vec<u8>,
    /// What the message in hand is for.
    used: Use,
    /// Whether the day's allowance is spent.
    spent: bool,
}

impl Link {
    pub(crate) fn new(parts: LinkParts) -> Self {
        let rate = BitsPerSecond(100e6);
        Self {
            sealer: Sealer::new(&parts.key, Direction::Down, parts.boot),
            opener: Opener::new(parts.key.clone(), Direction::Up),
            exchange: Exchange::default(),
            bucket: TokenBucket::of_link(rate, parts.started.elapsed()),
            rate,
            birth: 0,
            commands: 0,
            next: None,
            due: false,
            asked: None,
            desired: None,
            expected: BTreeSet::new(),
            carriers: Vec::new(),
            probe: None,
            counts: LinkCounts::default(),
            buffer: vec![0; MAX_CHUNK + 512],
            used: Use::Control,
            spent: false,
            parts,
        }
    }

    /// Runs until the host stops; returns what was counted.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Inbound>,
        mut orders: mpsc::UnboundedReceiver<LinkOrder>,
    ) -> LinkCounts {
        self.announce(true).await;
        loop {
            self.mind_allowance().await;
            let paced = self.send_blobs().await;
            let wake = match (paced, self.exchange.wake_at()) {
                (Some(wait), _) => wait,
                (None, Some(at)) => at.saturating_sub(self.now()).max(Duration::from_millis(1)),
                (None, None) => LONGEST_SLEEP,
            };
            tokio::select! {
                inbound = inbox.recv() => match inbound {
                    Some(inbound) => self.on_inbound(inbound).await,
                    None => return self.leave().await,
                },
                order = orders.recv() => match order {
                    Some(LinkOrder::Farewell) => {
                        self.announce(false).await;
                        return self.counts;
                    }
                    None => return self.leave().await,
                    Some(order) => self.on_order(order).await,
                },
                () = tokio::time::sleep(wake.min(if self.spent { NEW_DAY } else { LONGEST_SLEEP })) => {}
            }
        }
    }

    /// The board is locked out: nothing more is said to it.
    async fn leave(self) -> LinkCounts {
        self.tell(BoardInput::Offline { sequence: self.birth }).await;
        self.counts
    }

    fn now(&self) -> Duration {
        self.parts.started.elapsed()
    }

    async fn announce(&mut self, online: bool) {
        let state = HostState { online, epoch: self.parts.epoch, versions: WIRE_VERSIONS };
        self.publish(Channel::DnState, &state).await;
    }

    async fn on_order(&mut self, order: LinkOrder) {
        match order {
            LinkOrder::Command(order) => {
                self.expect_by(&order);
                self.commands += 1;
                let command = Command { id: self.commands, order };
                self.publish(Channel::DnCommand, &command).await;
            }
            LinkOrder::Desired(document) => {
                self.desired = Some(document);
                self.publish(Channel::DnDesired, &document).await;
            }
            LinkOrder::Keys { next, due } => {
                let newly_due = due && !self.due;
                (self.next, self.due) = (next, due);
                if newly_due {
                    self.publish(Channel::DnRenewal, &RenewalAnswer::Due).await;
                }
            }
            LinkOrder::Grant(grant) => self.grant(grant).await,
            LinkOrder::Announce => self.say_retained().await,
            LinkOrder::Send(blob, purpose) => self.send(blob, purpose),
            LinkOrder::Forget(until) => self.forget(until),
            LinkOrder::Pace(rate) => {
                let now = self.now();
                self.rate = rate;
                self.bucket.set_link(rate, now);
            }
            LinkOrder::Collect(named) => self.collect(named).await,
            LinkOrder::Farewell => {}
        }
    }

    async fn on_inbound(&mut self, inbound: Inbound) {
        self.counts.bytes_up += inbound.payload.len() as u64;
        let topic = inbound.topic.clone();
        let length = packet(&topic, inbound.payload.len());
        let mut used = Use::Control;
        let mut payload = inbound.payload.to_vec();
        let handled = match topic.channel {
            Channel::UpState => self.on_any_key(&topic, &mut payload).await,
            Channel::UpReported => self.on_document(&topic, &mut payload).await,
            Channel::UpTelemetry
            | Channel::UpPing
            | Channel::UpCommand
            | Channel::UpBlob
            | Channel::UpAck
            | Channel::UpLog
            | Channel::DnState
            | Channel::DnDesired
            | Channel::DnPong
            | Channel::DnCommand
            | Channel::DnBlob
            | Channel::DnAck
            | Channel::UpRenewal
            | Channel::DnRenewal => self.on_message(&topic, &mut payload, &mut used).await,
        };
        if let Err(error) = handled {
            match error {
                SealError::Forged => self.counts.forged += 1,
                SealError::Replayed(_) | SealError::Boot(_) => self.counts.replayed += 1,
                SealError::TooLong { .. }
                | SealError::Malformed
                | SealError::Version { .. }
                | SealError::Channel { .. }
                | SealError::Body(_) => self.counts.malformed += 1,
            }
            tracing::warn!(device = %self.parts.device, %topic, %error, "a payload is refused");
        }
        self.write_down(used, Direction::Up, length);
        inbound.settle();
    }

    fn write_down(&self, used: Use, way: Direction, bytes: usize) {
        self.parts.ledger.count(&self.parts.device, Day::of(SystemTime::now()), used, way, bytes);
    }

    async fn on_state(&mut self, topic: &Topic, payload: &mut [u8]) -> Result<(), SealError> {
        // An empty retained payload is how a broker forgets: nothing is said.
        if payload.is_empty() {
            return Ok(());
        }
        let opened = self.opener.open_document(topic, payload)?;
        let boot = opened.header.boot;
        let input = match codec::decode::<BoardState>(opened.body)? {
            BoardState::Online(birth) => {
                if birth.sequence < self.birth {
                    return Err(SealError::Boot(boot));
                }
                self.birth = birth.sequence;
                self.opener.adopt(boot);
                self.forget_probe();
                self.sealer.speak(birth.versions);
                self.exchange.reconnect();
                tracing::info!(device = %self.parts.device, birth = birth.sequence, "online");
                if self.due {
                    self.publish(Channel::DnRenewal, &RenewalAnswer::Due).await;
                }
                BoardInput::Online(birth)
            }
            BoardState::Offline { sequence } => {
                tracing::info!(device = %self.parts.device, birth = sequence, "offline");
                BoardInput::Offline { sequence }
            }
        };
        self.tell(input).await;
        Ok(())
    }

    async fn on_document(&mut self, topic: &Topic, payload: &mut [u8]) -> Result<(), SealError> {
        let opened = self.opener.open_document(topic, payload)?;
        let document = codec::decode::<TwinDocument>(opened.body)?;
        self.tell(BoardInput::Reported(document)).await;
        Ok(())
    }

    async fn on_message(&mut self, topic: &Topic, payload: &mut [u8], used: &mut Use) -> Result<(), SealError> {
        let opened = match self.opener.open(topic, payload) {
            Ok(opened) => opened,
            Err(SealError::Boot(boot)) if self.opener.boot().is_none() => {
                // The host has restarted and this board's birth has not come (again): ask for it.
                self.on_order(LinkOrder::Command(Order::Rebirth)).await;
                return Err(SealError::Boot(boot));
            }
            Err(error) => return Err(error),
        };
        match topic.channel {
            Channel::UpTelemetry => {
                *used = Use::Telemetry;
                let sample = codec::decode::<Telemetry>(opened.body)?;
                self.tell(BoardInput::Telemetry(sample)).await;
            }
            Channel::UpPing => {
                let nonce = codec::decode::<Nonce>(opened.body)?;
                self.publish(Channel::DnPong, &nonce).await;
            }
            Channel::UpCommand => {
                let reply = codec::decode::<Reply>(opened.body)?;
                self.tell(BoardInput::Reply(reply)).await;
            }
            Channel::UpLog => {
                let line = codec::decode::<LogLine>(opened.body)?;
                tracing::warn!(device = %self.parts.device, level = ?line.level, "{}", line.text.escape_default());
                self.pass_on(Said::Log(line)).await;
            }
            Channel::UpAck => {
                let ack = codec::decode::<BlobAck>(opened.body)?;
                self.on_ack(&ack).await;
            }
            Channel::UpRenewal => {
                let body = opened.body.to_vec();
                let RenewalRequest::Keys { share, request } = codec::decode(&body)?;
                self.on_renewal(share, request);
            }
            Channel::UpBlob => {
                let body = opened.body.to_vec();
                match codec::decode::<BlobMessage<'_>>(&body)? {
                    BlobMessage::Manifest(manifest) => {
                        *used = manifest.purpose.into();
                        self.on_manifest(manifest).await;
                    }
                    BlobMessage::Chunk { blob, index, bytes } => {
                        *used = self.exchange.receiving(&blob).map_or(Use::Control, |taken| taken.purpose.into());
                        self.on_chunk(blob, index, bytes).await;
                    }
                }
            }
            Channel::UpState
            | Channel::UpReported
            | Channel::DnState
            | Channel::DnDesired
            | Channel::DnPong
            | Channel::DnCommand
            | Channel::DnBlob
            | Channel::DnAck
            | Channel::DnRenewal => return Err(SealError::Malformed),
        }
        Ok(())
    }

    async fn say_retained(&mut self) {
        self.announce(true).await;
        if let Some(document) = self.desired {
            self.publish(Channel::DnDesired, &document).await;
        }
    }

    async fn tell(&self, input: BoardInput) {
        self.pass_on(Said::Board(input)).await;
    }

    /// Passes on what the board said, and waits until what must survive the host's end is written down: only then is it
    /// acknowledged.
    async fn pass_on(&self, said: Said) {
        let lasting = match &said {
            Said::Board(input) => match input {
                BoardInput::Received { .. } | BoardInput::Reply(_) | BoardInput::Reported(_) => true,
                BoardInput::Online(_)
                | BoardInput::Offline { .. }
                | BoardInput::Telemetry(_)
                | BoardInput::Sent { .. }
                | BoardInput::BlobRefused { .. } => false,
            },
            Said::Log(_) => false,
        };
        let (stored, done) = oneshot::channel();
        let from = FromBoard { device: self.parts.device.clone(), said, stored };
        // Nobody listens only when the host stops.
        if self.parts.up.send(from).await.is_ok() && lasting {
            let _ = done.await;
        }
    }

    async fn publish<T: Serialize>(&mut self, channel: Channel, message: &T) {
        let topic = Topic { device: self.parts.device.clone(), channel };
        let time = u64::try_from(self.parts.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let sealed = match self.sealer.seal(&topic, time, message, &mut self.buffer) {
            Ok(payload) => Bytes::copy_from_slice(payload),
            Err(error) => {
                tracing::error!(%topic, %error, "a message cannot be sealed");
                return;
            }
        };
        self.counts.bytes_down += sealed.len() as u64;
        let used = if channel == Channel::DnBlob { self.used } else { Use::Control };
        self.write_down(used, Direction::Down, packet(&topic, sealed.len()));
        if channel == Channel::DnBlob {
            self.bucket.charge(u32::try_from(sealed.len()).unwrap_or(u32::MAX));
        }
        if let Err(error) = self.parts.broker.publish(Outbound { topic, payload: sealed }).await {
            tracing::warn!(device = %self.parts.device, %error, "the broker did not take a message");
        }
    }
}
