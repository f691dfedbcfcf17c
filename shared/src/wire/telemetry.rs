//! One sample of a board's condition, as it crosses the network every few seconds.
//!
//! Every figure is a [`Reading`]: known, with its source and age, or unknown. Nothing is ever guessed silently.
//! Numbers are fixed-point integers, because a varint of a small integer is shorter than a float and the
//! sensors' own resolution is coarser than these steps. The largest sample takes [`MAX_BYTES`] bytes.

pub mod batch;
pub mod quantity;
#[cfg(all(test, feature = "std"))]
mod tests;

use core::fmt;
use core::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::quantity::{CentiCelsius, Dbm, Fraction, Kibibytes, KilobitsPerSecond, Mebibytes, Megahertz, Microseconds};
use crate::id::RoundId;
use crate::units::Gigahertz;

/// Bytes of the largest sample before it is put into an envelope and sealed (54 bytes more).
pub const MAX_BYTES: usize = 156;

/// Cores whose frequencies a sample names; boards have no more, and a larger machine's others say little.
pub const MAX_CORES: usize = 8;

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Read from the kernel's own counter or sensor, or timed by us.
    Measured,
    /// Computed from measured figures.
    Derived,
    /// A constant that stands in for what this board cannot tell.
    Assumed,
    /// Set by configuration on a board that plays another.
    Emulated,
}

impl Source {
    const ALL: [Self; 4] = [Self::Measured, Self::Derived, Self::Assumed, Self::Emulated];

    /// The name in tables and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Derived => "derived",
            Self::Assumed => "assumed",
            Self::Emulated => "emulated",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Measured => 1,
            Self::Derived => 2,
            Self::Assumed => 3,
            Self::Emulated => 4,
        }
    }
}

/// How old a figure is, rounded up to one of 31 steps, so that it is never called fresher than it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Age(u8);

impl Age {
    const STEPS: [u32; 31] = [
        0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900, 1_800, 3_600, 7_200, 14_400,
        28_800, 43_200, 86_400, 172_800, 604_800, 2_592_000, 31_536_000,
    ];

    /// Taken for this very sample.
    pub const FRESH: Self = Self(0);

    /// The age of a figure taken this many whole seconds ago; beyond a year it stays a year.
    #[must_use]
    pub fn of_seconds(seconds: u32) -> Self {
        let step = Self::STEPS.partition_point(|&upper| upper < seconds).min(Self::STEPS.len() - 1);
        Self(u8::try_from(step).expect("there are 31 steps"))
    }

    /// The upper end of this age's step, in seconds.
    #[must_use]
    pub fn seconds(self) -> u32 {
        Self::STEPS[usize::from(self.0)]
    }
}

/// A figure, or that the board cannot tell.
///
/// On the wire: one byte of source (upper three bits) and age (lower five), 0 for unknown, then the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading<T> {
    /// The kernel does not say, or said nonsense.
    #[default]
    Unknown,
    /// A figure.
    Known {
        /// The figure itself.
        value: T,
        /// Where it comes from.
        source: Source,
        /// How old it is.
        age: Age,
    },
}

impl<T> Reading<T> {
    /// A figure that was read just now.
    #[must_use]
    pub const fn measured(value: T) -> Self {
        Self::fresh(value, Source::Measured)
    }

    /// A figure of this moment.
    #[must_use]
    pub const fn fresh(value: T, source: Source) -> Self {
        Self::Known { value, source, age: Age::FRESH }
    }

    /// A figure read just now, if there is one.
    #[must_use]
    pub fn measured_or_unknown(value: Option<T>) -> Self {
        value.map_or(Self::Unknown, Self::measured)
    }

    /// The figure, if known.
    #[must_use]
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Unknown => None,
            Self::Known { value, .. } => Some(value),
        }
    }

    /// Where it comes from; nowhere if unknown.
    #[must_use]
    pub const fn source(&self) -> Option<Source> {
        match self {
            Self::Unknown => None,
            Self::Known { source, .. } => Some(*source),
        }
    }

    /// The source's name, `unknown` included.
    #[must_use]
    pub fn source_name(&self) -> &'static str {
        self.source().map_or("unknown", Source::name)
    }

    /// How old the figure is, if known.
    #[must_use]
    pub const fn age(&self) -> Option<Age> {
        match self {
            Self::Unknown => None,
            Self::Known { age, .. } => Some(*age),
        }
    }

    /// The same reading in another form: the source stays, since changing a unit derives nothing.
    #[must_use]
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Reading<U> {
        match self {
            Self::Unknown => Reading::Unknown,
            Self::Known { value, source, age } => Reading::Known { value: convert(value), source, age },
        }
    }
}

impl<T: Serialize> Serialize for Reading<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unknown => {
                let mut tuple = serializer.serialize_tuple(1)?;
                tuple.serialize_element(&0_u8)?;
                tuple.end()
            }
            Self::Known { value, source, age } => {
                let mut tuple = serializer.serialize_tuple(2)?;
                tuple.serialize_element(&(source.code() << 5 | age.0))?;
                tuple.serialize_element(value)?;
                tuple.end()
            }
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Reading<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Reading<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte of source and age, and a value unless it is 0")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Reading<T>, A::Error> {
                let head: u8 = parts.next_element()?.ok_or_else(|| A::Error::custom("a reading without its head"))?;
                if head == 0 {
                    return Ok(Reading::Unknown);
                }
                let source = Source::ALL.into_iter().find(|source| source.code() == head >> 5);
                let age = Age(head & 0x1f);
                match source {
                    Some(source) if usize::from(age.0) < Age::STEPS.len() => {
                        let value =
                            parts.next_element()?.ok_or_else(|| A::Error::custom("a reading without its value"))?;
                        Ok(Reading::Known { value, source, age })
                    }
                    _ => Err(A::Error::custom("a reading of unknown source or age")),
                }
            }
        }

        deserializer.deserialize_tuple(2, Parts(PhantomData))
    }
}

/// Frequencies of the first [`MAX_CORES`] cores, in the kernel's order.
pub type CoreFrequencies = heapless::Vec<Megahertz, MAX_CORES>;

/// The mean of these cores' frequencies; `None` for no cores.
#[must_use]
pub fn mean_frequency(cores: &[Megahertz]) -> Option<Gigahertz> {
    let count = u32::try_from(cores.len()).ok().filter(|&count| count > 0)?;
    let total: u32 = cores.iter().map(|core| u32::from(core.0)).sum();
    Some(Gigahertz(f64::from(total) / f64::from(count) / 1e3))
}

/// The processor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cpu {
    /// Cores that are online.
    pub cores: Reading<u16>,
    /// Each core's frequency now.
    pub current: Reading<CoreFrequencies>,
    /// Each core's highest frequency.
    pub maximum: Reading<CoreFrequencies>,
    /// Share of all cores' time spent working since the last sample.
    pub load: Reading<Fraction>,
}

impl Cpu {
    /// The mean frequency of the named cores now.
    #[must_use]
    pub fn current_mean(&self) -> Reading<Gigahertz> {
        mean_of(&self.current)
    }

    /// The mean of the named cores' highest frequencies.
    #[must_use]
    pub fn maximum_mean(&self) -> Reading<Gigahertz> {
        mean_of(&self.maximum)
    }
}

fn mean_of(cores: &Reading<CoreFrequencies>) -> Reading<Gigahertz> {
    match cores {
        Reading::Unknown => Reading::Unknown,
        Reading::Known { value, source, age } => {
            mean_frequency(value).map_or(Reading::Unknown, |value| Reading::Known { value, source: *source, age: *age })
        }
    }
}

/// Heat and power supply.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// The processor's temperature.
    pub temperature: Reading<CentiCelsius>,
    /// Whether the firmware or the kernel holds the frequency down for heat or power.
    pub throttled: Reading<bool>,
    /// Whether the supply voltage is too low.
    pub under_voltage: Reading<bool>,
}

/// Memory and storage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Room {
    /// Memory that the kernel manages.
    pub memory_total: Reading<Kibibytes>,
    /// Memory that programs could get without swapping.
    pub memory_available: Reading<Kibibytes>,
    /// Free space where the agent keeps its data.
    pub disk_free: Reading<Mebibytes>,
}

/// A Wi-Fi station's view of its access point.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wifi {
    /// Strength of the received signal.
    pub signal: Reading<Dbm>,
    /// Noise in the channel.
    pub noise: Reading<Dbm>,
    /// Bitrate of the last frame sent.
    pub sent_rate: Reading<KilobitsPerSecond>,
    /// Bitrate of the last frame received.
    pub received_rate: Reading<KilobitsPerSecond>,
    /// Frames sent since the association.
    pub sent: Reading<u32>,
    /// Frames that had to be sent again since the association.
    pub retries: Reading<u32>,
    /// Frames given up since the association.
    pub failures: Reading<u32>,
    /// Width of the channel in MHz.
    pub channel_width: Reading<u16>,
}

/// A cable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wired {
    /// Negotiated speed.
    pub speed: Reading<KilobitsPerSecond>,
    /// Whether there is a partner at the other end.
    pub carrier: Reading<bool>,
    /// Bytes sent since the interface came up.
    pub sent_bytes: Reading<u64>,
    /// Bytes received since the interface came up.
    pub received_bytes: Reading<u64>,
}

/// A link that the agent itself slows down to play another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EmulatedLink {
    /// Rate from the board.
    pub up: Reading<KilobitsPerSecond>,
    /// Rate to the board.
    pub down: Reading<KilobitsPerSecond>,
}

/// How the board reaches the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Link {
    /// No interface carries a default route, or its kind is none of these.
    #[default]
    Unknown,
    /// By radio.
    Wifi(Wifi),
    /// By cable.
    Wired(Wired),
    /// By a link that is slowed on purpose.
    Emulated(EmulatedLink),
}

/// What the path to the host was measured to do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Path {
    /// Median round trip of the recent pings.
    pub round_trip_p50: Reading<Microseconds>,
    /// 95th percentile of the recent pings.
    pub round_trip_p95: Reading<Microseconds>,
    /// Payload rate of the last transfer from the board.
    pub goodput_up: Reading<KilobitsPerSecond>,
    /// Payload rate of the last transfer to the board.
    pub goodput_down: Reading<KilobitsPerSecond>,
}

/// What the board is about; a hint for people, the commands' own reports decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Activity {
    /// Nothing to do.
    #[default]
    Idle,
    /// Labels or a student state are arriving.
    Receiving,
    /// An epoch is being trained.
    Training {
        /// Which one.
        round: RoundId,
        /// Its share that is done.
        done: Fraction,
    },
    /// An epoch waits: heat, power, a window, a quota, or the board's other job.
    Paused {
        /// Which one.
        round: RoundId,
    },
    /// A student state is leaving.
    Uploading,
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Telemetry {
    /// The processor.
    pub cpu: Cpu,
    /// Heat and power supply.
    pub health: Health,
    /// Memory and storage.
    pub room: Room,
    /// The interface to the network.
    pub link: Link,
    /// The path to the host.
    pub path: Path,
    /// What the board is about.
    pub activity: Activity,
}
