//! Physical quantities as types, so that a unit cannot be mistaken: a frequency is not a bandwidth in gigahertz,
//! and a duration is not a count of cycles.

use core::ops::{Add, AddAssign, Div, Mul, Sub};
use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $symbol:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub f64);

        impl $name {
            /// The bare number, in this type's unit.
            #[inline]
            #[must_use]
            pub const fn value(self) -> f64 {
                self.0
            }

            /// Whether the value is a number above zero and below infinity.
            #[must_use]
            pub fn is_positive_finite(self) -> bool {
                self.0 > 0.0 && self.0.is_finite()
            }
        }

        impl Add for $name {
            type Output = Self;
            #[inline]
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl AddAssign for $name {
            #[inline]
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }

        impl Sub for $name {
            type Output = Self;
            #[inline]
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }

        impl Mul<f64> for $name {
            type Output = Self;
            #[inline]
            fn mul(self, factor: f64) -> Self {
                Self(self.0 * factor)
            }
        }

        /// The ratio of two quantities of one kind.
        impl Div for $name {
            type Output = f64;
            #[inline]
            fn div(self, other: Self) -> f64 {
                self.0 / other.0
            }
        }

        impl core::iter::Sum for $name {
            fn sum<I: Iterator<Item = Self>>(values: I) -> Self {
                values.fold(Self(0.0), Add::add)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)?;
                f.write_str(concat!(" ", $symbol))
            }
        }
    };
}

unit!(
    /// Bandwidth of a radio channel.
    Hertz, "Hz");
unit!(
    /// Compute: a processor's frequency, or the share of one.
    Gigahertz, "GHz");
unit!(
    /// A duration.
    Seconds, "s");
unit!(
    /// A quantity of information.
    Bits, "bit");
unit!(
    /// A rate of transmission.
    BitsPerSecond, "bit/s");
unit!(
    /// A power.
    Watts, "W");
unit!(
    /// A ratio on the logarithmic scale, 10 log10.
    Decibels, "dB");
unit!(
    /// Work: what a processor of one gigahertz does in a second.
    GhzSeconds, "GHz·s");
unit!(
    /// Spectral efficiency of a link.
    BitsPerSecondPerHertz, "bit/s/Hz");

impl Div<Gigahertz> for GhzSeconds {
    type Output = Seconds;
    #[inline]
    fn div(self, compute: Gigahertz) -> Seconds {
        Seconds(self.0 / compute.0)
    }
}

impl Mul<Seconds> for Gigahertz {
    type Output = GhzSeconds;
    #[inline]
    fn mul(self, time: Seconds) -> GhzSeconds {
        GhzSeconds(self.0 * time.0)
    }
}

impl Div<BitsPerSecond> for Bits {
    type Output = Seconds;
    #[inline]
    fn div(self, rate: BitsPerSecond) -> Seconds {
        Seconds(self.0 / rate.0)
    }
}

/// Eq. (1): `r = b e`.
impl Mul<BitsPerSecondPerHertz> for Hertz {
    type Output = BitsPerSecond;
    #[inline]
    fn mul(self, efficiency: BitsPerSecondPerHertz) -> BitsPerSecond {
        BitsPerSecond(self.0 * efficiency.0)
    }
}

impl Bits {
    /// The quantity of a number of bytes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bits, a petabyte")]
    pub const fn of_bytes(bytes: u64) -> Self {
        Self(bytes as f64 * 8.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_over_compute_is_time() {
        assert_eq!(GhzSeconds(8.75) / Gigahertz(2.5), Seconds(3.5));
        assert_eq!(Gigahertz(2.5) * Seconds(3.5), GhzSeconds(8.75));
    }

    #[test]
    fn bandwidth_times_efficiency_is_rate() {
        assert_eq!(Hertz(2e6) * BitsPerSecondPerHertz(4.0), BitsPerSecond(8e6));
        assert_eq!(Bits::of_bytes(1_000_000) / BitsPerSecond(8e6), Seconds(1.0));
    }

    #[test]
    fn only_positive_finite_values_pass() {
        assert!(Gigahertz(0.1).is_positive_finite());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(!Gigahertz(bad).is_positive_finite(), "{bad}");
        }
    }

    #[test]
    fn a_quantity_prints_its_unit() {
        assert_eq!(GhzSeconds(6.83).to_string(), "6.83 GHz·s");
    }
}
