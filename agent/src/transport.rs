//! One connection to the broker, from the attempt to its end; the next one is another [`Connection`].
//!
//! A connection begins with a new event loop of the client library, because a lost session silently clears what the
//! old one had pending, and a packet id that it still thinks in use can stop it for good: whoever sends repeats by
//! its own means. Two tasks serve it, one that polls the event loop and one that feeds it, because feeding it from
//! the poller stops both once the queue between them is full. What comes in is acknowledged by
//! [`Outgoing::Acknowledge`] only, after it was handled.

mod backoff;
mod tls;
mod trespass;

use std::sync::Arc;
use std::time::Duration;

use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, LastWill, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::rustls::time_provider::TimeProvider;
use twin_shared::id::DeviceId;
use twin_shared::wire::{Channel, MAX_CHUNK, Topic};

use crate::config::{Broker, Security};
use crate::keys::Keys;
pub use backoff::Backoff;
pub use tls::TlsError;
pub use trespass::{Trespass, TrespassAnswer};

/// Chunks, their envelope and the packet around them.
const MAX_PACKET: u32 = (MAX_CHUNK as u32) + 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const SESSION_EXPIRY_S: u32 = 3600;
const CONNECT_WITHIN_S: u64 = 15;

/// The event loop says something at every keep-alive. One that is silent for so long hangs in a write that nobody
/// takes: the library knows no time limit for those.
const HUNG: Duration = Duration::from_secs(60);

/// Messages of quality 1 that the broker may have on its way to us: more than any window of a transfer.
const RECEIVE_MAXIMUM: u16 = 64;

/// Packet ids of our own: far more than are ever unacknowledged, so that none is used twice.
const PACKET_IDS: u16 = 1024;

/// Messages between the tasks of a connection; few, since what waits there can no longer be overtaken.
const QUEUE: usize = 4;

/// How the broker is reached, and as whom.
#[derive(Clone)]
pub struct Dialer {
    device: DeviceId,
    options: MqttOptions,
}

/// What a connection says.
#[derive(Debug)]
pub enum News {
    /// The broker has taken our subscription.
    Ready,
    /// A message came.
    Message(Publish),
    /// The connection is over, or never came to be.
    Lost(String),
}

/// What a connection is given to send.
#[derive(Debug)]
pub enum Outgoing {
    /// A sealed payload.
    Publish(Topic, Vec<u8>),
    /// A message was handled.
    Acknowledge(Publish),
    /// Say goodbye: no will is published then.
    Disconnect,
}

/// A connection; dropping it cuts it.
pub struct Connection {
    news: mpsc::Receiver<News>,
    outgoing: mpsc::Sender<Outgoing>,
    tasks: [AbortHandle; 2],
}

impl Dialer {
    /// What a connection needs, from these keys; certificates are judged by this clock.
    ///
    /// # Errors
    /// When certificates or keys for TLS are missing or broken.
    pub fn new(
        device: &DeviceId,
        keys: &Keys,
        broker: &Broker,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, TlsError> {
        let mut options = MqttOptions::new(device.as_str(), &broker.host, broker.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_start(false)
            .set_manual_acks(true)
            .set_connection_timeout(CONNECT_WITHIN_S)
            .set_outgoing_inflight_upper_limit(PACKET_IDS)
            .set_request_channel_capacity(QUEUE);
        // Small messages must not wait for the acknowledgement of the ones before.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let properties = ConnectProperties {
            session_expiry_interval: Some(SESSION_EXPIRY_S),
            receive_maximum: Some(RECEIVE_MAXIMUM),
            max_packet_size: Some(MAX_PACKET),
            ..ConnectProperties::new()
        };
        options.set_connect_properties(properties);
        match (broker.security, &keys.tls) {
            (Security::Mutual, Some(tls)) => {
                options.set_transport(tls::transport(tls, clock)?);
            }
            (Security::Mutual, None) => return Err(TlsError::NoCertificate),
            (Security::Plain, _) => {
                let password = blake3::Hash::from_bytes(keys.sealing.broker_password()).to_hex().to_string();
                options.set_credentials(device.as_str(), password);
            }
        }
        Ok(Self { device: device.clone(), options })
    }

    /// Starts to connect, leaving this will.
    #[must_use]
    pub fn dial(&self, will: Vec<u8>) -> Connection {
        let mut options = self.options.clone();
        let state = Topic { device: self.device.clone(), channel: Channel::UpState };
        options.set_last_will(LastWill::new(state.to_string(), will, QoS::AtLeastOnce, true, None));
        let (client, events) = AsyncClient::new(options, QUEUE);
        let (news_in, news) = mpsc::channel(QUEUE);
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let filter = format!("twin/v1/{}/dn/#", self.device);
        let poller = tokio::spawn(poll(events, client.clone(), filter, news_in)).abort_handle();
        let feeder = tokio::spawn(feed(client, to_send)).abort_handle();
        Connection { news, outgoing, tasks: [poller, feeder] }
    }
}

impl Connection {
    /// What it says next; after [`News::Lost`] nothing more.
    pub async fn next(&mut self) -> News {
        self.news.recv().await.unwrap_or_else(|| News::Lost("the connection has ended".to_owned()))
    }

    /// Where to send through it. A place in it is worth waiting for before deciding what goes next.
    #[must_use]
    pub fn outgoing(&self) -> &mpsc::Sender<Outgoing> {
        &self.outgoing
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Polls the event loop until the connection ends.
async fn poll(mut events: EventLoop, client: AsyncClient, filter: String, news: mpsc::Sender<News>) {
    loop {
        let told = match timeout(HUNG, events.poll()).await {
            Ok(Ok(Event::Incoming(packet))) => on_packet(packet, &client, &filter),
            Ok(Ok(Event::Outgoing(_))) => None,
            Ok(Err(error)) => Some(News::Lost(explain(&error))),
            Err(_) => Some(News::Lost(format!("nothing gets through for {} s", HUNG.as_secs()))),
        };
        let Some(told) = told else { continue };
        let over = matches!(told, News::Lost(_));
        if news.send(told).await.is_err() || over {
            return;
        }
    }
}

fn on_packet(packet: Packet, client: &AsyncClient, filter: &str) -> Option<News> {
    match packet {
        Packet::ConnAck(answer) => {
            tracing::debug!(session_present = answer.session_present, "the broker answers");
            // The queue is empty: this is the first thing that goes.
            match client.try_subscribe(filter, QoS::AtLeastOnce) {
                Ok(()) => None,
                Err(error) => Some(News::Lost(format!("cannot subscribe: {error}"))),
            }
        }
        Packet::SubAck(answer) => {
            let refused = answer.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            Some(match refused {
                None => News::Ready,
                Some(code) => News::Lost(format!("the broker refuses the subscription to {filter}: {code:?}")),
            })
        }
        Packet::PubAck(answer) => {
            match answer.reason {
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers => {}
                PubAckReason::UnspecifiedError
                | PubAckReason::ImplementationSpecificError
                | PubAckReason::NotAuthorized
                | PubAckReason::TopicNameInvalid
                | PubAckReason::PacketIdentifierInUse
                | PubAckReason::QuotaExceeded
                | PubAckReason::PayloadFormatInvalid => {
                    tracing::warn!(reason = ?answer.reason, "the broker refuses a message of ours");
                }
            }
            None
        }
        Packet::Publish(message) => Some(News::Message(message)),
        Packet::Disconnect(goodbye) => Some(News::Lost(format!("the broker says goodbye: {:?}", goodbye.reason_code))),
        Packet::Connect(..)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq(_)
        | Packet::PingResp(_)
        | Packet::Auth(_) => None,
    }
}

/// Says what to look at, where the error alone does not.
fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => format!("the broker refuses this board: {code:?}"),
        ConnectionError::Timeout(_) => format!("no answer within {CONNECT_WITHIN_S} s"),
        ConnectionError::MqttState(_)
        | ConnectionError::Tls(_)
        | ConnectionError::Io(_)
        | ConnectionError::NotConnAck(_)
        | ConnectionError::RequestsDone => error.to_string(),
    }
}

/// Feeds the event loop; its queue being full stops this task only.
async fn feed(client: AsyncClient, mut to_send: mpsc::Receiver<Outgoing>) {
    while let Some(outgoing) = to_send.recv().await {
        let done = match outgoing {
            Outgoing::Publish(topic, payload) => {
                let delivery = topic.channel.delivery();
                let quality = if delivery.at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                let properties =
                    PublishProperties { message_expiry_interval: delivery.expiry, ..PublishProperties::default() };
                client.publish_with_properties(topic.to_string(), quality, delivery.retained, payload, properties).await
            }
            Outgoing::Acknowledge(message) => client.ack(&message).await,
            Outgoing::Disconnect => client.disconnect().await,
        };
        if let Err(error) = done {
            // The poller has ended and says why.
            tracing::debug!(%error, "nothing goes out any more");
            return;
        }
    }
}
