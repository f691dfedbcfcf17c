//! How images are normalised, and what sets may pool to agree on it.

use crate::error::DataError;

/// Mean and standard deviation a channel, of pixels scaled to 0..1. Images are normalised by them before a network
/// sees them.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Normalisation {
    /// Means of red, green and blue.
    pub mean: [f32; 3],
    /// Standard deviations, positive.
    pub deviation: [f32; 3],
}

impl Normalisation {
    /// The same numbers, if networks can use them.
    ///
    /// # Errors
    /// When a number is not finite or a deviation not above 1e-6.
    pub fn checked(self) -> Result<Self, DataError> {
        for channel in 0..3 {
            let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
            if !mean.is_finite() || !deviation.is_finite() || deviation <= 1e-6 {
                return Err(DataError::Normalisation { channel, mean, deviation });
            }
        }
        Ok(self)
    }
}

/// Count, sum and square sum of pixels, a channel: what twins may pool to agree on a normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PixelStatistics {
    /// Pixels a channel.
    pub count: u64,
    /// Sums of the bytes.
    pub sum: [u64; 3],
    /// Sums of the squared bytes.
    pub square_sum: [u64; 3],
}

impl PixelStatistics {
    /// Of two disjoint sets together.
    #[must_use]
    pub fn pooled(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            sum: std::array::from_fn(|c| self.sum[c] + other.sum[c]),
            square_sum: std::array::from_fn(|c| self.square_sum[c] + other.square_sum[c]),
        }
    }

    /// Mean and standard deviation; a channel without variation gets a deviation of 1/255.
    #[must_use]
    pub fn normalisation(&self) -> Normalisation {
        let count = (self.count.max(1)) as f64;
        let mean = self.sum.map(|sum| sum as f64 / count);
        let deviation = std::array::from_fn(|c| {
            let variance = self.square_sum[c] as f64 / count - mean[c] * mean[c];
            (variance.max(1.0).sqrt() / 255.0) as f32
        });
        Normalisation { mean: mean.map(|m| (m / 255.0) as f32), deviation }
    }
}
