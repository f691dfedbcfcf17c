//! The control socket: how commands reach a host that serves.
//!
//! A Unix socket `control.sock` in the data directory, for its owner only (mode 0600, in a directory of mode 0700). A
//! connection carries one [`Request`] as one line of JSON, answered by one [`Answer`]; a request that asks to watch is
//! followed by one [`Event`] a line until the job that it is about has ended, or either side closes.

mod address;
mod client;
mod event;
mod message;
mod server;

pub use address::SOCKET;
pub use client::{ControlError, Conversation, ask};
pub use event::{Event, Happened};
pub use message::{Answer, Request};
pub(crate) use server::{Asked, Control, ControlStartError};

#[cfg(test)]
mod tests;
