//! One client of a broker under examination: does one thing at a time and notes all that it is sent.

use super::login::{LoginError, Proof, Reach};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use std::time::Duration;
use tokio::time::timeout;

/// For any one answer of the broker's.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a probe got no further.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The configuration cannot work.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Refused or broken.
    #[error("`{name}` is not served: {reason}")]
    Broken {
        /// The client.
        name: String,
        /// What the client library says.
        reason: String,
    },
    /// No answer.
    #[error("`{name}` had no answer for ten seconds while {doing}")]
    Silent {
        /// The client.
        name: String,
        /// What it waited for.
        doing: &'static str,
    },
}

/// A connected client.
pub(super) struct Probe {
    name: String,
    client: AsyncClient,
    events: EventLoop,
    heard: Vec<Publish>,
}

/// What to say, and how.
pub(super) struct Words<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a Bytes,
    pub(super) qos: QoS,
    pub(super) retain: bool,
}

impl Probe {
    /// Connects as `name` with a clean start, leaving this will.
    pub(super) async fn connect(
        reach: &Reach,
        name: &str,
        client_id: &str,
        proof: &Proof,
        will: Option<Words<'_>>,
    ) -> Result<Self, ProbeError> {
        let mut options = reach.options(name, proof)?;
        options.set_client_id(client_id.to_owned()).set_clean_start(true).set_manual_acks(false);
        options.set_session_expiry_interval(Some(0));
        if let Some(Words { topic, payload, qos, retain }) = will {
            options.set_last_will(LastWill::new(topic, payload.to_vec(), qos, retain, None));
        }
        let (client, events) = AsyncClient::new(options, 16);
        let mut probe = Self { name: name.to_owned(), client, events, heard: Vec::new() };
        probe.until("connecting", |packet| matches!(packet, Packet::ConnAck(_))).await?;
        Ok(probe)
    }

    /// Polls until the packet comes; messages on the way are noted.
    async fn until(&mut self, doing: &'static str, mut wanted: impl FnMut(&Packet) -> bool) -> Result<(), ProbeError> {
        let search = async {
            loop {
                if let Event::Incoming(packet) = self.events.poll().await? {
                    let found = wanted(&packet);
                    if let Packet::Publish(publish) = packet {
                        self.heard.push(publish);
                    }
                    if found {
                        return Ok(());
                    }
                }
            }
        };
        match timeout(PATIENCE, search).await {
            Ok(found) => found.map_err(|error: rumqttc::v5::ConnectionError| ProbeError::Broken {
                name: self.name.clone(),
                reason: error.to_string(),
            }),
            Err(_) => Err(ProbeError::Silent { name: self.name.clone(), doing }),
        }
    }

    fn broken(&self, error: &rumqttc::v5::ClientError) -> ProbeError {
        ProbeError::Broken { name: self.name.clone(), reason: error.to_string() }
    }

    /// Subscribes, whatever the answer: only what is delivered counts.
    pub(super) async fn subscribe(&mut self, filter: &str) -> Result<(), ProbeError> {
        self.client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|error| self.broken(&error))?;
        self.until("subscribing", |packet| matches!(packet, Packet::SubAck(_))).await
    }

    /// Says it, and where there is an acknowledgement, awaits it, whatever it is.
    pub(super) async fn say(&mut self, words: &Words<'_>) -> Result<(), ProbeError> {
        let &Words { topic, payload, qos, retain } = words;
        self.client.try_publish(topic, qos, retain, payload.clone()).map_err(|error| self.broken(&error))?;
        match qos {
            QoS::AtMostOnce => Ok(()),
            QoS::AtLeastOnce => self.until("publishing", |packet| matches!(packet, Packet::PubAck(_))).await,
            QoS::ExactlyOnce => {
                self.until("publishing", |packet| matches!(packet, Packet::PubComp(_) | Packet::PubRec(_))).await
            }
        }
    }

    /// Waits for this message.
    pub(super) async fn hear(&mut self, topic: &str, payload: &Bytes) -> Result<(), ProbeError> {
        if self.heard.iter().any(|heard| heard.topic == topic && heard.payload == *payload) {
            return Ok(());
        }
        let wanted = |packet: &Packet| {
            let Packet::Publish(publish) = packet else { return false };
            publish.topic == topic && publish.payload == *payload
        };
        self.until("listening", wanted).await
    }

    /// What it was sent so far.
    pub(super) fn heard(&self) -> &[Publish] {
        &self.heard
    }

    /// Dies without a goodbye, so that its will is spoken.
    pub(super) fn die(self) {
        drop(self.events);
    }
}
