//! The composition root of the serving host: broker, one link a board, store, trainers and the coordinator of a job.
//! One task owns the coordinator and the store; nobody shares them.

mod bookkeeper;
mod job;
mod life;
mod models;
mod requests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use twin_shared::id::{BootId, DeviceId};

use bookkeeper::Bookkeeper;
pub use job::{JobFailure, JobReport, MemberReport};

use crate::broker::credentials::Credentials;
use crate::broker::embedded::{EmbeddedBroker, EmbeddedConfig, Limits, PlainListener, StartError};
use crate::broker::{Address, Boxed, Broker, Inbound, Inbox};
use crate::config::Config;
use crate::control::{Control, ControlStartError};
use crate::link::{FromBoard, Link, LinkCounts, LinkOrder, LinkParts};
use crate::store::{Store, StoreError};

/// Messages of one board that may wait for its link. A board that sends faster than its link works loses what is
/// beyond, and its transfers send that again.
const LINK_INBOX: usize = 256;

/// A host that serves.
pub struct Host {
    config: Config,
    store: Store,
    broker: Arc<EmbeddedBroker>,
    links: BTreeMap<DeviceId, BoardLink>,
    from_boards: mpsc::Receiver<FromBoard>,
    control: Control,
    /// Counts the host's starts.
    life: u64,
    /// Jobs that this life has run, or gone on with.
    runs: u32,
    /// Where this life's trainers write; what they have written is moved from there to its place.
    work: PathBuf,
    started: Instant,
    dispatcher: JoinHandle<()>,
    bookkeeper: Bookkeeper,
}

struct BoardLink {
    orders: mpsc::UnboundedSender<LinkOrder>,
    task: JoinHandle<LinkCounts>,
}

/// Why the host does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] StartError),
    /// The control socket, or another host has it.
    #[error(transparent)]
    Control(#[from] ControlStartError),
}

impl Host {
    /// Opens the data directory, starts the broker, and greets every enrolled board.
    ///
    /// # Errors
    /// When the store or the broker refuses, or another host serves the directory.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let store = Store::open(&config.data_dir)?;
        let control = Control::start(store.root())?;
        let epoch = store.begin_epoch()?;
        let work = store.begin_work(epoch)?;
        let devices = store.devices()?;
        let started = Instant::now();
        let boot = BootId(rand::random());
        let passwords = devices.iter().filter(|record| !record.revoked);
        let passwords = passwords.map(|record| (record.device.clone(), record.key.broker_password())).collect();
        let plain = config
            .plain
            .map(|address| PlainListener { address, insecure_plain_beyond_loopback: config.plain_beyond_loopback });
        let listening = EmbeddedConfig { plain, tls: None, limits: Limits::default(), durable: Vec::new() };
        let gate = Arc::new(Gate { passwords: Mutex::new(passwords) });
        let (broker, inbox) = EmbeddedBroker::start(listening, gate).await?;
        let broker = Arc::new(broker);
        let (up, from_boards) = mpsc::channel(256);
        let bookkeeper = Bookkeeper::start(&store, devices.iter().map(|record| &record.device))?;
        let mut links = BTreeMap::new();
        let mut inboxes = BTreeMap::new();
        for record in devices.into_iter().filter(|record| !record.revoked) {
            let (inbox, link_inbox) = mpsc::channel(LINK_INBOX);
            let (orders, link_orders) = mpsc::unbounded_channel();
            let blobs = store.blobs(&record.device)?;
            let parts = LinkParts {
                device: record.device.clone(),
                key: record.key,
                blobs,
                broker: Arc::clone(&broker) as Arc<dyn Broker>,
                boot,
                epoch,
                started,
                up: up.clone(),
                ledger: bookkeeper.ledger(),
                allowance: config.metered.get(&record.device).and_then(|metered| metered.allowance),
            };
            let task = tokio::spawn(Link::new(parts).run(link_inbox, link_orders));
            inboxes.insert(record.device.clone(), inbox);
            links.insert(record.device, BoardLink { orders, task });
        }
        let dispatcher = tokio::spawn(dispatch(inbox, inboxes));
        Ok(Self {
            config,
            store,
            broker,
            links,
            from_boards,
            control,
            life: epoch,
            runs: 0,
            work,
            started,
            dispatcher,
            bookkeeper,
        })
    }

    /// Where boards connect.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.broker.addresses()
    }

    /// Has a board's link do something; a board without one is locked out.
    pub(crate) fn order(&self, device: &DeviceId, order: LinkOrder) {
        if let Some(link) = self.links.get(device) {
            let _ = link.orders.send(order);
        }
    }

    /// The host's memory.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Tells every board that the host stops, and ends all connections. Returns what each link counted.
    pub async fn stop(self) -> BTreeMap<DeviceId, LinkCounts> {
        let mut counts = BTreeMap::new();
        for (device, link) in self.links {
            let _ = link.orders.send(LinkOrder::Farewell);
            if let Ok(counted) = link.task.await {
                counts.insert(device, counted);
            }
        }
        self.broker.shutdown().await;
        self.dispatcher.abort();
        self.bookkeeper.close().await;
        counts
    }
}

/// Hands each board's messages to its link. Never waits for one of them, so that none holds up the others.
async fn dispatch(mut inbox: Inbox, links: BTreeMap<DeviceId, mpsc::Sender<Inbound>>) {
    while let Some(inbound) = inbox.recv().await {
        let Some(link) = links.get(&inbound.topic.device) else {
            tracing::warn!(topic = %inbound.topic, "a message of an unknown device");
            continue;
        };
        if let Err(mpsc::error::TrySendError::Full(inbound)) = link.try_send(inbound) {
            tracing::warn!(topic = %inbound.topic, "a board sends faster than its messages are handled");
        }
    }
}

/// Who may connect.
struct Gate {
    passwords: Mutex<BTreeMap<DeviceId, [u8; 32]>>,
}

impl Gate {
    fn password(&self, device: &DeviceId) -> Option<[u8; 32]> {
        self.passwords.lock().unwrap_or_else(PoisonError::into_inner).get(device).copied()
    }
}

impl Credentials for Gate {
    fn verify<'a>(&'a self, device: &'a DeviceId, password: &'a [u8]) -> Boxed<'a, bool> {
        let known = self.password(device);
        Box::pin(async move {
            // Compared as hashes, whose comparison takes the same time whatever was said.
            known.is_some_and(|known| {
                let expected: String = known.iter().map(|byte| format!("{byte:02x}")).collect();
                blake3::hash(expected.as_bytes()) == blake3::hash(password)
            })
        })
    }

    fn is_revoked<'a>(&'a self, device: &'a DeviceId) -> Boxed<'a, bool> {
        let unknown = self.password(device).is_none();
        Box::pin(async move { unknown })
    }
}
