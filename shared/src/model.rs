//! The model zoo as the scheduler and the store need to know it: names, shapes, sizes, work, memory.
//!
//! The networks themselves are in `twin-learn`; a test there holds these figures against them.

use core::fmt;
use serde::{Deserialize, Serialize};

use crate::units::GhzSeconds;

/// Floating-point operations that a core of a board is taken to do at every tick of its clock, where nothing was
/// measured: what a Cortex-A of the last ten years reaches in convolutions. It makes the gigahertz that boards report
/// and the work of networks one measure.
pub const FLOPS_PER_HERTZ: f64 = 2.0;

/// An architecture of the zoo, with the widths and depths of the public RepDistiller and SimKD code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// VGG-8 with batch normalisation.
    Vgg8,
    /// ResNet-8x4.
    Resnet8x4,
    /// ResNet-14x4.
    Resnet14x4,
    /// ResNet-26x4.
    Resnet26x4,
    /// ResNet-32x4, the teacher of the paper's kind.
    Resnet32x4,
}

/// A name that is not in the zoo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown network; known: vgg8, resnet8x4, resnet14x4, resnet26x4, resnet32x4")]
pub struct UnknownArchitecture;

impl Architecture {
    /// Every network, least work first.
    pub const ALL: [Self; 5] = [Self::Vgg8, Self::Resnet8x4, Self::Resnet14x4, Self::Resnet26x4, Self::Resnet32x4];

    /// The students of the paper, least work first.
    pub const STUDENTS: [Self; 4] = [Self::Vgg8, Self::Resnet8x4, Self::Resnet14x4, Self::Resnet26x4];

    /// The name in configurations, files and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vgg8 => "vgg8",
            Self::Resnet8x4 => "resnet8x4",
            Self::Resnet14x4 => "resnet14x4",
            Self::Resnet26x4 => "resnet26x4",
            Self::Resnet32x4 => "resnet32x4",
        }
    }

    /// The name as people write it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Vgg8 => "VGG-8",
            Self::Resnet8x4 => "ResNet-8x4",
            Self::Resnet14x4 => "ResNet-14x4",
            Self::Resnet26x4 => "ResNet-26x4",
            Self::Resnet32x4 => "ResNet-32x4",
        }
    }

    /// Channels and side of the last feature map, `[channels, side, side]`, for an input of `[3, 32, 32]`.
    #[must_use]
    pub const fn feature_map(self) -> (usize, usize) {
        match self {
            Self::Vgg8 => (512, 4),
            Self::Resnet8x4 | Self::Resnet14x4 | Self::Resnet26x4 | Self::Resnet32x4 => (256, 8),
        }
    }

    /// Trainable parameters without the classifier.
    #[must_use]
    pub const fn backbone_parameters(self) -> usize {
        match self {
            Self::Vgg8 => 3_965_028 - 51_300,
            Self::Resnet8x4 => 1_233_540 - 25_700,
            Self::Resnet14x4 => 2_783_620 - 25_700,
            Self::Resnet26x4 => 5_883_780 - 25_700,
            Self::Resnet32x4 => 7_433_860 - 25_700,
        }
    }

    /// Trainable parameters with a classifier of `classes` outputs.
    #[must_use]
    pub const fn parameters(self, classes: usize) -> usize {
        self.backbone_parameters() + (self.feature_map().0 + 1) * classes
    }

    /// Trainable parameters of the SimKD projector onto a teacher's feature map of `teacher_channels`:
    /// 1×1 to t/2, 3×3, 1×1 to t, each with a norm of two numbers a channel and no bias.
    #[must_use]
    pub const fn projector_parameters(self, teacher_channels: usize) -> usize {
        let (s, t) = (self.feature_map().0, teacher_channels);
        let half = t / 2;
        s * half + half * half * 9 + half * t + 2 * half + 2 * half + 2 * t
    }

    /// Multiplications of one sample's forward pass, `[3, 32, 32]` in: its convolutions, for the rest is next to
    /// nothing.
    #[must_use]
    pub const fn multiplications(self) -> u64 {
        /// A residual network of three stages (`blocks` each, 64, 128 and 256 channels, the side halved from stage to
        /// stage) after a convolution to 32 channels. Each stage costs the same: half the side, twice the channels.
        const fn resnet(blocks: u64) -> u64 {
            let first = 32 * 32 * 9 * 3 * 32;
            let entry = 32 * 32 * (9 * (32 * 64 + 64 * 64) + 32 * 64);
            let block = 32 * 32 * 9 * 2 * 64 * 64;
            first + 3 * (entry + (blocks - 1) * block)
        }
        match self {
            Self::Vgg8 => {
                9 * (32 * 32 * 3 * 64 + 16 * 16 * 64 * 128 + 8 * 8 * 128 * 256 + 4 * 4 * (256 * 512 + 512 * 512))
            }
            Self::Resnet8x4 => resnet(1),
            Self::Resnet14x4 => resnet(2),
            Self::Resnet26x4 => resnet(4),
            Self::Resnet32x4 => resnet(5),
        }
    }

    /// Work of training on one sample: a forward pass and two backward, in GHz·s as [`FLOPS_PER_HERTZ`] has it.
    #[must_use]
    pub const fn training_work(self) -> GhzSeconds {
        GhzSeconds(3.0 * 2.0 * self.multiplications() as f64 / (FLOPS_PER_HERTZ * 1e9))
    }

    /// Work of a training epoch relative to VGG-8's, in the paper's measure (its μ over VGG-8's μ; the teacher's
    /// extended by its depth).
    #[must_use]
    pub const fn relative_work(self) -> f64 {
        match self {
            Self::Vgg8 => 1.0,
            Self::Resnet8x4 => 8.75 / 6.83,
            Self::Resnet14x4 => 12.27 / 6.83,
            Self::Resnet26x4 => 18.96 / 6.83,
            Self::Resnet32x4 => 22.2 / 6.83,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl core::str::FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(text: &str) -> Result<Self, UnknownArchitecture> {
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or(UnknownArchitecture)
    }
}

/// Where a student's epoch is trained; `x` of Eq. (6) is 1 for [`Site::Local`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Site {
    /// On the board.
    Local,
    /// On the twin host, over the board's twin.
    Host,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Local => "local",
            Self::Host => "host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projectors_have_the_published_sizes() {
        assert_eq!(Architecture::Resnet8x4.projector_parameters(256), 214_016);
        assert_eq!(Architecture::Vgg8.projector_parameters(256), 246_784);
    }

    #[test]
    fn multiplications_are_those_of_the_layers() {
        let millions = Architecture::ALL.map(|network| network.multiplications() / 1_000_000);
        assert_eq!(millions, [96, 177, 403, 856, 1_083]);
    }

    #[test]
    fn a_name_reads_back() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.name().parse(), Ok(architecture));
        }
        assert!("resnet50".parse::<Architecture>().is_err());
    }
}
