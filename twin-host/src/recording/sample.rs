//! A sample as a recording has it: plain numbers in base units, each with its source and age.

use serde::{Deserialize, Serialize};
use twin_shared::id::DeviceId;
use twin_shared::units::BitsPerSecond;
use twin_shared::wire::telemetry::quantity::{Kibibytes, KilobitsPerSecond, Microseconds};
use twin_shared::wire::telemetry::{Activity, Link, Reading, Telemetry};

/// A figure that the board could tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure<T> {
    pub(crate) value: T,
    pub(crate) source: String,
    pub(crate) age_s: u32,
}

/// One sample; what the board could not tell is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordedSample {
    /// When it came, seconds since 1970 by the host's clock.
    pub(crate) at: f64,
    pub(crate) device: DeviceId,
    /// Mean clock of the cores now, GHz.
    pub(crate) clock_ghz: Option<Figure<f64>>,
    /// Part of all cores' time that was worked since the sample before.
    pub(crate) load: Option<Figure<f64>>,
    pub(crate) temperature_c: Option<Figure<f64>>,
    pub(crate) throttled: Option<Figure<bool>>,
    pub(crate) under_voltage: Option<Figure<bool>>,
    pub(crate) memory_available_bytes: Option<Figure<u64>>,
    /// `wifi`, `wired`, `emulated` or `unknown`.
    pub(crate) link: String,
    /// What the interface says that it sends at.
    pub(crate) link_bits_per_second: Option<Figure<f64>>,
    pub(crate) signal_dbm: Option<Figure<i32>>,
    pub(crate) round_trip_p50_s: Option<Figure<f64>>,
    pub(crate) round_trip_p95_s: Option<Figure<f64>>,
    /// Payload rate of the last transfer from the board.
    pub(crate) goodput_up_bits_per_second: Option<Figure<f64>>,
    /// Payload rate of the last transfer to the board.
    pub(crate) goodput_down_bits_per_second: Option<Figure<f64>>,
    /// `idle`, `receiving`, `training`, `paused` or `uploading`.
    pub(crate) activity: String,
}

fn figure<T, U>(reading: Reading<T>, value: impl FnOnce(T) -> U) -> Option<Figure<U>> {
    match reading {
        Reading::Unknown => None,
        Reading::Known { value: known, source, age } => {
            Some(Figure { value: value(known), source: source.name().to_owned(), age_s: age.seconds() })
        }
    }
}

fn rate(reading: Reading<KilobitsPerSecond>) -> Option<Figure<f64>> {
    figure(reading, |rate| BitsPerSecond::from(rate).0)
}

fn round_trip(reading: Reading<Microseconds>) -> Option<Figure<f64>> {
    figure(reading, |time| f64::from(time.0) / 1e6)
}

impl RecordedSample {
    /// A sample that came at this time, seconds since 1970.
    pub(crate) fn new(at: f64, device: &DeviceId, sample: &Telemetry) -> Self {
        let sample = sample.clone();
        let clock_ghz = figure(sample.cpu.current_mean(), |clock| clock.0);
        let (link, link_rate, signal) = match sample.link {
            Link::Unknown => ("unknown", Reading::Unknown, Reading::Unknown),
            Link::Wifi(wifi) => ("wifi", wifi.sent_rate, wifi.signal),
            Link::Wired(wired) => ("wired", wired.speed, Reading::Unknown),
            Link::Emulated(emulated) => ("emulated", emulated.up, Reading::Unknown),
        };
        let activity = match sample.activity {
            Activity::Idle => "idle",
            Activity::Receiving => "receiving",
            Activity::Training { .. } => "training",
            Activity::Paused { .. } => "paused",
            Activity::Uploading => "uploading",
        };
        Self {
            at,
            device: device.clone(),
            clock_ghz,
            load: figure(sample.cpu.load, |load| load.value()),
            temperature_c: figure(sample.health.temperature, |temperature| temperature.degrees()),
            throttled: figure(sample.health.throttled, |throttled| throttled),
            under_voltage: figure(sample.health.under_voltage, |low| low),
            memory_available_bytes: figure(sample.room.memory_available, Kibibytes::bytes),
            link: link.to_owned(),
            link_bits_per_second: rate(link_rate),
            signal_dbm: figure(signal, |signal| i32::from(signal.0)),
            round_trip_p50_s: round_trip(sample.path.round_trip_p50),
            round_trip_p95_s: round_trip(sample.path.round_trip_p95),
            goodput_up_bits_per_second: rate(sample.path.goodput_up),
            goodput_down_bits_per_second: rate(sample.path.goodput_down),
            activity: activity.to_owned(),
        }
    }
}
