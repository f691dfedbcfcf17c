//! What the path to the host was measured to do: round trips by ping, goodput by transfers.
//!
//! PURE: the clock comes as an argument.

use std::time::{Duration, Instant};

use twin_shared::units::{Bits, BitsPerSecond, Seconds};
use twin_shared::wire::telemetry::quantity::KilobitsPerSecond;
use twin_shared::wire::telemetry::{Path, Reading, Source};

use super::age_of;

/// Round trips that the percentiles are taken over.
const ROUND_TRIPS: usize = 64;

/// Transfers that took less say more of buffers than of the link.
const SHORTEST_TRANSFER: Duration = Duration::from_millis(20);

/// Transfers of fewer bytes say more of round trips, and of who was away meanwhile, than of the link: a handful of samples
/// that were kept while the host was down would make a link of kilobits out of one of megabits.
const SMALLEST_TRANSFER: u64 = 256 << 10;

/// Collects measurements of the path to the host.
#[derive(Debug, Clone, Default)]
pub struct PathMeter {
    round_trips: heapless::Deque<Duration, ROUND_TRIPS>,
    last_round_trip: Option<Instant>,
    up: Option<Goodput>,
    down: Option<Goodput>,
}

#[derive(Debug, Clone, Copy)]
struct Goodput {
    rate: BitsPerSecond,
    at: Instant,
}

impl PathMeter {
    /// A ping came back after this time.
    pub fn round_trip(&mut self, now: Instant, took: Duration) {
        if self.round_trips.is_full() {
            self.round_trips.pop_front();
        }
        let room = self.round_trips.push_back(took);
        debug_assert!(room.is_ok(), "the oldest made room");
        self.last_round_trip = Some(now);
    }

    /// A transfer from the board took this time; too short or small a one is not counted.
    pub fn sent(&mut self, now: Instant, bytes: u64, took: Duration) {
        self.up = goodput(now, bytes, took).or(self.up);
    }

    /// A transfer to the board took this time; too short or small a one is not counted.
    pub fn received(&mut self, now: Instant, bytes: u64, took: Duration) {
        self.down = goodput(now, bytes, took).or(self.down);
    }

    /// What is known by now.
    #[must_use]
    pub fn reading(&self, now: Instant) -> Path {
        let mut sorted: heapless::Vec<Duration, ROUND_TRIPS> = self.round_trips.iter().copied().collect();
        sorted.sort_unstable();
        let percentile = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            let (took, at) = sorted.get(rank).zip(self.last_round_trip)?;
            Some(measured(Seconds(took.as_secs_f64()).into(), now, at))
        };
        let rate = |goodput: Option<Goodput>| {
            goodput.map_or(Reading::Unknown, |g| measured(KilobitsPerSecond::from(g.rate), now, g.at))
        };
        Path {
            round_trip_p50: percentile(50).unwrap_or_default(),
            round_trip_p95: percentile(95).unwrap_or_default(),
            goodput_up: rate(self.up),
            goodput_down: rate(self.down),
        }
    }
}

fn goodput(now: Instant, bytes: u64, took: Duration) -> Option<Goodput> {
    let rate = Bits::of_bytes(bytes).0 / took.as_secs_f64();
    (took >= SHORTEST_TRANSFER && bytes >= SMALLEST_TRANSFER).then_some(Goodput { rate: BitsPerSecond(rate), at: now })
}

fn measured<T>(value: T, now: Instant, at: Instant) -> Reading<T> {
    Reading::Known { value, source: Source::Measured, age: age_of(now, at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::wire::telemetry::Age;
    use twin_shared::wire::telemetry::quantity::Microseconds;

    #[test]
    fn percentiles_are_of_the_recent_round_trips() {
        let (now, mut meter) = (Instant::now(), PathMeter::default());
        assert_eq!(meter.reading(now), Path::default(), "nothing measured, nothing said");
        meter.round_trip(now, Duration::from_secs(9));
        (1..=64_u64).rev().for_each(|ms| meter.round_trip(now, Duration::from_millis(ms)));
        let path = meter.reading(now + Duration::from_secs(3));
        let known = |ms: u32| Reading::Known {
            value: Microseconds(ms * 1_000),
            source: Source::Measured,
            age: Age::of_seconds(3),
        };
        assert_eq!((path.round_trip_p50, path.round_trip_p95), (known(32), known(61)));
    }

    #[test]
    fn goodput_is_of_the_last_transfer_that_tells() {
        let (now, mut meter) = (Instant::now(), PathMeter::default());
        meter.sent(now, 1_000_000, Duration::from_secs(4));
        meter.sent(now, 1_000_000, Duration::from_millis(1));
        // A batch of samples that had waited for the host.
        meter.sent(now, 1_000, Duration::from_secs(9));
        let path = meter.reading(now);
        assert_eq!(path.goodput_up, Reading::measured(KilobitsPerSecond(2_000)));
        assert_eq!(path.goodput_down, Reading::Unknown);
    }
}
