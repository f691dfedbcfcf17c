//! Token buckets: what makes a share of bandwidth real. Over any time `t` at most `r t + burst` leaves.

use core::time::Duration;

use crate::transfer::chunk_for;
use crate::units::BitsPerSecond;

/// Bytes that envelope, seal and header add to a chunk at most.
const ENVELOPE: u32 = 512;

/// A token bucket. The clock is the caller's.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    bytes_per_second: f64,
    burst: f64,
    /// What must be there before a piece of unknown length may pass.
    piece: f64,
    tokens: f64,
    at: Duration,
}

impl TokenBucket {
    /// A full bucket. The burst is the largest piece that can ever pass, so it is at least one packet; a rate that
    /// is no positive number lets nothing pass but the burst.
    #[must_use]
    pub fn new(rate: BitsPerSecond, burst_bytes: u32, now: Duration) -> Self {
        let burst = f64::from(burst_bytes.max(1));
        Self { bytes_per_second: per_second(rate), burst, piece: 0.0, tokens: burst, at: now }
    }

    /// The bucket of a link that carries blobs at this rate: a piece is a chunk as [`chunk_for`] cuts it, and the
    /// burst one piece and a tenth of a second of the rate, so that a sender who wakes late loses nothing.
    #[must_use]
    pub fn of_link(rate: BitsPerSecond, now: Duration) -> Self {
        let mut bucket = Self::new(rate, 1, now);
        bucket.set_link(rate, now);
        bucket.tokens = bucket.burst;
        bucket
    }

    /// The link has this rate from now on. What was saved up at the old rate stays, as far as the new burst holds it;
    /// a debt stays too: changing the rate gives nothing away.
    pub fn set_link(&mut self, rate: BitsPerSecond, now: Duration) {
        self.fill(now);
        self.bytes_per_second = per_second(rate);
        self.piece = f64::from(chunk_for(whole(rate.0)) + ENVELOPE);
        self.burst = self.piece + self.bytes_per_second / 10.0;
        self.tokens = self.tokens.min(self.burst);
    }

    /// Lets a piece pass, or says how long to wait for it. A piece larger than the burst passes when the bucket is
    /// full and leaves a debt behind, so that the rate holds for it too.
    ///
    /// # Errors
    /// The time to wait before asking again; `Duration::MAX` at rate 0.
    pub fn take(&mut self, bytes: u32, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        let bytes = f64::from(bytes);
        self.enough(bytes.min(self.burst))?;
        self.tokens -= bytes;
        Ok(())
    }

    fn enough(&self, needed: f64) -> Result<(), Duration> {
        if self.tokens >= needed {
            return Ok(());
        }
        let wait = (needed - self.tokens) / self.bytes_per_second;
        // A nanosecond more than the quotient, so that rounding never wakes the caller too early for ever.
        Err(Duration::try_from_secs_f64(wait)
            .map_or(Duration::MAX, |wait| wait.saturating_add(Duration::from_nanos(1))))
    }

    /// Whether a piece whose length is not known yet may pass now. What passed is then charged.
    ///
    /// # Errors
    /// The time to wait before asking again; `Duration::MAX` at rate 0.
    pub fn ready(&mut self, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        self.enough(self.piece)
    }

    /// Charges a piece that has passed; beyond what is there (a chunk cut for a faster link) it is a debt.
    pub fn charge(&mut self, bytes: u32) {
        self.tokens -= f64::from(bytes);
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.bytes_per_second).min(self.burst);
        self.at = self.at.max(now);
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn whole(number: f64) -> u64 {
    number as u64
}

fn per_second(rate: BitsPerSecond) -> f64 {
    if rate.is_positive_finite() { rate.0 / 8.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rate_of_zero_passes_the_burst_and_no_more() {
        let mut bucket = TokenBucket::new(BitsPerSecond(0.0), 100, Duration::ZERO);
        assert_eq!(bucket.take(100, Duration::ZERO), Ok(()));
        assert_eq!(bucket.take(1, Duration::from_secs(1000)), Err(Duration::MAX));
    }

    #[test]
    fn a_debt_is_paid_before_the_next_piece() {
        let mut bucket = TokenBucket::new(BitsPerSecond(800.0), 100, Duration::ZERO);
        assert_eq!(bucket.take(300, Duration::ZERO), Ok(()));
        assert!(bucket.take(1, Duration::from_secs(1)).is_err());
        assert_eq!(bucket.take(1, Duration::from_millis(2010)), Ok(()));
    }

    #[test]
    fn a_new_rate_gives_nothing_away() {
        let (fast, slow) = (BitsPerSecond(80e6), BitsPerSecond(800e3));
        let mut bucket = TokenBucket::of_link(fast, Duration::ZERO);
        // A bucket that is set again and again is no fuller than one that is left alone.
        let mut passed = 0;
        while bucket.ready(Duration::ZERO).is_ok() {
            bucket.charge(100_000);
            bucket.set_link(fast, Duration::ZERO);
            passed += 100_000;
        }
        assert!(passed <= (256 << 10) + 512 + 1_000_000, "{passed}");
        bucket.set_link(slow, Duration::from_secs(60));
        assert!(bucket.tokens <= f64::from(32 << 10) + 512.0 + 10_000.0, "{bucket:?}");
        bucket.charge(1 << 20);
        bucket.set_link(fast, Duration::from_secs(60));
        assert!(bucket.ready(Duration::from_secs(60)).is_err(), "a debt stays");
    }

    proptest! {
        /// Whoever waits as told sends at most `r t + burst` at any time, and 95 % of `r t` over the whole.
        #[test]
        fn the_rate_is_never_exceeded_and_nearly_reached(
            rate in 1e4f64..1e9,
            sizes in proptest::collection::vec(1u32..4000, 200..400),
        ) {
            let burst = 4000;
            let mut bucket = TokenBucket::new(BitsPerSecond(rate), burst, Duration::ZERO);
            let (mut now, mut sent) = (Duration::ZERO, 0.0);
            for size in sizes {
                while let Err(wait) = bucket.take(size, now) {
                    now += wait;
                }
                sent += f64::from(size);
                let limit = rate / 8.0 * now.as_secs_f64() + f64::from(burst);
                prop_assert!(sent <= limit * (1.0 + 1e-9) + 1e-3, "{sent} > {limit}");
            }
            prop_assert!(sent >= 0.95 * (rate / 8.0 * now.as_secs_f64()));
        }
    }
}
