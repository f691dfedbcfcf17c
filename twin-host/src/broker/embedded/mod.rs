//! The broker inside the twin host: our accept loop and gate around the broker crate's handler and router.
//!
//! Plain TCP with passwords serves loopback; beyond it, TLS with certificates on both sides. The host itself needs
//! no socket: it routes its messages and reads its inbox.

mod admission;
mod connections;
mod counts;
mod gate;
mod limits;
mod listener;
mod pace;
mod tls;
mod wills;

pub use counts::Counts;
pub use limits::Limits;
pub use tls::{TlsError, TlsIdentity};

use super::credentials::Credentials;
use super::{Address, Boxed, Broker, INBOX_CAPACITY, Inbox, KickError, Outbound, PublishError, check_outbound};
use bytes::Bytes;
use connections::Connections;
use counts::Counters;
use gate::Surroundings;
use listener::{House, Speech, accept_all};
use mqtt5::QoS;
use mqtt5::broker::resource_monitor::ResourceMonitor;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::{DynamicStorage, MemoryBackend, StorageBackend};
use mqtt5::broker::sys_topics::BrokerStats;
use mqtt5::packet::publish::PublishPacket;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_rustls::TlsAcceptor;
use twin_shared::id::DeviceId;
use twin_shared::wire::{Channel, Topic};
use wills::Wills;

/// Expired messages and sessions are cleared this often.
const HOUSEKEEPING: Duration = Duration::from_secs(30);

/// Connections that were asked to leave at shutdown have this long before they are cut.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where and how the broker listens.
#[derive(Debug, Clone, Default)]
pub struct EmbeddedConfig {
    /// TCP with passwords.
    pub plain: Option<PlainListener>,
    /// TLS with certificates.
    pub tls: Option<TlsListener>,
    /// All bounds.
    pub limits: Limits,
    /// Channels whose messages are acknowledged only when the reader of the inbox settles them, because they must
    /// be on disk first. One at a time for each board.
    pub durable: Vec<Channel>,
}

/// A listener without encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainListener {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// Passwords and the sizes of all messages can be read on the way: refused beyond loopback unless this is set.
    pub insecure_plain_beyond_loopback: bool,
}

/// A listener with TLS.
#[derive(Debug, Clone)]
pub struct TlsListener {
    /// Port 0 takes a free one.
    pub address: SocketAddr,
    /// Who the broker is and whom it trusts.
    pub identity: TlsIdentity,
}

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No listener configured.
    #[error("the embedded broker has no address to listen on: configure a plain or a TLS listener")]
    NoListener,
    /// Plain TCP on a network.
    #[error(
        "{0} is not loopback: passwords would cross the network in the clear. Use the TLS listener, or set \
         `insecure_plain_beyond_loopback`"
    )]
    PlainBeyondLoopback(SocketAddr),
    /// The port is taken or the address not ours.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The certificates do not serve.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker crate refuses.
    #[error("the message router refuses the host: {0}")]
    Router(#[from] mqtt5::MqttError),
}

/// The running broker. Dropping it does not end it; [`Broker::shutdown`] does.
pub struct EmbeddedBroker {
    router: Arc<MessageRouter>,
    storage: Arc<DynamicStorage>,
    connections: Arc<Connections>,
    counters: Arc<Counters>,
    addresses: Vec<Address>,
    acceptor: Option<watch::Sender<TlsAcceptor>>,
    closing: watch::Sender<bool>,
    /// Yields nothing until every task has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl EmbeddedBroker {
    /// Binds, starts to accept, and returns the broker and the reader of what boards send.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: EmbeddedConfig, credentials: Arc<dyn Credentials>) -> Result<(Self, Inbox), StartError> {
        let Bound { listeners, addresses, acceptor } = bind(&config).await?;
        let limits = config.limits;
        let storage = Arc::new(DynamicStorage::Memory(MemoryBackend::with_queue_limits(limits.queue())));
        let router = Arc::new(limits.router(&storage));
        let connections = Arc::new(Connections::new(&limits));
        let counters = Arc::new(Counters::default());
        let (inbox, reader) = mpsc::channel(INBOX_CAPACITY);
        let (closing, closed) = watch::channel(false);
        let (running, ended) = mpsc::channel(1);
        let wills = Wills::subscribe(&router, &limits).await?;
        let house = Arc::new(House {
            config: limits.broker_config(),
            router: Arc::clone(&router),
            storage: Arc::clone(&storage),
            stats: Arc::new(BrokerStats::new()),
            monitor: Arc::new(ResourceMonitor::new(limits.unlimited_monitor())),
            surroundings: Arc::new(Surroundings {
                credentials,
                connections: Arc::clone(&connections),
                counters: Arc::clone(&counters),
                inbox: inbox.clone(),
                durable: config.durable,
                closing: closed.clone(),
            }),
            limits,
        });
        for (listener, speech) in listeners {
            tokio::spawn(accept_all(listener, speech, Arc::clone(&house), running.clone()));
        }
        tokio::spawn(until(closed.clone(), wills.forward(inbox), running.clone()));
        let keeping = keep_house(Arc::clone(&router), Arc::clone(&storage));
        tokio::spawn(until(closed, keeping, running));
        let ended = Mutex::new(ended);
        Ok((Self { router, storage, connections, counters, addresses, acceptor, closing, ended }, Inbox(reader)))
    }

    /// What was turned away since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// From now on the TLS listener shows this certificate and trusts these authorities. Open connections stay.
    ///
    /// # Errors
    /// When certificates or key cannot be used; everything is as before then.
    pub fn renew_tls(&self, identity: &TlsIdentity) -> Result<(), TlsError> {
        if let Some(acceptor) = &self.acceptor {
            acceptor.send_replace(identity.acceptor()?);
        }
        Ok(())
    }

    /// Whether the device has a live connection.
    #[must_use]
    pub fn is_connected(&self, device: &DeviceId) -> bool {
        self.connections.of(device).is_some()
    }

    async fn route(&self, message: Outbound) -> Result<(), PublishError> {
        check_outbound(&message)?;
        if *self.closing.borrow() {
            return Err(PublishError::Closed);
        }
        let delivery = message.topic.channel.delivery();
        let qos = if delivery.at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let mut packet = PublishPacket::new(message.topic.to_string(), message.payload, qos);
        packet.retain = delivery.retained;
        if let Some(seconds) = delivery.expiry {
            packet = packet.with_message_expiry_interval(seconds);
        }
        // No waiting for a slow board's lane: its queue takes the message.
        self.router.route_message_with_deadline(&packet, None, Instant::now()).await;
        Ok(())
    }

    async fn forget(&self, device: &DeviceId) {
        if let Some(hook) = self.connections.of(device) {
            hook.cut();
        }
        let client = device.as_str();
        if let Err(error) = self.storage.remove_session(client).await {
            tracing::warn!(%device, %error, "the session of a purged device was not removed");
        }
        self.router.unregister_client(client).await;
        self.router.queue_handle(client).clear(None);
        for channel in Channel::ALL.into_iter().filter(|channel| channel.delivery().retained) {
            let topic = Topic { device: device.clone(), channel }.to_string();
            let mut nothing = PublishPacket::new(topic, Bytes::new(), QoS::AtMostOnce);
            nothing.retain = true;
            self.router.route_message_with_deadline(&nothing, None, Instant::now()).await;
        }
    }

    async fn end(&self) {
        self.closing.send_replace(true);
        for hook in self.connections.all() {
            hook.dismiss();
        }
        let mut ended = self.ended.lock().await;
        tokio::select! {
            _ = ended.recv() => return,
            () = sleep(FAREWELL) => {}
        }
        // A connection accepted during the farewell was not asked to leave: cut whatever is left until none is.
        loop {
            for hook in self.connections.all() {
                hook.cut();
            }
            tokio::select! {
                _ = ended.recv() => return,
                () = sleep(FAREWELL) => {}
            }
        }
    }
}

impl Broker for EmbeddedBroker {
    fn publish(&self, message: Outbound) -> Boxed<'_, Result<(), PublishError>> {
        Box::pin(self.route(message))
    }

    fn kick<'a>(&'a self, device: &'a DeviceId) -> Boxed<'a, Result<(), KickError>> {
        Box::pin(async move {
            if let Some(hook) = self.connections.of(device) {
                hook.dismiss();
            }
            Ok(())
        })
    }

    fn purge<'a>(&'a self, device: &'a DeviceId) -> Boxed<'a, Result<(), KickError>> {
        Box::pin(async move {
            self.forget(device).await;
            Ok(())
        })
    }

    fn addresses(&self) -> Vec<Address> {
        self.addresses.clone()
    }

    fn shutdown(&self) -> Boxed<'_, ()> {
        Box::pin(self.end())
    }
}

/// What listens, and where.
struct Bound {
    listeners: Vec<(TcpListener, Speech)>,
    addresses: Vec<Address>,
    acceptor: Option<watch::Sender<TlsAcceptor>>,
}

async fn bind(config: &EmbeddedConfig) -> Result<Bound, StartError> {
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    let mut renewed = None;
    if let Some(plain) = config.plain {
        if !plain.address.ip().to_canonical().is_loopback() && !plain.insecure_plain_beyond_loopback {
            return Err(StartError::PlainBeyondLoopback(plain.address));
        }
        let (listener, address) = listen(plain.address).await?;
        listeners.push((listener, Speech::Plain));
        addresses.push(Address::Plain(address));
    }
    if let Some(tls) = &config.tls {
        let (renew, acceptor) = watch::channel(tls.identity.acceptor()?);
        renewed = Some(renew);
        let (listener, address) = listen(tls.address).await?;
        listeners.push((listener, Speech::Tls(acceptor)));
        addresses.push(Address::Tls(address));
    }
    if listeners.is_empty() {
        return Err(StartError::NoListener);
    }
    Ok(Bound { listeners, addresses, acceptor: renewed })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Runs the work until it ends or the broker closes.
async fn until(mut closing: watch::Receiver<bool>, work: impl Future<Output = ()>, running: mpsc::Sender<()>) {
    tokio::select! {
        () = work => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
    drop(running);
}

/// What the crate's own server would do beside serving.
async fn keep_house(router: Arc<MessageRouter>, storage: Arc<DynamicStorage>) {
    let mut ticks = interval(HOUSEKEEPING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = storage.cleanup_expired().await {
            tracing::warn!(%error, "expired messages were not cleared");
        }
        router.sweep_sessions().await;
    }
}
