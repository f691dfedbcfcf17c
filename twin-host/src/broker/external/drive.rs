//! Keeps the host connected to an external broker: connects, subscribes, passes messages both ways, and starts
//! over with a new client after every break.
//!
//! A new client each time, because the library's own reconnection clears unacknowledged messages without a word when
//! the broker has lost the session, and may wait for ever on a packet id that collides. What was not acknowledged is
//! taken along by hand.

use super::login::RECEIVE_MAXIMUM;
use crate::broker::{Inbound, Outbound, Receipt, filter};
use bytes::Bytes;
use rand::RngExt;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ClientError, ConnectionError, Event, EventLoop, MqttOptions, Request};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use twin_shared::wire::{Channel, Direction, Topic};

/// Requests between our tasks and the client library.
const REQUESTS: usize = 16;
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For saying goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// Which of the successive connections.
type Epoch = u64;

/// The right to acknowledge one message, for as long as its connection lasts.
#[derive(Debug)]
pub(crate) struct Acknowledgement {
    epoch: Epoch,
    /// Without its payload.
    publish: Box<Publish>,
    sender: mpsc::UnboundedSender<Acknowledgement>,
}

impl Acknowledgement {
    /// Lets the broker forget the message. The channel is bounded by what the broker may send unacknowledged.
    pub(crate) fn give(self) {
        let sender = self.sender.clone();
        // Nobody listens after shutdown: the broker will send the message again.
        let _ = sender.send(self);
    }
}

/// How things stand with the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Not connected; why the last attempt or connection ended, if there was one.
    Down(Option<String>),
    /// The broker answers, and does not want the host; why. It is asked again, in case its operator mends it.
    Refused(String),
    /// Connected and subscribed.
    Up,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the broker refuses the host's subscription: {0:?}")]
    Subscription(Vec<SubscribeReasonCode>),
    #[error("more messages arrived than the broker was allowed to send")]
    Overrun,
    #[error("the client library no longer takes requests")]
    Client,
}

impl Ended {
    fn link(&self) -> Link {
        let refused = match self {
            Self::Connection(error) => matches!(error, ConnectionError::ConnectionRefused(_)),
            Self::Subscription(_) => true,
            Self::Overrun | Self::Client => false,
        };
        if refused { Link::Refused(self.to_string()) } else { Link::Down(Some(self.to_string())) }
    }
}

impl From<ClientError> for Ended {
    fn from(_: ClientError) -> Self {
        Self::Client
    }
}

/// The connection keeper's belongings.
pub(super) struct Drive {
    pub(super) options: MqttOptions,
    pub(super) durable: Vec<Channel>,
    pub(super) outbound: mpsc::Receiver<Outbound>,
    pub(super) inbox: mpsc::Sender<Inbound>,
    pub(super) link: watch::Sender<Link>,
    pub(super) closing: watch::Receiver<bool>,
}

/// What is on its way out: from the outbound channel to the client library's.
struct Talk {
    outbound: mpsc::Receiver<Outbound>,
    acknowledgements: mpsc::UnboundedReceiver<Acknowledgement>,
    unsent: VecDeque<Publish>,
}

/// What is on its way in.
struct Listen {
    epoch: Epoch,
    durable: Vec<Channel>,
    inbox: mpsc::Sender<Inbound>,
    acknowledge: mpsc::UnboundedSender<Acknowledgement>,
    link: watch::Sender<Link>,
}

impl Drive {
    /// Runs until told to close.
    pub(super) async fn run(self) {
        let mut closing = self.closing;
        let (acknowledge, acknowledgements) = mpsc::unbounded_channel();
        let mut talk = Talk { outbound: self.outbound, acknowledgements, unsent: VecDeque::new() };
        let mut listen = Listen { epoch: 0, durable: self.durable, inbox: self.inbox, acknowledge, link: self.link };
        let mut pause = SHORTEST_PAUSE;
        loop {
            let was_up = connection(&self.options, &mut talk, &mut listen, &mut closing).await;
            if *closing.borrow() {
                return;
            }
            pause = if was_up { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            // Between half and one and a half: many hosts and boards lose the same broker at the same moment.
            let jitter = rand::rng().random_range(0.5..1.5);
            tokio::select! {
                () = sleep(pause.mul_f64(jitter)) => {}
                () = closed(&mut closing) => return,
            }
        }
    }
}

/// One connection from beginning to end; whether it was ever up.
async fn connection(
    options: &MqttOptions,
    talk: &mut Talk,
    listen: &mut Listen,
    closing: &mut watch::Receiver<bool>,
) -> bool {
    // Room for what an earlier connection left unread and for what this one may bring.
    let room = tokio::select! {
        room = listen.inbox.reserve_many(2 * usize::from(RECEIVE_MAXIMUM)) => room.is_ok(),
        () = closed(closing) => false,
    };
    if !room {
        return false;
    }
    listen.epoch += 1;
    let (client, mut events) = AsyncClient::new(options.clone(), REQUESTS);
    let ended = tokio::select! {
        ended = listen.run(&mut events) => ended,
        ended = talk.run(&client, listen.epoch) => ended,
        () = closed(closing) => {
            farewell(&client, &mut events).await;
            return true;
        }
    };
    let ended = match ended {
        Ok(never) => match never {},
        Err(ended) => ended,
    };
    tracing::warn!(reason = %ended, "not connected to the broker");
    let was_up = listen.link.send_replace(ended.link()) == Link::Up;
    events.clean();
    let kept = events.pending.drain(..).filter_map(|request| {
        let Request::Publish(publish) = request else { return None };
        (publish.qos == QoS::AtLeastOnce).then_some(publish)
    });
    let mut unsent: VecDeque<_> = kept.collect();
    unsent.append(&mut talk.unsent);
    talk.unsent = unsent;
    was_up
}

async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error means that the broker itself is gone, which closes it as well.
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn farewell(client: &AsyncClient, events: &mut EventLoop) {
    if client.try_disconnect().is_ok() {
        let said = async { while events.poll().await.is_ok() {} };
        // Whether it got through makes no difference to us.
        let _ = timeout(FAREWELL, said).await;
    }
}

/// Neither talking nor listening ends but by an error.
enum Never {}

impl Talk {
    async fn run(&mut self, client: &AsyncClient, epoch: Epoch) -> Result<Never, Ended> {
        let everything = filter::subtree(&filter::with_segment("+", Channel::UpState));
        client.subscribe(everything, QoS::AtLeastOnce).await?;
        loop {
            // Taken off the list only once the library has it: this future may be dropped at any await.
            while let Some(publish) = self.unsent.front() {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                let properties = publish.properties.clone().unwrap_or_default();
                let (qos, retain, payload) = (publish.qos, publish.retain, publish.payload.clone());
                client.publish_bytes_with_properties(topic, qos, retain, payload, properties).await?;
                self.unsent.pop_front();
            }
            tokio::select! {
                biased;
                Some(given) = self.acknowledgements.recv() => if given.epoch == epoch {
                    client.ack(&given.publish).await?;
                },
                message = self.outbound.recv() => match message {
                    Some(message) => self.unsent.push_back(publish_of(message)),
                    None => std::future::pending().await,
                },
            }
        }
    }
}

fn publish_of(message: Outbound) -> Publish {
    let delivery = message.topic.channel.delivery();
    let qos = if delivery.at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let properties = PublishProperties { message_expiry_interval: delivery.expiry, ..PublishProperties::default() };
    let mut publish = Publish::new(message.topic.to_string(), qos, message.payload, Some(properties));
    publish.retain = delivery.retained;
    publish
}

impl Listen {
    async fn run(&self, events: &mut EventLoop) -> Result<Never, Ended> {
        loop {
            let Event::Incoming(packet) = events.poll().await? else { continue };
            if let Packet::Publish(publish) = packet {
                self.take_in(publish)?;
            } else if let Packet::SubAck(answer) = packet {
                if !answer.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))) {
                    return Err(Ended::Subscription(answer.return_codes));
                }
                self.link.send_replace(Link::Up);
            } else if let Packet::PubAck(answer) = packet
                && !matches!(answer.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers)
            {
                tracing::warn!(reason = ?answer.reason, "the broker refuses a message of the host's");
            }
        }
    }

    /// Never waits: the library must go on to answer pings. What may come unacknowledged always has room.
    fn take_in(&self, mut publish: Publish) -> Result<(), Ended> {
        let at_least_once = publish.qos != QoS::AtMostOnce;
        let payload = std::mem::take(&mut publish.payload);
        let acknowledgement =
            Acknowledgement { epoch: self.epoch, sender: self.acknowledge.clone(), publish: Box::new(publish) };
        let Some(topic) = self.acceptable(&acknowledgement.publish.topic, &payload) else {
            acknowledgement.give();
            return Ok(());
        };
        let receipt =
            at_least_once.then(|| Receipt::External { acknowledgement, early: !self.durable.contains(&topic.channel) });
        if !at_least_once && self.inbox.capacity() <= usize::from(RECEIVE_MAXIMUM) {
            tracing::debug!(%topic, "dropped: the reader is behind, and it may be lost");
            return Ok(());
        }
        self.inbox.try_send(Inbound { topic, payload, receipt }).map_err(|_| Ended::Overrun)
    }

    fn acceptable(&self, topic: &Bytes, payload: &Bytes) -> Option<Topic> {
        let topic = std::str::from_utf8(topic).ok().and_then(Topic::parse)?;
        let fits = topic.channel.direction() == Direction::Up && payload.len() <= topic.channel.max_payload();
        if !fits {
            tracing::warn!(%topic, bytes = payload.len(), "publication longer than its channel allows");
        }
        // An empty payload only clears what was retained.
        (fits && !payload.is_empty()).then_some(topic)
    }
}
