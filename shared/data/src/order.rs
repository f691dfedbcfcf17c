//! The order of an epoch, and its mini-batches: what board and twin must agree on.

use std::ops::Range;

use crate::draw::Draw;

/// The order of an epoch: a permutation of `indices` that depends on (seed, epoch) and their number alone.
#[must_use]
pub fn epoch_order(seed: u64, epoch: u32, indices: &[u32]) -> Vec<u32> {
    let mut order = indices.to_vec();
    Draw::new("twinstill epoch order v1", &[seed, epoch.into()]).shuffle(&mut order);
    order
}

/// Number of mini-batches of at most `batch` samples.
#[must_use]
pub const fn batch_count(samples: usize, batch: u32) -> usize {
    if batch == 0 { 0 } else { samples.div_ceil(batch as usize) }
}

/// The positions of mini-batch `number` of `count` in an order of `samples`. Sizes differ by one at most: a last
/// batch of a few samples would give batch norm, and a full step, to those few.
#[must_use]
pub const fn batch_range(samples: usize, count: usize, number: usize) -> Range<usize> {
    number * samples / count..(number + 1) * samples / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_algorithm_of_version_1_is_pinned() {
        let indices: Vec<u32> = (0..12).collect();
        assert_eq!(epoch_order(7, 3, &indices), GOLDEN);
    }
    const GOLDEN: [u32; 12] = [7, 0, 9, 1, 6, 4, 10, 11, 2, 8, 3, 5];

    proptest! {
        #[test]
        fn an_order_is_a_permutation(seed: u64, epoch: u32, n in 0u32..300) {
            let indices: Vec<u32> = (0..n).map(|i| i * 3 + 1).collect();
            let mut order = epoch_order(seed, epoch, &indices);
            order.sort_unstable();
            prop_assert_eq!(order, indices);
        }

        #[test]
        fn batches_cover_everything_once_and_evenly(samples in 1usize..5000, batch in 1u32..300) {
            let count = batch_count(samples, batch);
            let mut next = 0;
            for number in 0..count {
                let range = batch_range(samples, count, number);
                prop_assert_eq!(range.start, next);
                prop_assert!(range.len() <= batch as usize && range.len() >= samples / count);
                next = range.end;
            }
            prop_assert_eq!(next, samples);
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let indices: Vec<u32> = (0..50).collect();
        assert_ne!(epoch_order(1, 0, &indices), epoch_order(1, 1, &indices));
        assert_ne!(epoch_order(1, 0, &indices), epoch_order(2, 0, &indices));
    }
}
