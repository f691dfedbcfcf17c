//! How long to wait before the next attempt: longer each time, never in step with other boards, without end. PURE.

use std::time::Duration;

use rand::{Rng, RngExt};

const SHORTEST: Duration = Duration::from_secs(1);
/// Below the half minute within which a broker that is back has all its boards again, however long it was away.
const LONGEST: Duration = Duration::from_secs(24);

/// A connection that held for so long was a good one.
const GOOD: Duration = Duration::from_secs(30);

/// Counts failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The time to wait after an attempt that failed, or a connection that held for `held`: a random part of a time
    /// that doubles from one second up to [`LONGEST`], at least half of it.
    pub fn next(&mut self, held: Duration, random: &mut impl Rng) -> Duration {
        if held >= GOOD {
            self.failures = 0;
        }
        let longest = SHORTEST.saturating_mul(1 << self.failures.min(5)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(random.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_double_up_to_their_bound_and_start_anew_after_a_good_connection(good in 0usize..40) {
            let (mut backoff, mut random) = (Backoff::default(), rand::rng());
            let mut longest = SHORTEST;
            for attempt in 0..40 {
                let held = if attempt == good { GOOD } else { Duration::ZERO };
                if attempt == good {
                    longest = SHORTEST;
                }
                let wait = backoff.next(held, &mut random);
                prop_assert!(longest / 2 <= wait && wait <= longest, "{attempt}: {wait:?}");
                longest = (longest * 2).min(LONGEST);
            }
        }
    }
}
