//! The interface between boards and twin host: every topic, every message, its bytes and its seal.
//!
//! One payload is one sealed envelope ([`seal`]) of one postcard message. Which message a topic carries:
//!
//! | channel | message |
//! | --- | --- |
//! | [`Channel::DnState`] | [`HostState`] |
//! | [`Channel::UpState`] | [`BoardState`] |
//! | [`Channel::UpReported`], [`Channel::DnDesired`] | [`TwinDocument`] |
//! | [`Channel::UpTelemetry`] | [`telemetry::Telemetry`] |
//! | [`Channel::UpPing`], [`Channel::DnPong`] | [`Nonce`] |
//! | [`Channel::DnCommand`] | [`Command`] |
//! | [`Channel::UpCommand`] | [`Reply`] |
//! | [`Channel::UpBlob`], [`Channel::DnBlob`] | [`BlobMessage`] |
//! | [`Channel::UpAck`], [`Channel::DnAck`] | [`BlobAck`] |
//! | [`Channel::UpLog`] | [`LogLine`] |
//! | [`Channel::UpRenewal`] | [`RenewalRequest`] |
//! | [`Channel::DnRenewal`] | [`RenewalAnswer`] |
//!
//! Enum variants are only ever appended; the bytes of each are pinned by tests beside them.

pub mod codec;
pub mod seal;
pub mod telemetry;

mod assignment;
mod renewal;
mod report;
mod state;
mod topic;
mod transfer;

pub use assignment::{Assignment, Command, ModelOffer, Order, Sparing};
pub use renewal::{Agreement, RenewalAnswer, RenewalRequest};
pub use report::{BoardCalibration, FailureCode, LogLevel, LogLine, Reply, Status, StudentCalibration, TrainedEpoch};
pub use state::{Birth, BoardState, Capabilities, DatasetOffer, HostState, Nonce, TwinDocument, VersionRange};
pub use topic::{Channel, Direction, Topic};
pub use transfer::{BlobAck, BlobMessage, Manifest, Purpose, Refusal};

/// Version of the messages that this build speaks best. Version 2 added assignments that name what is spared.
pub const WIRE_VERSION: u8 = 2;

/// The version from which on an assignment says how its state travels.
pub const SPARING_VERSION: u8 = 2;

/// The versions that this build speaks.
pub const WIRE_VERSIONS: VersionRange = VersionRange { oldest: 1, newest: WIRE_VERSION };

/// Longest chunk of a blob, bytes.
pub const MAX_CHUNK: usize = 256 << 10;

#[cfg(all(test, feature = "std"))]
mod bounds;
#[cfg(all(test, feature = "std"))]
mod goldens;
