//! What a link is made from, what it is asked, and what it tells.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use twin_core::coordinator::BoardInput;
use twin_data::blobs::Blobs;
use twin_shared::id::{BlobHash, BootId, DeviceId, RoundId};
use twin_shared::units::BitsPerSecond;
use twin_shared::wire::seal::DeviceKey;
use twin_shared::wire::{LogLine, Order, Purpose, TwinDocument};

use crate::broker::Broker;
use crate::store::Named;
use crate::traffic::Ledger;

/// What the coordinator wants of a board.
#[derive(Debug)]
pub(crate) enum LinkOrder {
    /// A command.
    Command(Order),
    /// The twin document; its state is hashed afresh from disk.
    Desired(TwinDocument),
    /// A blob of the device's own.
    Send(BlobHash, Purpose),
    /// Blobs of this epoch and those before are no longer wanted.
    Forget(RoundId),
    /// Remove what nobody has named or wanted for a while. The link does it, so that nothing is taken meanwhile that is
    /// about to be removed.
    Collect(Named),
    /// The rate of the downlink.
    Pace(BitsPerSecond),
    /// Say that the host stops.
    Farewell,
    /// Say again what the broker retains: it may have lost it.
    Announce,
    /// The key that the board may change over to, if any, and whether it should ask for one.
    Keys {
        /// On offer.
        next: Option<DeviceKey>,
        /// Whether the present ones should be renewed.
        due: bool,
    },
    /// The answer to a board's request for keys.
    Grant(Grant),
}

/// What a board gets that asks for the next keys.
pub(crate) struct Grant {
    /// The board's share in the agreement.
    pub(crate) asked: [u8; 32],
    /// What it gets; none where that is refused.
    pub(crate) keys: Option<GrantedKeys>,
}

/// Shares, certificates and the key agreed on.
pub(crate) struct GrantedKeys {
    /// The host's share.
    pub(crate) share: [u8; 32],
    /// As in [`twin_shared::wire::RenewalAnswer::Keys`].
    pub(crate) chain: Vec<u8>,
    /// As in [`twin_shared::wire::RenewalAnswer::Keys`].
    pub(crate) authorities: Vec<u8>,
    /// What both sides seal with from the board's next birth on.
    pub(crate) next: DeviceKey,
}

/// Nothing secret is printed.
impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").field("granted", &self.keys.is_some()).finish_non_exhaustive()
    }
}

/// What a link wants of the registrar.
#[derive(Debug)]
pub(crate) enum Desk {
    /// A board asks for the next keys.
    Renew {
        /// Who.
        device: DeviceId,
        /// Its share in the agreement.
        share: [u8; 32],
        /// Its signing request; empty where it has no certificate.
        request: Vec<u8>,
    },
    /// A board has used the key that it was offered.
    ChangedOver {
        /// Who.
        device: DeviceId,
        /// The key.
        key: DeviceKey,
    },
}

/// What was refused or went wrong, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LinkCounts {
    /// Payloads that are no envelope, of a foreign version or channel, too long, or no message inside.
    pub malformed: u64,
    /// Payloads whose seal does not fit.
    pub forged: u64,
    /// Payloads seen before, or of an earlier boot.
    pub replayed: u64,
    /// Payload bytes from the board.
    pub bytes_up: u64,
    /// Payload bytes to the board.
    pub bytes_down: u64,
}

/// What a board said, as a link passes it on.
#[derive(Debug)]
pub(crate) struct FromBoard {
    pub(crate) device: DeviceId,
    pub(crate) said: Said,
    /// Told, or dropped, once what a restart must find of this is written down: the link acknowledges it then.
    pub(crate) stored: oneshot::Sender<()>,
}

/// What a board said.
#[derive(Debug)]
pub(crate) enum Said {
    /// Something for the coordinator.
    Board(BoardInput),
    /// A line for the operator.
    Log(LogLine),
}

/// What a link needs from outside.
pub(crate) struct LinkParts {
    pub(crate) device: DeviceId,
    pub(crate) key: DeviceKey,
    pub(crate) blobs: Blobs,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) boot: BootId,
    /// The host's count of starts.
    pub(crate) epoch: u64,
    pub(crate) started: Instant,
    pub(crate) up: mpsc::Sender<FromBoard>,
    /// Where what is carried is written down.
    pub(crate) ledger: Arc<Ledger>,
    /// Bytes a day, both ways, after which no more blobs are carried.
    pub(crate) allowance: Option<u64>,
    /// Where keys are renewed.
    pub(crate) desk: mpsc::Sender<Desk>,
}
