//! The open connections: which there are, whose they are, and how to end one from outside its handler.

use super::admission::{Admission, ConnectionId, Verdict};
use super::limits::Limits;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use twin_shared::id::DeviceId;

/// A handler that was asked to leave, and whose write may be stuck, has this long before its socket is shut.
const GRACE: Duration = Duration::from_secs(1);

/// The hold on one connection that does not depend on its handler.
#[derive(Debug)]
pub(super) struct Hook {
    id: ConnectionId,
    /// A second descriptor of the same socket: shutting it down wakes a handler that is stuck in a write, which
    /// the stop signal does not.
    socket: std::net::TcpStream,
    stop: broadcast::Sender<()>,
    owner: OnceLock<DeviceId>,
}

impl Hook {
    /// The device, once the client has proved that it is.
    pub(super) fn owner(&self) -> Option<&DeviceId> {
        self.owner.get()
    }

    /// Whether its client has proved who it is.
    pub(super) fn is_admitted(&self) -> bool {
        self.owner.get().is_some()
    }

    /// The signal that the handler listens to.
    pub(super) fn stop_signal(&self) -> broadcast::Receiver<()> {
        self.stop.subscribe()
    }

    /// Shuts the socket: the handler's next read or write ends.
    pub(super) fn cut(&self) {
        // An error means that the socket is shut already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Asks the handler to say goodbye, and shuts the socket if it does not get to it.
    pub(super) fn dismiss(self: &Arc<Self>) {
        // Without a listener the handler is on its way out.
        let _ = self.stop.send(());
        let hook = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            hook.cut();
        });
    }
}

#[derive(Debug)]
struct Table {
    admission: Admission,
    hooks: HashMap<ConnectionId, Arc<Hook>>,
    devices: HashMap<DeviceId, ConnectionId>,
}

/// All open connections of the broker, over its listeners.
#[derive(Debug)]
pub(super) struct Connections(Mutex<Table>);

/// An accepted connection's place in the table; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) hook: Arc<Hook>,
    connections: Arc<Connections>,
}

impl Connections {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Mutex::new(Table { admission: Admission::new(limits), hooks: HashMap::new(), devices: HashMap::new() }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing below can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the new socket a place, ending the oldest nameless connection for it where need be. None: no place.
    pub(super) fn arrive(self: &Arc<Self>, stream: &TcpStream, address: IpAddr) -> std::io::Result<Option<Guest>> {
        let socket = std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?);
        let mut table = self.table();
        let Verdict::Pending { id, evicted } = table.admission.arrive(address) else {
            return Ok(None);
        };
        if let Some(oldest) = evicted.and_then(|id| table.hooks.get(&id)) {
            oldest.cut();
        }
        let (stop, _) = broadcast::channel(1);
        let hook = Arc::new(Hook { id, socket, stop, owner: OnceLock::new() });
        table.hooks.insert(id, Arc::clone(&hook));
        drop(table);
        Ok(Some(Guest { hook, connections: Arc::clone(self) }))
    }

    /// The connection's client is this device. An earlier connection of the device is cut at once: if it hangs in
    /// a write, it would hold up its own successor. False: the connection was evicted meanwhile.
    pub(super) fn admit(&self, hook: &Hook, device: &DeviceId) -> bool {
        let mut table = self.table();
        if !table.admission.admit(hook.id) {
            return false;
        }
        hook.owner.get_or_init(|| device.clone());
        let earlier = table.devices.insert(device.clone(), hook.id);
        if let Some(earlier) = earlier.and_then(|id| table.hooks.get(&id)) {
            earlier.cut();
        }
        true
    }

    /// The device's live connection.
    pub(super) fn of(&self, device: &DeviceId) -> Option<Arc<Hook>> {
        let table = self.table();
        table.devices.get(device).and_then(|id| table.hooks.get(id)).map(Arc::clone)
    }

    /// Every open connection.
    pub(super) fn all(&self) -> Vec<Arc<Hook>> {
        self.table().hooks.values().map(Arc::clone).collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.admission.gone(self.hook.id);
        table.hooks.remove(&self.hook.id);
        if let Some(device) = self.hook.owner.get()
            && table.devices.get(device) == Some(&self.hook.id)
        {
            table.devices.remove(device);
        }
    }
}
