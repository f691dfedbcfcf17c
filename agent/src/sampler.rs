//! What the board can honestly say about itself: IO behind one trait.
//!
//! A figure that the kernel does not give is unknown; none is guessed, save the noise of a Wi-Fi channel, which says
//! `assumed`.

mod emulated;
mod linux;
mod path;

use std::time::{Duration, Instant};

use twin_shared::wire::telemetry::{Age, Telemetry};

pub use emulated::EmulatedSampler;
pub use linux::{LinuxSampler, Root};
pub use path::PathMeter;

/// Where samples come from.
pub trait Sampler {
    /// Takes one sample. Its path to the host is unknown and its activity idle: who knows these puts them in.
    ///
    /// Reads files of the kernel and asks the driver of the radio, so it may take a few milliseconds; not to be called
    /// from a thread that must never wait.
    fn sample(&mut self, now: Instant) -> Telemetry;
}

/// The age of what was read then, to the nearest second.
fn age_of(now: Instant, then: Instant) -> Age {
    let elapsed = now.saturating_duration_since(then) + Duration::from_millis(500);
    Age::of_seconds(u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX))
}
