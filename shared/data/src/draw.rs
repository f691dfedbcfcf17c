//! Random words that two machines share: ChaCha8 keyed by a purpose and its numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of random words named by a purpose and numbers. The purpose carries the algorithm's version: whoever
/// changes what is drawn, or in which order, changes the purpose.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// The key is the BLAKE3 hash of the purpose under the numbers, little endian.
    pub(crate) fn new(purpose: &str, numbers: &[u64]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        for number in numbers {
            hasher.update(&number.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// The same key's independent stream of that number, from its beginning.
    pub(crate) fn stream(&self, number: u64) -> Self {
        let mut rng = self.0.clone();
        rng.set_stream(number);
        rng.set_word_pos(0);
        Self(rng)
    }

    /// Uniform in `0..bound`, exactly: words beyond the largest multiple of `bound` are drawn again.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        debug_assert!(bound > 0, "nothing is below 0");
        let reject = (u32::MAX % bound + 1) % bound;
        loop {
            let word = self.0.next_u32();
            if word <= u32::MAX - reject {
                return word % bound;
            }
        }
    }

    /// Shuffles in place (Fisher and Yates, from the end).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = u32::try_from(last + 1).expect("a dataset has fewer than 2^32 samples");
            items.swap(last, self.below(bound) as usize);
        }
    }

    /// Uniform in (0, 1), of 53 bits. For the host's own draws only: what is computed from it need not agree
    /// between machines.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_bounds_come_out_even() {
        let mut draw = Draw::new("test", &[1]);
        let mut seen = [0u32; 3];
        for _ in 0..30_000 {
            seen[draw.below(3) as usize] += 1;
        }
        // Four standard deviations of a binomial(30000, 1/3) are 327.
        assert!(seen.iter().all(|n| n.abs_diff(10_000) < 327), "{seen:?}");
    }

    #[test]
    fn streams_and_purposes_differ() {
        let draw = Draw::new("a", &[1, 2]);
        let word = |mut d: Draw| d.below(u32::MAX);
        assert_eq!(word(draw.stream(7)), word(draw.stream(7)));
        assert_ne!(word(draw.stream(7)), word(draw.stream(8)));
        assert_ne!(word(Draw::new("b", &[1, 2])), word(draw.stream(0)));
    }
}
