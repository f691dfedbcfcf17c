//! The host's end of one board's channels: a task that opens what the board sends, carries blobs both ways, and
//! passes on to the coordinator only what it means. What one board sends can disturb nobody else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use twin_core::coordinator::BoardInput;
use twin_data::blobs::Blobs;
use twin_data::delta;
use twin_shared::id::{BlobHash, BootId, DeviceId, RoundId};
use twin_shared::model::Site;
use twin_shared::pacing::TokenBucket;
use twin_shared::transfer::{Exchange, OnDisk, Output, chunk_for};
use twin_shared::units::BitsPerSecond;
use twin_shared::wire::seal::{DeviceKey, Opener, SealError, Sealer};
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::{
    BlobAck, BlobMessage, BoardState, Channel, Command, Direction, HostState, LogLine, MAX_CHUNK, Manifest, Nonce,
    Order, Purpose, Refusal, RenewalAnswer, RenewalRequest, Reply, Sparing, Topic, TwinDocument, WIRE_VERSIONS, codec,
};

use crate::broker::{Broker, Inbound, Outbound};
use crate::traffic::{Day, Ledger, Use, packet};

/// Largest dataset and student state that are taken from a board, bytes.
const MAX_DATASET: u64 = 8 << 30;
const MAX_STATE: u64 = 512 << 20;

/// Largest batch of kept samples, and of random bytes that measure the way, bytes.
const MAX_SAMPLES: u64 = 1 << 20;
const MAX_PROBE: u64 = 4 << 20;
/// Without anything to do a link wakes this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// While the day's allowance is spent, whether a new day has begun is looked at this often.
const NEW_DAY: Duration = Duration::from_secs(60);

/// A board gets new keys this often at most.
const RENEWAL_EVERY: Duration = Duration::from_secs(5);

/// What the coordinator wants of a board.
#[derive(Debug)]
pub(crate) enum LinkOrder {
    /// A command.
    Command(Order),
    /// The twin document; its state is hashed afresh from disk.
    Desired(TwinDocument),
    /// A blob of the device's own.
    Send(BlobHash, Purpose),
    /// Blobs of this epoch and those before are no longer wanted.
    Forget(RoundId),
    /// The rate of the downlink.
    Pace(BitsPerSecond),
    /// Say that the host stops.
    Farewell,
    /// Say again what the broker retains: it may have lost it.
    Announce,
    /// The key that the board may change over to, if any, and whether it should ask for one.
    Keys {
        /// On offer.
        next: Option<DeviceKey>,
        /// Whether the present ones should be renewed.
        due: bool,
    },
    /// The answer to a board's request for keys.
    Grant(Grant),
}

/// What a board gets that asks for the next keys.
pub(crate) struct Grant {
    /// The board's share in the agreement.
    pub(crate) asked: [u8; 32],
    /// What it gets; none where that is refused.
    pub(crate) keys: Option<GrantedKeys>,
}

/// Shares, certificates and the key agreed on.
pub(crate) struct GrantedKeys {
    /// The host's share.
    pub(crate) share: [u8; 32],
    /// As in [`RenewalAnswer::Keys`].
    pub(crate) chain: Vec<u8>,
    /// As in [`RenewalAnswer::Keys`].
    pub(crate) authorities: Vec<u8>,
    /// What both sides seal with from the board's next birth on.
    pub(crate) next: DeviceKey,
}

/// Nothing secret is printed.
impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("granted", &self.keys.is_some()).finish_non_exhaustive()
    }
}

/// What a link wants of the registrar.
#[derive(Debug)]
pub(crate) enum Desk {
    /// A board asks for the next keys.
    Renew {
        /// Who.
        device: DeviceId,
        /// Its share in the agreement.
        share: [u8; 32],
        /// Its signing request; empty where it has no certificate.
        request: Vec<u8>,
    },
    /// A board has used the key that it was offered.
    ChangedOver {
        /// Who.
        device: DeviceId,
        /// The key.
        key: DeviceKey,
    },
}

/// What was refused or went wrong, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LinkCounts {
    /// Payloads that are no envelope, of a foreign version or channel, too long, or no message inside.
    pub malformed: u64,
    /// Payloads whose seal does not fit.
    pub forged: u64,
    /// Payloads seen before, or of an earlier boot.
    pub replayed: u64,
    /// Payload bytes from the board.
    pub bytes_up: u64,
    /// Payload bytes to the board.
    pub bytes_down: u64,
}

/// What a board said, as a link passes it on.
#[derive(Debug)]
pub(crate) struct FromBoard {
    pub(crate) device: DeviceId,
    pub(crate) said: Said,
    /// Told, or dropped, once what a restart must find of this is written down: the link acknowledges it then.
    pub(crate) stored: oneshot::Sender<()>,
}

/// What a board said.
#[derive(Debug)]
pub(crate) enum Said {
    /// Something for the coordinator.
    Board(BoardInput),
    /// A line for the operator.
    Log(LogLine),
}

/// What a link needs from outside.
pub(crate) struct LinkParts {
    pub(crate) device: DeviceId,
    pub(crate) key: DeviceKey,
    pub(crate) blobs: Blobs,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) boot: BootId,
    /// The host's count of starts.
    pub(crate) epoch: u64,
    pub(crate) started: Instant,
    pub(crate) up: mpsc::Sender<FromBoard>,
    /// Where what is carried is written down.
    pub(crate) ledger: Arc<Ledger>,
    /// Bytes a day, both ways, after which no more blobs are carried.
    pub(crate) allowance: Option<u64>,
    /// Where keys are renewed.
    pub(crate) desk: mpsc::Sender<Desk>,
}

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

    /// Holds blobs back both ways once the day's allowance is spent, and lets them go on the next day.
    async fn mind_allowance(&mut self) {
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

    async fn announce(&mut self, online: bool) {
        let state = HostState { online, epoch: self.parts.epoch, versions: WIRE_VERSIONS };
        self.publish(Channel::DnState, &state).await;
    }

    /// Sends what is due of blobs, as far as the rate allows; the time to wait where it does not.
    async fn send_blobs(&mut self) -> Option<Duration> {
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

    async fn on_order(&mut self, order: LinkOrder) {
        match order {
            LinkOrder::Command(order) => {
                match order {
                    Order::SendDataset(version) => {
                        self.expected.insert(Purpose::Dataset(version));
                    }
                    Order::SendDelta { from, to } => {
                        self.expected.insert(Purpose::DatasetDelta { from, to });
                        self.expected.insert(Purpose::Dataset(to));
                    }
                    Order::Assign(assignment)
                    | Order::AssignOn { assignment, sparing: Sparing { upload: true, .. }, .. } => {
                        self.expected.retain(is_of_dataset);
                        if assignment.site == Site::Local {
                            self.expected.insert(Purpose::Student { job: assignment.job, round: assignment.round });
                        }
                    }
                    Order::AssignOn { .. } => self.expected.retain(is_of_dataset),
                    Order::Rebirth | Order::Stop(_) | Order::Calibrate { .. } | Order::Activate(_) => {}
                }
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
            LinkOrder::Send(blob, purpose) => match self.parts.blobs.size(&blob) {
                Ok(size) => {
                    let chunk = chunk_for(whole(self.rate.0));
                    self.exchange.send(Manifest { blob, size, chunk, purpose });
                }
                Err(error) => tracing::error!(device = %self.parts.device, %error, "a blob to be sent is missing"),
            },
            LinkOrder::Forget(until) => self.exchange.cancel(|manifest| match manifest.purpose {
                Purpose::Dataset(_)
                | Purpose::DatasetDelta { .. }
                | Purpose::Classes { .. }
                | Purpose::Model { .. }
                | Purpose::Telemetry
                | Purpose::Probe(_) => false,
                Purpose::Student { round, .. } | Purpose::Base { round, .. } | Purpose::Labels { round, .. } => {
                    round <= until
                }
            }),
            LinkOrder::Pace(rate) => {
                let now = self.now();
                self.rate = rate;
                self.bucket.set_link(rate, now);
            }
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

    /// A birth under the key on offer is the board's word that it has changed over.
    async fn on_any_key(&mut self, topic: &Topic, payload: &mut [u8]) -> Result<(), SealError> {
        let Some(next) = self.next.clone() else { return self.on_state(topic, payload).await };
        let offered = Opener::new(next.clone(), Direction::Up);
        if offered.open_document(topic, &mut payload.to_vec()).is_ok() {
            self.change_over(next).await;
        }
        self.on_state(topic, payload).await
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
                let now = self.now();
                match self.exchange.on_ack(&ack, now) {
                    Some(
                        Output::Sent(Manifest { purpose: Purpose::Probe(_), .. })
                        | Output::Refused(Manifest { purpose: Purpose::Probe(_), .. }, _),
                    ) => self.forget_probe(),
                    Some(Output::Sent(manifest)) => {
                        self.tell(BoardInput::Sent { purpose: manifest.purpose }).await;
                    }
                    Some(Output::Refused(manifest, why)) => {
                        self.tell(BoardInput::BlobRefused { purpose: manifest.purpose, why }).await;
                    }
                    Some(Output::Offer(_) | Output::Chunk { .. } | Output::Ack(_) | Output::Verify(_)) | None => {}
                }
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

    /// A board asks for the next keys, not too often: each is a write to the disk.
    fn on_renewal(&mut self, share: [u8; 32], request: &[u8]) {
        let now = Instant::now();
        if self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < RENEWAL_EVERY) {
            return;
        }
        self.asked = Some(now);
        let ask = Desk::Renew { device: self.parts.device.clone(), share, request: request.to_vec() };
        // A desk with a queue: the board asks again when it is told again that keys are due.
        if self.parts.desk.try_send(ask).is_err() {
            tracing::warn!(device = %self.parts.device, "a request for keys has to wait");
        }
    }

    async fn grant(&mut self, grant: Grant) {
        let Grant { asked, keys } = grant;
        match keys {
            None => self.publish(Channel::DnRenewal, &RenewalAnswer::Refused { asked }).await,
            Some(GrantedKeys { share, chain, authorities, next }) => {
                self.next = Some(next);
                let (chain, authorities) = (chain.as_slice(), authorities.as_slice());
                self.publish(Channel::DnRenewal, &RenewalAnswer::Keys { asked, share, chain, authorities }).await;
            }
        }
    }

    /// Seals with this key from now on, and says again what the broker retains.
    async fn change_over(&mut self, key: DeviceKey) {
        tracing::info!(device = %self.parts.device, "has changed over to its new keys");
        self.sealer = Sealer::new(&key, Direction::Down, self.parts.boot);
        self.opener = Opener::new(key.clone(), Direction::Up);
        (self.next, self.due) = (None, false);
        let changed = Desk::ChangedOver { device: self.parts.device.clone(), key };
        // The registrar is gone only when the host stops; the key stays on offer then, and this happens again.
        let _ = self.parts.desk.send(changed).await;
        self.say_retained().await;
    }

    async fn say_retained(&mut self) {
        self.announce(true).await;
        if let Some(document) = self.desired {
            self.publish(Channel::DnDesired, &document).await;
        }
    }

    async fn on_manifest(&mut self, manifest: Manifest) {
        let on_disk = self.parts.blobs.on_disk(&manifest);
        let limit = match manifest.purpose {
            Purpose::Telemetry => Ok(MAX_SAMPLES),
            Purpose::Probe(_) => Ok(MAX_PROBE),
            _ if !self.expected.contains(&manifest.purpose) => Err(Refusal::Unexpected),
            Purpose::Dataset(_) => Ok(MAX_DATASET),
            Purpose::DatasetDelta { .. } => Ok(delta::MAX_BYTES),
            Purpose::Student { .. } => Ok(MAX_STATE),
            Purpose::Base { .. } | Purpose::Labels { .. } | Purpose::Classes { .. } | Purpose::Model { .. } => {
                Err(Refusal::Unexpected)
            }
        };
        // Held already, and wanted again: the board has not heard of it, and the coordinator may not have either.
        if limit.is_ok() && on_disk == OnDisk::Whole {
            return self.receive(manifest).await;
        }
        let answer = self.exchange.on_manifest(manifest, limit, on_disk);
        self.answer(Some(answer)).await;
    }

    async fn on_chunk(&mut self, blob: BlobHash, index: u32, bytes: &[u8]) {
        let Some((manifest, offset)) = self.exchange.place(&blob, index, bytes.len()) else {
            let holding = self.exchange.holding(&blob);
            return self.answer(holding).await;
        };
        if let Err(error) = self.parts.blobs.write_chunk(&manifest, offset, bytes) {
            tracing::error!(device = %self.parts.device, %error, "a chunk cannot be stored");
            let refused = self.exchange.verified(&blob, Err(Refusal::Storage));
            return self.answer(Some(refused)).await;
        }
        let next = self.exchange.wrote(&blob, index);
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

    fn forget_probe(&mut self) {
        let Some(blob) = self.probe.take() else { return };
        self.exchange.cancel(|manifest| manifest.blob == blob);
        if let Err(error) = self.parts.blobs.remove(&blob) {
            tracing::warn!(device = %self.parts.device, %error, "bytes that measured the way stay on disk");
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

/// Whether a blob is a board's dataset, or what changed in it.
const fn is_of_dataset(purpose: &Purpose) -> bool {
    matches!(purpose, Purpose::Dataset(_) | Purpose::DatasetDelta { .. })
}

/// The nearest whole number; what is negative or no number is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
