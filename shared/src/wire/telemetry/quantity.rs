//! Fixed-point quantities of the wire, each convertible to the unit that the model computes in.

use core::fmt;
use serde::{Deserialize, Serialize};

use crate::units::{BitsPerSecond, Gigahertz, Seconds};

/// The integer nearest to a non-negative number; what is above `u32` or below 0 stays at its end, NaN is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn nearest(number: f64) -> u32 {
    (number + 0.5) as u32
}

/// A processor's frequency, to 1 MHz and at most 65 GHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Megahertz(pub u16);

impl From<Gigahertz> for Megahertz {
    fn from(frequency: Gigahertz) -> Self {
        Self(u16::try_from(nearest(frequency.0 * 1e3)).unwrap_or(u16::MAX))
    }
}

impl From<Megahertz> for Gigahertz {
    fn from(frequency: Megahertz) -> Self {
        Self(f64::from(frequency.0) / 1e3)
    }
}

/// A share between 0 and 1, in ten-thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Fraction(u16);

/// A share above 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} ten-thousandths are more than the whole")]
pub struct MoreThanWhole(u16);

impl Fraction {
    /// All of it.
    pub const WHOLE: Self = Self(10_000);

    /// The share nearest to this number; below 0 is nothing, above 1 all of it, NaN nothing.
    #[must_use]
    pub fn of(share: f64) -> Self {
        Self(u16::try_from(nearest(share * 1e4)).map_or(10_000, |steps| steps.min(10_000)))
    }

    /// The share as a number.
    #[must_use]
    pub fn value(self) -> f64 {
        f64::from(self.0) / 1e4
    }
}

impl TryFrom<u16> for Fraction {
    type Error = MoreThanWhole;

    fn try_from(steps: u16) -> Result<Self, MoreThanWhole> {
        if steps <= 10_000 { Ok(Self(steps)) } else { Err(MoreThanWhole(steps)) }
    }
}

impl From<Fraction> for u16 {
    fn from(share: Fraction) -> Self {
        share.0
    }
}

/// A temperature in hundredths of a degree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CentiCelsius(pub i16);

impl CentiCelsius {
    /// Degrees Celsius.
    #[must_use]
    pub fn degrees(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

/// A radio power relative to a milliwatt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dbm(pub i8);

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kibibytes(pub u32);

impl Kibibytes {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64 * 1024
    }
}

/// An amount of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mebibytes(pub u32);

impl Mebibytes {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64 * 1024 * 1024
    }
}

/// A rate of transmission, to 1 kbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KilobitsPerSecond(pub u32);

impl From<BitsPerSecond> for KilobitsPerSecond {
    fn from(rate: BitsPerSecond) -> Self {
        Self(nearest(rate.0 / 1e3))
    }
}

impl From<KilobitsPerSecond> for BitsPerSecond {
    fn from(rate: KilobitsPerSecond) -> Self {
        Self(f64::from(rate.0) * 1e3)
    }
}

/// A short duration, at most 71 minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Microseconds(pub u32);

impl From<Microseconds> for Seconds {
    fn from(duration: Microseconds) -> Self {
        Self(f64::from(duration.0) / 1e6)
    }
}

impl From<Seconds> for Microseconds {
    fn from(duration: Seconds) -> Self {
        Self(nearest(duration.0 * 1e6))
    }
}

macro_rules! display {
    ($($name:ident => $symbol:literal),+ $(,)?) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", self.0, $symbol)
            }
        })+
    };
}

display!(Megahertz => "MHz", Dbm => "dBm", Kibibytes => "KiB", Mebibytes => "MiB", KilobitsPerSecond => "kbit/s",
         Microseconds => "µs");
