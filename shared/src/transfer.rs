//! Large payloads over a channel that drops, repeats and reorders: windows, resumption, credits. No IO.
//!
//! A broker acknowledges before it delivers and drops from full queues, so nothing here trusts the broker's
//! acknowledgement: a chunk counts once the receiver says that it is on disk. One blob at a time goes each way, at
//! most [`WINDOW`] chunks and [`WINDOW_BYTES`] ahead of what the receiver holds, which stays under half the queue
//! that a broker keeps for a client. Either side may restart at any moment: the sender offers the manifest again,
//! the receiver answers with what it holds.
//!
//! An [`Exchange`] is the state of both directions with one peer. The shell around it reads and writes files and
//! publishes messages; time is a [`Duration`](core::time::Duration) on the shell's monotonic clock.

mod exchange;
mod receiver;
mod sender;

pub use exchange::{Exchange, Output};
pub use receiver::{OnDisk, Receiver};
pub use sender::{Sender, Transmit};

/// Chunks that may be on their way.
pub const WINDOW: u32 = 16;

/// Bytes that may be on their way.
pub const WINDOW_BYTES: u32 = 4 << 20;

/// Shortest and longest chunk that is accepted, bytes. The last chunk of a blob may be shorter.
pub const CHUNK_BYTES: core::ops::RangeInclusive<u32> = 1 << 10..=256 << 10;

/// Chunks of a blob that may be on their way, [`WINDOW`] or what fits into [`WINDOW_BYTES`].
#[must_use]
pub const fn window(chunk: u32) -> u32 {
    let by_bytes = WINDOW_BYTES / if chunk == 0 { 1 } else { chunk };
    if by_bytes < WINDOW { by_bytes } else { WINDOW }
}

/// The chunk size for a link: about half a second of it, 16 to 256 KiB, a power of two.
#[must_use]
pub fn chunk_for(bits_per_second: u64) -> u32 {
    let half_second = (bits_per_second / 16).clamp(16 << 10, 256 << 10);
    1 << half_second.ilog2()
}

#[cfg(test)]
mod paced;
#[cfg(test)]
mod tests;
