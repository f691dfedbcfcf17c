//! The wire form of a sample: its size, its bytes, and what it refuses.

use proptest::prelude::*;

use super::quantity::*;
use super::*;
use crate::units::{BitsPerSecond, Gigahertz, Seconds};

/// Version, kind, boot id, sequence number, time and authentication tag, at their longest.
const ENVELOPE: usize = 1 + 1 + 16 + 10 + 10 + 16;

/// The most bytes that any value of a field takes: integers as five- or ten-byte varints, the largest age.
fn oldest<T>(value: T) -> Reading<T> {
    Reading::Known { value, source: Source::Emulated, age: Age::of_seconds(u32::MAX) }
}

fn largest(link: Link) -> Telemetry {
    let cores = || oldest(core::iter::repeat_n(Megahertz(u16::MAX), MAX_CORES).collect());
    Telemetry {
        cpu: Cpu { cores: oldest(u16::MAX), current: cores(), maximum: cores(), load: oldest(Fraction::WHOLE) },
        health: Health {
            temperature: oldest(CentiCelsius(i16::MIN)),
            throttled: oldest(true),
            under_voltage: oldest(true),
        },
        room: Room {
            memory_total: oldest(Kibibytes(u32::MAX)),
            memory_available: oldest(Kibibytes(u32::MAX)),
            disk_free: oldest(Mebibytes(u32::MAX)),
        },
        link,
        path: Path {
            round_trip_p50: oldest(Microseconds(u32::MAX)),
            round_trip_p95: oldest(Microseconds(u32::MAX)),
            goodput_up: oldest(KilobitsPerSecond(u32::MAX)),
            goodput_down: oldest(KilobitsPerSecond(u32::MAX)),
        },
        activity: Activity::Training { round: RoundId(u32::MAX), done: Fraction::WHOLE },
    }
}

fn largest_links() -> [Link; 3] {
    let rate = || oldest(KilobitsPerSecond(u32::MAX));
    [
        Link::Wifi(Wifi {
            signal: oldest(Dbm(i8::MIN)),
            noise: oldest(Dbm(i8::MIN)),
            sent_rate: rate(),
            received_rate: rate(),
            sent: oldest(u32::MAX),
            retries: oldest(u32::MAX),
            failures: oldest(u32::MAX),
            channel_width: oldest(u16::MAX),
        }),
        Link::Wired(Wired {
            speed: rate(),
            carrier: oldest(true),
            sent_bytes: oldest(u64::MAX),
            received_bytes: oldest(u64::MAX),
        }),
        Link::Emulated(EmulatedLink { up: rate(), down: rate() }),
    ]
}

#[test]
fn the_largest_sample_fits_a_sealed_message() {
    let sizes = largest_links().map(|link| postcard::to_allocvec(&largest(link)).expect("serialises").len());
    let most = sizes.into_iter().max().expect("three links");
    assert_eq!(most, MAX_BYTES, "MAX_BYTES is the exact bound: {sizes:?}");
    const { assert!(MAX_BYTES + ENVELOPE <= 256) };
}

#[test]
fn a_board_that_knows_nothing_takes_a_byte_a_figure() {
    let bytes = postcard::to_allocvec(&Telemetry::default()).expect("serialises");
    assert_eq!(bytes, [0; 16], "4 + 3 + 3 figures, the link's kind, 4 figures, the activity");
}

#[test]
fn the_bytes_of_a_sample_stay() {
    let sample = Telemetry {
        cpu: Cpu {
            cores: Reading::measured(4),
            current: Reading::measured([Megahertz(600), Megahertz(1500)].into_iter().collect()),
            maximum: Reading::Unknown,
            load: Reading::measured(Fraction::of(0.25)),
        },
        health: Health {
            temperature: Reading::measured(CentiCelsius(-150)),
            throttled: Reading::Unknown,
            under_voltage: Reading::measured(false),
        },
        link: Link::Wifi(Wifi {
            signal: Reading::measured(Dbm(-61)),
            noise: Reading::fresh(Dbm(-94), Source::Assumed),
            ..Wifi::default()
        }),
        path: Path {
            round_trip_p50: Reading::Known {
                value: Microseconds(4_000),
                source: Source::Derived,
                age: Age::of_seconds(7),
            },
            ..Path::default()
        },
        activity: Activity::Paused { round: RoundId(3) },
        ..Telemetry::default()
    };
    let expected = [
        0x20, 4, 0x20, 2, 0xd8, 0x04, 0xdc, 0x0b, 0, 0x20, 0xc4, 0x13, // processor
        0x20, 0xab, 0x02, 0, 0x20, 0, // health
        0, 0, 0, // room
        1, 0x20, 0xc3, 0x60, 0xa2, 0, 0, 0, 0, 0, 0, // link
        0x47, 0xa0, 0x1f, 0, 0, 0, // path
        3, 3, // activity
    ];
    assert_eq!(postcard::to_allocvec(&sample).expect("serialises"), expected);
    assert_eq!(postcard::from_bytes::<Telemetry>(&expected).expect("valid"), sample);
}

#[test]
fn an_age_is_never_understated() {
    for (seconds, shown) in [(0, 0), (1, 1), (7, 8), (61, 90), (86_401, 172_800), (u32::MAX, 31_536_000)] {
        assert_eq!(Age::of_seconds(seconds).seconds(), shown);
    }
}

#[test]
fn units_convert_and_saturate() {
    assert_eq!(Megahertz::from(Gigahertz(1.8)), Megahertz(1_800));
    assert_eq!(Gigahertz::from(Megahertz(600)), Gigahertz(0.6));
    assert_eq!(Megahertz::from(Gigahertz(1e9)), Megahertz(u16::MAX));
    assert_eq!(KilobitsPerSecond::from(BitsPerSecond(2_400_400.0)), KilobitsPerSecond(2_400));
    assert_eq!(BitsPerSecond::from(KilobitsPerSecond(72_200)), BitsPerSecond(72.2e6));
    assert_eq!(Microseconds::from(Seconds(0.004)), Microseconds(4_000));
    assert_eq!(Microseconds::from(Seconds(f64::NAN)), Microseconds(0));
    assert_eq!(Seconds::from(Microseconds(2_500_000)), Seconds(2.5));
    assert_eq!(Fraction::of(2.0), Fraction::WHOLE);
    assert_eq!(Fraction::of(-0.1).value(), 0.0);
    let cores = [Megahertz(1_000), Megahertz(2_000)];
    assert_eq!(mean_frequency(&cores), Some(Gigahertz(1.5)));
    assert_eq!(mean_frequency(&[]), None);
}

#[test]
fn nonsense_is_refused() {
    type Share = Reading<Fraction>;
    let decode = postcard::from_bytes::<Share>;
    assert_eq!(decode(&[0]).expect("unknown"), Reading::Unknown);
    assert!(decode(&[0x20, 0x91, 0x4e]).is_err(), "10,001 ten-thousandths");
    assert!(decode(&[0x01, 0]).is_err(), "an age without a source");
    assert!(decode(&[0xa0, 0]).is_err(), "a source not known");
    assert!(decode(&[0x3f, 0]).is_err(), "an age not known");
    assert!(decode(&[0x20]).is_err(), "cut short");
    assert!(postcard::from_bytes::<CoreFrequencies>(&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "nine cores");
}

fn reading<T: core::fmt::Debug + Clone>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Reading<T>> {
    prop_oneof![
        Just(Reading::Unknown),
        (value, 0..4_usize, any::<u32>()).prop_map(|(value, source, age)| Reading::Known {
            value,
            source: Source::ALL[source],
            age: Age::of_seconds(age),
        }),
    ]
}

fn cores() -> impl Strategy<Value = CoreFrequencies> {
    proptest::collection::vec(any::<u16>().prop_map(Megahertz), 0..=MAX_CORES).prop_map(|v| v.into_iter().collect())
}

proptest! {
    #[test]
    fn a_sample_survives_the_wire(
        current in reading(cores()),
        load in reading((0..=10_000_u16).prop_map(|s| Fraction::try_from(s).expect("in range"))),
        temperature in reading(any::<i16>().prop_map(CentiCelsius)),
        sent_bytes in reading(any::<u64>()),
        carrier in reading(any::<bool>()),
        goodput_up in reading(any::<u32>().prop_map(KilobitsPerSecond)),
    ) {
        let sample = Telemetry {
            cpu: Cpu { current, load, ..Cpu::default() },
            health: Health { temperature, ..Health::default() },
            link: Link::Wired(Wired { sent_bytes, carrier, ..Wired::default() }),
            path: Path { goodput_up, ..Path::default() },
            ..Telemetry::default()
        };
        let bytes = postcard::to_allocvec(&sample).expect("serialises");
        prop_assert!(bytes.len() <= MAX_BYTES);
        prop_assert_eq!(postcard::from_bytes::<Telemetry>(&bytes).expect("valid"), sample);
    }

    #[test]
    fn foreign_bytes_decode_to_a_sample_that_encodes_or_to_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        if let Ok(sample) = postcard::from_bytes::<Telemetry>(&bytes) {
            let again = postcard::to_allocvec(&sample).expect("serialises");
            prop_assert!(again.len() <= MAX_BYTES);
            prop_assert_eq!(postcard::from_bytes::<Telemetry>(&again).expect("valid"), sample);
        }
    }
}
