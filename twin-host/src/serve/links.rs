//! The links to all boards: devices come and go while the host serves, so they are a table that several tasks share.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use twin_data::blobs::Blobs;
use twin_shared::id::{BootId, DeviceId};

use crate::broker::{Broker, Inbound, Inbox};
use crate::config::Metered;
use crate::link::{Desk, FromBoard, Link, LinkCounts, LinkOrder, LinkParts};
use crate::store::DeviceRecord;
use crate::traffic::Ledger;

/// Messages of one board that may wait for its link. A board that sends faster than its link works loses what is
/// beyond, and its transfers send that again.
const LINK_INBOX: usize = 256;

/// What every link is made from.
pub(crate) struct Surroundings {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) boot: BootId,
    /// The host's count of starts.
    pub(crate) epoch: u64,
    pub(crate) started: Instant,
    pub(crate) up: mpsc::Sender<FromBoard>,
    /// Where keys are renewed.
    pub(crate) desk: mpsc::Sender<Desk>,
    /// Where what is carried is written down.
    pub(crate) ledger: Arc<Ledger>,
    /// Boards whose link is paid by the megabyte.
    pub(crate) metered: BTreeMap<DeviceId, Metered>,
}

/// The table.
pub(crate) struct Links {
    surroundings: Surroundings,
    table: RwLock<BTreeMap<DeviceId, BoardLink>>,
}

struct BoardLink {
    orders: mpsc::UnboundedSender<LinkOrder>,
    inbox: mpsc::Sender<Inbound>,
    task: JoinHandle<LinkCounts>,
}

impl Links {
    pub(crate) fn new(surroundings: Surroundings) -> Self {
        Self { surroundings, table: RwLock::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<DeviceId, BoardLink>> {
        // Nothing below can panic half-way through a change.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<DeviceId, BoardLink>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Greets a board, and answers it from now on. One that has a link keeps it.
    pub(crate) fn open(&self, record: &DeviceRecord, blobs: Blobs) {
        let mut table = self.write();
        if table.contains_key(&record.device) {
            return;
        }
        let Surroundings { broker, boot, epoch, started, up, desk, ledger, metered } = &self.surroundings;
        let (inbox, link_inbox) = mpsc::channel(LINK_INBOX);
        let (orders, link_orders) = mpsc::unbounded_channel();
        let parts = LinkParts {
            device: record.device.clone(),
            key: record.key.clone(),
            blobs,
            broker: Arc::clone(broker),
            boot: *boot,
            epoch: *epoch,
            started: *started,
            up: up.clone(),
            desk: desk.clone(),
            ledger: Arc::clone(ledger),
            allowance: metered.get(&record.device).and_then(|metered| metered.allowance),
        };
        let task = tokio::spawn(Link::new(parts).run(link_inbox, link_orders));
        table.insert(record.device.clone(), BoardLink { orders, inbox, task });
    }

    /// Ends a board's link without a word to the board. The future ends with the link; it need not be awaited.
    pub(crate) fn close(&self, device: &DeviceId) -> impl Future<Output = ()> + Send + 'static {
        let link = self.write().remove(device);
        async move {
            let Some(BoardLink { orders, inbox, task }) = link else { return };
            drop((orders, inbox));
            if let Err(error) = task.await {
                tracing::error!(%error, "a link ended badly");
            }
        }
    }

    /// Whether this device is enrolled and not locked out.
    pub(crate) fn contains(&self, device: &DeviceId) -> bool {
        self.read().contains_key(device)
    }

    /// Gives a board's link an order; a device without a link has no use for it.
    pub(crate) fn order(&self, device: &DeviceId, order: LinkOrder) {
        if let Some(link) = self.read().get(device) {
            let _ = link.orders.send(order);
        }
    }

    /// Gives every link an order.
    pub(crate) fn order_all(&self, order: impl Fn() -> LinkOrder) {
        for link in self.read().values() {
            let _ = link.orders.send(order());
        }
    }

    /// Hands each board's messages to its link. Never waits for one of them, so that none holds up the others.
    pub(crate) async fn dispatch(&self, mut inbox: Inbox) {
        while let Some(inbound) = inbox.recv().await {
            let table = self.read();
            let Some(link) = table.get(&inbound.topic.device) else {
                tracing::warn!(topic = %inbound.topic, "a message of an unknown device");
                continue;
            };
            if let Err(mpsc::error::TrySendError::Full(inbound)) = link.inbox.try_send(inbound) {
                tracing::warn!(topic = %inbound.topic, "a board sends faster than its messages are handled");
            }
        }
    }

    /// Tells every board that the host stops, and ends all links. Returns what each counted.
    pub(crate) async fn farewell(&self) -> BTreeMap<DeviceId, LinkCounts> {
        let links = std::mem::take(&mut *self.write());
        let mut counts = BTreeMap::new();
        for (device, link) in links {
            let _ = link.orders.send(LinkOrder::Farewell);
            if let Ok(counted) = link.task.await {
                counts.insert(device, counted);
            }
        }
        counts
    }
}
