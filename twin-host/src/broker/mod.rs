//! The message broker as the twin host sees it: what boards send comes in, what the host says goes out.
//!
//! [`embedded`] runs the broker inside this process; [`external`] is a client of somebody else's. Everything above
//! knows the [`Broker`] trait and the [`Inbox`] only. Topics are built and parsed by
//! [`twin_shared::wire`], nowhere else; filters by [`filter`].

pub mod acl;
pub mod credentials;
pub mod embedded;
pub mod external;
pub mod filter;

use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};
use twin_shared::id::DeviceId;
use twin_shared::wire::{Channel, Direction, Topic};

/// The client id of the host itself; no board may bear it.
pub const HOST: &str = "twin-host";

/// Messages that may wait between the broker and its reader. Beyond it, the boards that send wait.
const INBOX_CAPACITY: usize = 64;

/// A future behind a pointer, so that the traits here can be used as objects.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One message to a board. Its channel says how it is delivered, whether it is retained, and when it expires.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Where to; a channel of the host's direction.
    pub topic: Topic,
    /// The sealed envelope. Empty on a retained channel: the broker forgets what it kept there.
    pub payload: Bytes,
}

/// One message from a board, or its last will.
#[derive(Debug)]
pub struct Inbound {
    /// Where it came in; the broker vouches for the device in it as far as its access rules go.
    pub topic: Topic,
    /// The sealed envelope.
    pub payload: Bytes,
    receipt: Option<Receipt>,
}

/// The broker's wait for the word that a message is safe.
#[derive(Debug)]
enum Receipt {
    /// The embedded broker's connection waits to acknowledge.
    Embedded(oneshot::Sender<()>),
    /// The external broker does; `early`: from the moment at which the reader has the message.
    External { acknowledgement: external::Acknowledgement, early: bool },
}

impl Inbound {
    /// Says that the message is stored, or refused for good: the broker may acknowledge it.
    ///
    /// A message dropped without this, on a channel named durable, is not acknowledged and comes again.
    pub fn settle(self) {
        match self.receipt {
            Some(Receipt::Embedded(connection)) => {
                // The connection may have ended meanwhile: then the board sends again, which is harmless.
                let _ = connection.send(());
            }
            Some(Receipt::External { acknowledgement, .. }) => acknowledgement.give(),
            None => {}
        }
    }

    /// The reader has it.
    fn taken(self) -> Self {
        match self.receipt {
            Some(Receipt::External { acknowledgement, early: true }) => {
                acknowledgement.give();
                Self { receipt: None, ..self }
            }
            Some(Receipt::External { early: false, .. } | Receipt::Embedded(_)) | None => self,
        }
    }
}

/// What boards send, in the order in which each sent it. One reader.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Inbound>);

impl Inbox {
    /// The next message; None once the broker is shut down and all has been read.
    pub async fn recv(&mut self) -> Option<Inbound> {
        self.0.recv().await.map(Inbound::taken)
    }
}

/// The host's mouth and hand at the broker.
pub trait Broker: Send + Sync {
    /// Hands a message to the broker. Never waits for the board: a queue that overflows drops its oldest, so large
    /// payloads need credits.
    ///
    /// # Errors
    /// The message was not taken: too large, or the broker is gone.
    fn publish(&self, message: Outbound) -> Boxed<'_, Result<(), PublishError>>;

    /// Ends the device's live connection, if there is one. Its session stays, and it may come back.
    ///
    /// # Errors
    /// [`KickError`] where the broker is not ours to command.
    fn kick<'a>(&'a self, device: &'a DeviceId) -> Boxed<'a, Result<(), KickError>>;

    /// Ends the device's live connection at once and forgets its session, queue and retained messages. To be called
    /// after its credentials have been revoked.
    ///
    /// # Errors
    /// [`KickError`] where the broker is not ours to command.
    fn purge<'a>(&'a self, device: &'a DeviceId) -> Boxed<'a, Result<(), KickError>>;

    /// Where boards connect.
    fn addresses(&self) -> Vec<Address>;

    /// Ends all connections; the [`Inbox`] runs dry.
    fn shutdown(&self) -> Boxed<'_, ()>;
}

/// Where a board connects, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP with user name and password.
    Plain(SocketAddr),
    /// TLS with a certificate on both sides.
    Tls(SocketAddr),
    /// A broker elsewhere, as `mqtts://host:port`.
    External(String),
}

/// Why the broker did not take a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Longer than its channel allows.
    #[error("{size} bytes to {topic} exceed the {} bytes of its channel", topic.channel.max_payload())]
    TooLarge {
        /// Where it was to go.
        topic: Topic,
        /// Bytes of the payload.
        size: usize,
    },
    /// The channel belongs to the boards' direction.
    #[error("the host does not publish to {0}")]
    NotOurDirection(Topic),
    /// Shut down.
    #[error("the broker is shut down")]
    Closed,
}

/// Why a device was not disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KickError {
    /// An external broker obeys its own operator.
    #[error("an external broker drops a client only by its own means: revoke the certificate or password there")]
    ExternalBroker,
}

/// Checks what every broker checks before it takes a message.
fn check_outbound(message: &Outbound) -> Result<(), PublishError> {
    let channel = message.topic.channel;
    if channel.direction() != Direction::Down {
        return Err(PublishError::NotOurDirection(message.topic.clone()));
    }
    if message.payload.len() > channel.max_payload() {
        return Err(PublishError::TooLarge { topic: message.topic.clone(), size: message.payload.len() });
    }
    Ok(())
}

/// The longest payload of any channel, bytes.
fn longest_payload() -> usize {
    Channel::ALL.into_iter().map(Channel::max_payload).max().unwrap_or(0)
}
