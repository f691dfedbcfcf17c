//! How fast the board may send: the slower of the link that it plays and the share that the host allots. PURE.

use std::time::Duration;

use twin_shared::pacing::TokenBucket;
use twin_shared::units::BitsPerSecond;

/// Chunks are made for this rate while nothing is known of the link.
const UNKNOWN_LINK: BitsPerSecond = BitsPerSecond(4e6);

/// The pace of everything that is sent.
#[derive(Debug)]
pub struct Pace {
    played: Option<BitsPerSecond>,
    bucket: Option<(BitsPerSecond, TokenBucket)>,
}

impl Pace {
    /// The pace of a board that plays a link of this rate, or goes as fast as its own.
    #[must_use]
    pub fn new(played: Option<BitsPerSecond>) -> Self {
        let mut pace = Self { played, bucket: None };
        pace.allot(0, Duration::ZERO);
        pace
    }

    /// The host allots so many bits a second; 0 is no limit of the host's.
    pub fn allot(&mut self, bits_per_second: u64, now: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let allotted = (bits_per_second > 0).then_some(BitsPerSecond(bits_per_second as f64));
        let rate = match (self.played, allotted) {
            (Some(a), Some(b)) => Some(if a.0 < b.0 { a } else { b }),
            (rate, None) | (None, rate) => rate,
        };
        match (rate, &mut self.bucket) {
            (Some(rate), Some((known, bucket))) => {
                *known = rate;
                bucket.set_link(rate, now);
            }
            (Some(rate), None) => self.bucket = Some((rate, TokenBucket::of_link(rate, now))),
            (None, _) => self.bucket = None,
        }
    }

    /// Whether something may go now.
    ///
    /// # Errors
    /// The time to wait before asking again.
    pub fn ready(&mut self, now: Duration) -> Result<(), Duration> {
        self.bucket.as_mut().map_or(Ok(()), |(_, bucket)| bucket.ready(now))
    }

    /// So many bytes have gone.
    pub fn charge(&mut self, bytes: usize) {
        if let Some((_, bucket)) = &mut self.bucket {
            bucket.charge(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// The rate to make chunks for, bits a second; `measured` is the link's, where it is not set.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
    pub fn chunk_rate(&self, measured: Option<BitsPerSecond>) -> u64 {
        let set = self.bucket.as_ref().map(|(rate, _)| *rate);
        set.or(measured).unwrap_or(UNKNOWN_LINK).0 as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_two_rates_holds() {
        let mut pace = Pace::new(Some(BitsPerSecond(1e6)));
        assert_eq!(pace.chunk_rate(None), 1_000_000);
        pace.allot(250_000, Duration::ZERO);
        assert_eq!(pace.chunk_rate(None), 250_000);
        pace.allot(4_000_000, Duration::ZERO);
        assert_eq!(pace.chunk_rate(None), 1_000_000);
        // What was saved up at the slow rate was little; a second later all is saved up that may be.
        assert_eq!(pace.ready(Duration::from_secs(1)), Ok(()));
        // All of that, and a second's worth: a piece can go once that second is over.
        pace.charge((32 << 10) + 512 + 12_500 + 125_000 - 33_280);
        assert!(pace.ready(Duration::from_millis(1900)).is_err());
        assert_eq!(pace.ready(Duration::from_millis(2100)), Ok(()));
    }

    #[test]
    fn without_limits_nothing_waits() {
        let mut pace = Pace::new(None);
        pace.charge(usize::MAX);
        assert_eq!(pace.ready(Duration::ZERO), Ok(()));
        assert_eq!(pace.chunk_rate(Some(BitsPerSecond(2e6))), 2_000_000);
        pace.allot(1000, Duration::ZERO);
        assert_eq!(pace.chunk_rate(Some(BitsPerSecond(2e6))), 1000);
    }
}
