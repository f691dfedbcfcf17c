//! A broker that somebody else runs: Mosquitto, EMQX, HiveMQ, with the access rules of [`super::acl`].

mod canary;
mod drive;
mod login;
mod probe;

pub use canary::{CanaryError, CanaryPair, Leak, examine};
pub(crate) use drive::Acknowledgement;
pub use drive::Link;
pub use login::{AddressError, ExternalAddress, LoginError, Proof, Reach};

use super::{Address, Boxed, Broker, HOST, INBOX_CAPACITY, Inbox, KickError, Outbound, PublishError, check_outbound};
use drive::Drive;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use twin_shared::id::DeviceId;
use twin_shared::wire::Channel;

/// Long enough for a name look-up, a handshake and a slow broker.
const FIRST_CONNECT: Duration = Duration::from_secs(15);

/// How the host reaches its broker.
#[derive(Debug, Clone)]
pub struct ExternalConfig {
    /// The broker.
    pub reach: Reach,
    /// How the host proves that it is [`HOST`].
    pub proof: Proof,
    /// Channels whose messages are acknowledged only when the reader of the inbox settles them.
    pub durable: Vec<Channel>,
}

/// Why the host did not get to its broker.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The configuration cannot work.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// Refused, or no connection within 15 s.
    #[error("no connection to {address}: {reason}")]
    Unreachable {
        /// Where.
        address: ExternalAddress,
        /// The last failure.
        reason: String,
    },
}

/// The host as a client of an external broker.
pub struct ExternalBroker {
    address: ExternalAddress,
    outbound: mpsc::Sender<Outbound>,
    link: watch::Receiver<Link>,
    closing: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl ExternalBroker {
    /// Connects and subscribes; later breaks are mended without end.
    ///
    /// # Errors
    /// [`ExternalError`]; nothing is left running then.
    pub async fn start(config: ExternalConfig) -> Result<(Self, Inbox), ExternalError> {
        let options = config.reach.options(HOST, &config.proof)?;
        // Twice what one connection may bring unacknowledged, and room for what may be lost.
        let (inbox, reader) = mpsc::channel(2 * INBOX_CAPACITY);
        let (outbound, to_send) = mpsc::channel(INBOX_CAPACITY);
        let (link, mut watched) = watch::channel(Link::Down(None));
        let (closing, closed) = watch::channel(false);
        let drive = Drive { options, durable: config.durable, outbound: to_send, inbox, link, closing: closed };
        let task = tokio::spawn(drive.run());
        let decided = watched.wait_for(|link| matches!(link, Link::Up | Link::Refused(_)));
        // Out of time is told by the link's last state.
        let _ = timeout(FIRST_CONNECT, decided).await;
        let reason = match &*watched.borrow() {
            Link::Up => None,
            Link::Down(Some(reason)) | Link::Refused(reason) => Some(reason.clone()),
            Link::Down(None) => Some("no answer".to_owned()),
        };
        if let Some(reason) = reason {
            task.abort();
            return Err(ExternalError::Unreachable { address: config.reach.address, reason });
        }
        let broker =
            Self { address: config.reach.address, outbound, link: watched, closing, task: Mutex::new(Some(task)) };
        Ok((broker, Inbox(reader)))
    }

    /// How things stand, now and from now on.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }
}

impl Broker for ExternalBroker {
    /// Waits for the link where it is slower than the caller; a message taken while the broker is away goes out later.
    fn publish(&self, message: Outbound) -> Boxed<'_, Result<(), PublishError>> {
        Box::pin(async move {
            check_outbound(&message)?;
            self.outbound.send(message).await.map_err(|_| PublishError::Closed)
        })
    }

    fn kick<'a>(&'a self, _device: &'a DeviceId) -> Boxed<'a, Result<(), KickError>> {
        Box::pin(async { Err(KickError::ExternalBroker) })
    }

    fn purge<'a>(&'a self, _device: &'a DeviceId) -> Boxed<'a, Result<(), KickError>> {
        Box::pin(async { Err(KickError::ExternalBroker) })
    }

    fn addresses(&self) -> Vec<Address> {
        vec![Address::External(self.address.to_string())]
    }

    fn shutdown(&self) -> Boxed<'_, ()> {
        Box::pin(async {
            self.closing.send_replace(true);
            if let Some(task) = self.task.lock().await.take()
                && let Err(error) = task.await
            {
                tracing::error!(%error, "the connection to the broker ended badly");
            }
        })
    }
}
