//! A sender's allowance: so much a second, with a burst of one second's worth. Who is too fast waits.

use std::time::{Duration, Instant};

/// The moment at which all that was taken will have been earned; no other state.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    earned_at: Instant,
}

/// An untouched allowance is worth this much time.
const BURST: Duration = Duration::from_secs(1);

impl Pace {
    /// `per_second` units; 0 counts as 1.
    pub(super) fn new(per_second: u64, now: Instant) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a rate above 2^53 is as good as any")]
        let per_second = per_second.max(1) as f64;
        Self { per_second, earned_at: now }
    }

    /// Takes `amount` units and says how long to wait before using them.
    pub(super) fn take(&mut self, amount: u32, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(f64::from(amount) / self.per_second);
        self.earned_at = self.earned_at.max(now) + cost;
        self.earned_at.saturating_duration_since(now + BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_is_free_and_the_next_waits() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        assert_eq!(pace.take(10, start), Duration::ZERO);
        assert_eq!(pace.take(5, start), Duration::from_millis(500));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.take(10, later), Duration::ZERO, "idle time never buys more than one burst");
        assert_eq!(pace.take(10, later), Duration::from_secs(1));
    }

    proptest! {
        /// Over any span, no more passes than the rate times the span plus the burst and the last piece.
        #[test]
        fn never_faster_than_its_rate(rate in 1_u64..10_000, takes in prop::collection::vec((0_u32..500, 0_u64..200), 1..60)) {
            let start = Instant::now();
            let mut pace = Pace::new(rate, start);
            let mut now = start;
            let mut passed = 0.0;
            for (amount, idle_ms) in takes {
                now += Duration::from_millis(idle_ms);
                now += pace.take(amount, now);
                passed += f64::from(amount);
                #[expect(clippy::cast_precision_loss, reason = "small")]
                let allowed = rate as f64 * (now.duration_since(start) + BURST).as_secs_f64();
                prop_assert!(passed <= allowed + 1e-3 + rate as f64 * 1e-6, "{passed} > {allowed}");
            }
        }
    }
}
