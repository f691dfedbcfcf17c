//! Writes down what links carry: a task of its own, so that no link waits for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use twin_shared::id::DeviceId;

use crate::store::{Store, StoreError};
use crate::traffic::{Day, Ledger};

/// What was carried is stored this often; what a crash loses of the count is less than that.
const EVERY: Duration = Duration::from_secs(5);

/// The task and its ledger.
pub(super) struct Bookkeeper {
    ledger: Arc<Ledger>,
    close: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Bookkeeper {
    /// Begins with what the devices have spent today.
    pub(super) fn start<'a>(store: &Store, devices: impl Iterator<Item = &'a DeviceId>) -> Result<Self, StoreError> {
        let today = Day::of(SystemTime::now());
        let spent = devices.map(|device| {
            let uses = store.traffic(device, today)?;
            Ok((device.clone(), uses.iter().map(|(_, carried)| carried.up + carried.down).sum()))
        });
        let ledger = Arc::new(Ledger::resumed(today, spent.collect::<Result<Vec<_>, StoreError>>()?));
        let (close, closed) = oneshot::channel();
        let task = tokio::spawn(keep(Arc::clone(&ledger), store.root().to_owned(), closed));
        Ok(Self { ledger, close, task })
    }

    pub(super) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Stores what is left.
    pub(super) async fn close(self) {
        let _ = self.close.send(());
        let _ = self.task.await;
    }
}

async fn keep(ledger: Arc<Ledger>, root: PathBuf, mut closed: oneshot::Receiver<()>) {
    loop {
        let over = tokio::time::timeout(EVERY, &mut closed).await.is_ok();
        let (ledger, root) = (Arc::clone(&ledger), root.clone());
        let stored = tokio::task::spawn_blocking(move || {
            let entries = ledger.take();
            if entries.is_empty() { Ok(()) } else { Store::open(root)?.add_traffic(&entries) }
        });
        if let Ok(Err(error)) = stored.await {
            tracing::warn!(%error, "what was carried is not written down");
        }
        if over {
            return;
        }
    }
}
