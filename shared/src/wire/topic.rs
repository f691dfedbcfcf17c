//! Topics: built and parsed here and nowhere else.

use core::fmt;

use crate::id::DeviceId;

/// Which way a channel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a board to the host.
    Up,
    /// From the host to a board.
    Down,
}

/// A fixed name below a device's root: there are no others, so a broker's memory is bounded and its access rules
/// can be audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// The host as the board sees it; retained.
    DnState,
    /// The board's birth and last will; retained.
    UpState,
    /// The twin document as the board has it; retained.
    UpReported,
    /// The twin document as the host wants it; retained.
    DnDesired,
    /// Samples of the board's state.
    UpTelemetry,
    /// Asks for an echo.
    UpPing,
    /// The echo.
    DnPong,
    /// Orders to the board.
    DnCommand,
    /// Answers to orders.
    UpCommand,
    /// Manifests and chunks of blobs to the host.
    UpBlob,
    /// Manifests and chunks of blobs to the board.
    DnBlob,
    /// What the board holds of blobs sent down, and its credit.
    UpAck,
    /// What the host holds of blobs sent up, and its credit.
    DnAck,
    /// Warnings for the operator.
    UpLog,
    /// Asks for the next keys.
    UpRenewal,
    /// The next keys.
    DnRenewal,
}

/// MQTT delivery of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Quality of service 1 rather than 0.
    pub at_least_once: bool,
    /// Whether the broker keeps the last message for later subscribers.
    pub retained: bool,
    /// Message expiry, seconds; none for retained documents.
    pub expiry: Option<u32>,
}

impl Channel {
    /// Every channel.
    pub const ALL: [Self; 16] = [
        Self::DnState,
        Self::UpState,
        Self::UpReported,
        Self::DnDesired,
        Self::UpTelemetry,
        Self::UpPing,
        Self::DnPong,
        Self::DnCommand,
        Self::UpCommand,
        Self::UpBlob,
        Self::DnBlob,
        Self::UpAck,
        Self::DnAck,
        Self::UpLog,
        Self::UpRenewal,
        Self::DnRenewal,
    ];

    /// The topic below the device's root.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::DnState => "dn/state",
            Self::UpState => "up/state",
            Self::UpReported => "up/reported",
            Self::DnDesired => "dn/desired",
            Self::UpTelemetry => "up/telemetry",
            Self::UpPing => "up/ping",
            Self::DnPong => "dn/pong",
            Self::DnCommand => "dn/command",
            Self::UpCommand => "up/command",
            Self::UpBlob => "up/blob",
            Self::DnBlob => "dn/blob",
            Self::UpAck => "up/ack",
            Self::DnAck => "dn/ack",
            Self::UpLog => "up/log",
            Self::UpRenewal => "up/renewal",
            Self::DnRenewal => "dn/renewal",
        }
    }

    /// Which way it runs.
    #[must_use]
    pub const fn direction(self) -> Direction {
        match self {
            Self::DnState
            | Self::DnDesired
            | Self::DnPong
            | Self::DnCommand
            | Self::DnBlob
            | Self::DnAck
            | Self::DnRenewal => Direction::Down,
            Self::UpState
            | Self::UpReported
            | Self::UpTelemetry
            | Self::UpPing
            | Self::UpCommand
            | Self::UpBlob
            | Self::UpAck
            | Self::UpLog
            | Self::UpRenewal => Direction::Up,
        }
    }

    /// How it is delivered. Telemetry expires after three of its periods, which the sender knows.
    #[must_use]
    pub const fn delivery(self) -> Delivery {
        let (at_least_once, retained, expiry) = match self {
            Self::DnState | Self::UpState | Self::UpReported | Self::DnDesired => (true, true, None),
            Self::UpTelemetry => (false, false, Some(15)),
            Self::UpPing | Self::DnPong => (false, false, Some(5)),
            Self::DnCommand | Self::UpAck | Self::DnAck | Self::UpRenewal | Self::DnRenewal => (true, false, Some(60)),
            Self::UpCommand => (true, false, Some(3600)),
            Self::UpBlob | Self::DnBlob => (true, false, Some(600)),
            Self::UpLog => (false, false, Some(600)),
        };
        Delivery { at_least_once, retained, expiry }
    }

    /// Longest payload, sealed, in bytes; a longer one is refused unread.
    #[must_use]
    pub const fn max_payload(self) -> usize {
        match self {
            Self::UpTelemetry => 256,
            Self::UpBlob | Self::DnBlob => super::MAX_CHUNK + 256,
            // A chain of certificates and the authorities, of which one may be somebody else's with a long key.
            Self::UpRenewal | Self::DnRenewal => 8192,
            Self::DnState
            | Self::UpState
            | Self::UpReported
            | Self::DnDesired
            | Self::UpPing
            | Self::DnPong
            | Self::DnCommand
            | Self::UpCommand
            | Self::UpAck
            | Self::DnAck
            | Self::UpLog => 1024,
        }
    }
}

/// A channel of a device.
///
/// ```
/// use twin_shared::wire::{Channel, Topic};
/// let topic = Topic { device: "board1".parse()?, channel: Channel::UpTelemetry };
/// assert_eq!(topic.to_string(), "twin/v1/board1/up/telemetry");
/// assert_eq!(Topic::parse("twin/v1/board1/up/telemetry"), Some(topic));
/// for foreign in ["twin/v1/board1/up", "twin/v2/board1/up/state", "twin/v1/+/up/state", "twin/v1/a/b/up/state"] {
///     assert_eq!(Topic::parse(foreign), None);
/// }
/// # Ok::<(), twin_shared::id::InvalidDeviceId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// The device.
    pub device: DeviceId,
    /// The channel below it.
    pub channel: Channel,
}

/// What every topic starts with.
const ROOT: &str = "twin/v1/";

impl Topic {
    /// Reads a topic; `None` for anything that is not a device's channel.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (device, path) = text.strip_prefix(ROOT)?.split_once('/')?;
        let channel = Channel::ALL.into_iter().find(|channel| channel.path() == path)?;
        Some(Self { device: device.parse().ok()?, channel })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}{}/{}", self.device, self.channel.path())
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn every_channel_reads_back() {
        let device: DeviceId = "b-1".parse().expect("valid");
        for channel in Channel::ALL {
            let topic = Topic { device: device.clone(), channel };
            assert_eq!(Topic::parse(&topic.to_string()), Some(topic));
        }
    }

    #[test]
    fn the_path_says_the_direction() {
        for channel in Channel::ALL {
            assert_eq!(channel.direction() == Direction::Up, channel.path().starts_with("up/"));
        }
    }
}
