//! One connection's gate: who it is, what it may say and hear, how fast, and where its words go.
//!
//! The broker crate asks it about every CONNECT, topic and filter, and hands it every publication before routing.
//! A publication goes from here straight into the host's inbox, since nobody else may hear it: a full inbox then
//! slows the board that fills it, where the router's queue would drop its oldest message and acknowledge all.

use super::connections::{Connections, Hook};
use super::counts::{Counters, count};
use super::limits::Limits;
use super::pace::Pace;
use crate::broker::credentials::Credentials;
use crate::broker::{Boxed, HOST, Inbound, Receipt, filter};
use crate::enroll::Fingerprint;
use bytes::Bytes;
use mqtt5::QoS;
use mqtt5::broker::events::{BrokerEventHandler, ClientPublishEvent, PublishAction};
use mqtt5::broker::{AuthProvider, AuthResult};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use twin_shared::id::DeviceId;
use twin_shared::wire::{Channel, Topic};

/// How a client proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// By its password, checked with its CONNECT.
    Password,
    /// By the certificate that TLS has verified, which names this device.
    Certificate(DeviceId, Fingerprint),
}

/// What all gates of a broker share.
pub(super) struct Surroundings {
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) connections: Arc<Connections>,
    pub(super) counters: Arc<Counters>,
    pub(super) inbox: mpsc::Sender<Inbound>,
    /// Channels whose acknowledgement waits for the reader's word.
    pub(super) durable: Vec<Channel>,
    /// True once the broker shuts down.
    pub(super) closing: watch::Receiver<bool>,
}

/// The gate of one connection.
pub(super) struct Gate {
    proof: Proof,
    hook: Arc<Hook>,
    surroundings: Arc<Surroundings>,
    messages: Mutex<Pace>,
    bytes: Mutex<Pace>,
}

impl Gate {
    pub(super) fn new(proof: Proof, hook: Arc<Hook>, limits: &Limits, surroundings: Arc<Surroundings>) -> Self {
        let now = Instant::now();
        Self {
            proof,
            hook,
            surroundings,
            messages: Mutex::new(Pace::new(u64::from(limits.messages_per_second), now)),
            bytes: Mutex::new(Pace::new(limits.bytes_per_second, now)),
        }
    }

    /// The device, or the reason why this CONNECT is refused.
    async fn identify(&self, connect: &ConnectPacket) -> Result<DeviceId, ReasonCode> {
        if connect.protocol_version != 5 {
            return Err(ReasonCode::UnsupportedProtocolVersion);
        }
        let device: DeviceId = connect.client_id.parse().map_err(|_| ReasonCode::ClientIdentifierNotValid)?;
        if device.as_str() == HOST {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        let named = connect.username.as_deref();
        let credentials = &self.surroundings.credentials;
        let proven = match &self.proof {
            Proof::Certificate(owner, certificate) => {
                *owner == device
                    && named.is_none_or(|name| name == device.as_str())
                    && credentials.holds(&device, *certificate).await
            }
            Proof::Password => {
                named == Some(device.as_str())
                    && match &connect.password {
                        Some(password) => credentials.verify(&device, password).await,
                        None => false,
                    }
            }
        };
        match (proven, credentials.is_revoked(&device).await) {
            (true, false) => Ok(device),
            (_, true) => Err(ReasonCode::Banned),
            (false, false) => Err(ReasonCode::BadUsernameOrPassword),
        }
    }

    /// A will speaks on the device's own state channel, within its length, or not at all.
    fn may_leave_will(device: &DeviceId, connect: &ConnectPacket) -> bool {
        connect.will.as_ref().is_none_or(|will| {
            filter::may_publish(device, &will.topic) == Some(Channel::UpState)
                && will.payload.len() <= Channel::UpState.max_payload()
        })
    }

    async fn admit(&self, connect: &ConnectPacket) -> Result<DeviceId, ReasonCode> {
        let counters = &self.surroundings.counters;
        let device = self.identify(connect).await.inspect_err(|_| count(&counters.clients_refused))?;
        if !Self::may_leave_will(&device, connect) {
            count(&counters.wills_refused);
            return Err(ReasonCode::NotAuthorized);
        }
        if !self.surroundings.connections.admit(&self.hook, &device) {
            return Err(ReasonCode::ServerBusy);
        }
        Ok(device)
    }

    async fn wait(pace: &Mutex<Pace>, amount: usize) {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).take(amount, Instant::now());
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
    }

    /// Gives the message to the host and returns when it may be acknowledged.
    ///
    /// The crate acknowledges whatever this returns: where it must not, the connection is cut first, and the board
    /// sends again when it is back.
    async fn deliver(&self, topic: Topic, payload: Bytes, durable: bool) {
        let mut closing = self.surroundings.closing.clone();
        let (receipt, settled) = if durable {
            let (receipt, settled) = oneshot::channel();
            (Some(Receipt::Embedded(receipt)), Some(settled))
        } else {
            (None, None)
        };
        let handed_over = async {
            let inbound = Inbound { topic, payload, receipt };
            self.surroundings.inbox.send(inbound).await.map_err(|_| ())?;
            match settled {
                Some(settled) => settled.await.map_err(|_| ()),
                None => Ok(()),
            }
        };
        let safe = tokio::select! {
            safe = handed_over => safe.is_ok(),
            _ = closing.wait_for(|closing| *closing) => false,
        };
        if !safe {
            self.hook.cut();
        }
    }
}

impl AuthProvider for Gate {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        address: SocketAddr,
    ) -> Boxed<'a, mqtt5::Result<AuthResult>> {
        Box::pin(async move {
            Ok(match self.admit(connect).await {
                Ok(device) => AuthResult::success_with_user(device.as_str()),
                Err(reason) => {
                    tracing::warn!(%address, client = connect.client_id, ?reason, "connection refused");
                    AuthResult::fail(reason)
                }
            })
        })
    }

    fn authorize_publish<'a>(&'a self, _client: &str, _user: Option<&'a str>, topic: &'a str) -> Boxed<'a, bool> {
        Box::pin(async move {
            Self::wait(&self.messages, 1).await;
            let allowed = self.hook.owner().and_then(|device| filter::may_publish(device, topic)).is_some();
            if !allowed {
                count(&self.surroundings.counters.publications_refused);
            }
            allowed
        })
    }

    fn authorize_subscribe<'a>(&'a self, _client: &str, _user: Option<&'a str>, filter: &'a str) -> Boxed<'a, bool> {
        Box::pin(async move {
            Self::wait(&self.messages, 1).await;
            let allowed = self.hook.owner().is_some_and(|device| filter::may_subscribe(device, filter));
            if !allowed {
                count(&self.surroundings.counters.filters_refused);
            }
            allowed
        })
    }
}

impl BrokerEventHandler for Gate {
    fn on_client_publish(&self, event: ClientPublishEvent) -> Boxed<'_, PublishAction> {
        Box::pin(async move {
            Self::wait(&self.bytes, event.payload.len()).await;
            // Authorised before; parsed again only because the event carries text.
            let Some(topic) = Topic::parse(&event.topic) else {
                return PublishAction::Handled;
            };
            if event.payload.len() > topic.channel.max_payload() {
                count(&self.surroundings.counters.publications_refused);
                tracing::warn!(%topic, bytes = event.payload.len(), "publication longer than its channel allows");
                return PublishAction::Handled;
            }
            let durable = event.qos != QoS::AtMostOnce && self.surroundings.durable.contains(&topic.channel);
            self.deliver(topic, event.payload, durable).await;
            PublishAction::Handled
        })
    }
}
