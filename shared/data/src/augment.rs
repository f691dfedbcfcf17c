//! Augmentation as a pure function of (seed, epoch, sample index): a random crop out of the zero-padded image, and
//! a mirror image half of the time. A board and its twin augment alike without exchanging anything.

use twin_shared::plan::Augmentation;

use crate::draw::Draw;
use crate::image_set::{IMAGE_BYTES, Image, SIDE};

/// The augmentation of one epoch; samples are drawn independently of each other, so any subset in any order gives
/// the same images.
pub struct Augmenter {
    draw: Draw,
    augmentation: Augmentation,
}

/// What happens to one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    /// Rows the content moves up, within ± padding.
    up: i32,
    /// Columns the content moves left.
    left: i32,
    /// Whether it is mirrored after that.
    mirrored: bool,
}

impl Augmenter {
    /// Of an epoch.
    #[must_use]
    pub fn new(seed: u64, epoch: u32, augmentation: Augmentation) -> Self {
        Self { draw: Draw::new("twinstill augmentation v1", &[seed, epoch.into()]), augmentation }
    }

    fn change(&self, index: u32) -> Change {
        let mut draw = self.draw.stream(index.into());
        let padding = i32::from(self.augmentation.crop_padding);
        // Always three words, so that one switch never changes what another draws.
        let spread = 2 * u32::from(self.augmentation.crop_padding) + 1;
        let offset = |word: u32| i32::try_from(word).expect("at most 510") - padding;
        Change {
            up: offset(draw.below(spread)),
            left: offset(draw.below(spread)),
            mirrored: draw.below(2) == 1 && self.augmentation.flip,
        }
    }

    /// Writes the augmented image of sample `index`.
    pub fn apply(&self, index: u32, image: &Image, out: &mut Image) {
        let change = self.change(index);
        if change == (Change { up: 0, left: 0, mirrored: false }) {
            out.copy_from_slice(image);
            return;
        }
        let side = SIDE as i32;
        // Columns of the result that show content, and where they come from.
        let first = (-change.left).clamp(0, side);
        let last = (side - change.left).clamp(0, side);
        for plane in 0..3 {
            for row in 0..side {
                let at = (plane * SIDE * SIDE) + row as usize * SIDE;
                let target = &mut out[at..at + SIDE];
                let from = row + change.up;
                if !(0..side).contains(&from) || first >= last {
                    target.fill(0);
                    continue;
                }
                let source = plane * SIDE * SIDE + from as usize * SIDE;
                target[..first as usize].fill(0);
                target[last as usize..].fill(0);
                let start = source + (first + change.left) as usize;
                target[first as usize..last as usize].copy_from_slice(&image[start..start + (last - first) as usize]);
                if change.mirrored {
                    target.reverse();
                }
            }
        }
    }

    /// The augmented image of sample `index`.
    #[must_use]
    pub fn image(&self, index: u32, image: &Image) -> Box<Image> {
        let mut out = Box::new([0; IMAGE_BYTES]);
        self.apply(index, image, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CIFAR: Augmentation = Augmentation { crop_padding: 4, flip: true };

    fn gradient() -> Box<Image> {
        Box::new(std::array::from_fn(|i| (i * 7 % 251) as u8 + 1))
    }

    #[test]
    fn the_algorithm_of_version_1_is_pinned() {
        let augmenter = Augmenter::new(42, 5, CIFAR);
        let mut hasher = blake3::Hasher::new();
        for index in 0..64 {
            hasher.update(augmenter.image(index, &gradient()).as_slice());
        }
        assert_eq!(hasher.finalize().to_hex().as_str(), GOLDEN);
    }
    const GOLDEN: &str = "c6fce8b91f472f90f8c95b4c829f38b62c0510e08147746b2fe185bdc39cbeb7";

    #[test]
    fn nothing_asked_nothing_done() {
        let augmenter = Augmenter::new(1, 2, Augmentation { crop_padding: 0, flip: false });
        for index in 0..20 {
            assert_eq!(augmenter.image(index, &gradient()), gradient());
        }
    }

    #[test]
    fn every_shift_and_both_sides_occur() {
        let augmenter = Augmenter::new(3, 0, CIFAR);
        let changes: Vec<_> = (0..2000).map(|i| augmenter.change(i)).collect();
        for shift in -4..=4 {
            assert!(changes.iter().any(|c| c.up == shift));
            assert!(changes.iter().any(|c| c.left == shift));
        }
        let mirrored = changes.iter().filter(|c| c.mirrored).count();
        // Four standard deviations of a binomial(2000, 1/2) are 90.
        assert!(mirrored.abs_diff(1000) < 90, "{mirrored}");
    }

    proptest! {
        /// The plain definition: pad, cut out, mirror.
        #[test]
        fn a_crop_is_a_window_of_the_padded_image(seed: u64, epoch: u32, index: u32, padding in 0u8..40, flip: bool) {
            let augmenter = Augmenter::new(seed, epoch, Augmentation { crop_padding: padding, flip });
            let change = augmenter.change(index);
            let image = gradient();
            let out = augmenter.image(index, &image);
            let side = SIDE as i32;
            for plane in 0..3 {
                for row in 0..side {
                    for column in 0..side {
                        let x = if change.mirrored { side - 1 - column } else { column } + change.left;
                        let y = row + change.up;
                        let inside = (0..side).contains(&x) && (0..side).contains(&y);
                        let expected = if inside { image[plane * 1024 + (y * side + x) as usize] } else { 0 };
                        prop_assert_eq!(out[plane * 1024 + (row * side + column) as usize], expected);
                    }
                }
            }
        }
    }
}
