//! The bound of every length that comes from outside: what is at it is taken, what is beyond it refused.
//!
//! Postcard writes a text or list as its length and its elements, so a mirror of a message with a type of unbounded
//! length has the same bytes.

use serde::{Deserialize, Serialize};

use super::telemetry::{CoreFrequencies, MAX_CORES};
use super::*;
use crate::id::{BlobHash, DeviceId};
use crate::model::Architecture;

/// Whether `mirror`'s bytes are a `T`.
fn reads<T: for<'b> Deserialize<'b>>(mirror: &impl Serialize) -> bool {
    let bytes = postcard::to_allocvec(mirror).expect("plain data");
    codec::decode::<T>(&bytes).is_ok()
}

/// Of a field with room for `bound`: `mirror` makes a message with so many elements in it.
fn bounded<T: for<'b> Deserialize<'b>, M: Serialize>(bound: usize, mirror: impl Fn(usize) -> M) {
    assert!(reads::<T>(&mirror(bound)), "{bound} elements fit");
    assert!(!reads::<T>(&mirror(bound + 1)), "{} elements do not", bound + 1);
    // A length that no payload could hold takes no memory either: the length is refused, or the end is found first.
    let honest = postcard::to_allocvec(&mirror(bound)).expect("plain data");
    for at in 0..honest.len() {
        let mut claimed = honest[..at].to_vec();
        claimed.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(codec::decode::<T>(&claimed).is_err());
    }
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

#[test]
fn texts_and_lists() {
    let versions = (1u8, 2u8);
    // Offset, so that a birth without a dataset ends in a zero.
    let birth = |agent: usize, models: usize| {
        let capabilities = (true, false, vec![Architecture::Vgg8; models], 1u32, 1u16);
        (0u8, (1u64, versions, text(agent), capabilities, None::<u8>))
    };
    bounded::<BoardState, _>(24, |length| birth(length, 0));
    bounded::<BoardState, _>(5, |length| birth(0, length));
    bounded::<Reply, _>(200, |length| (1u64, (4u8, (FailureCode::Missing, text(length)))));
    bounded::<LogLine, _>(240, |length| (LogLevel::Error, text(length)));
    let calibration = |libtorch: usize, kernel: usize, students: usize| {
        let student = (Architecture::Vgg8, 0.1f32, 1u32, true);
        (1u64, (5u8, (text(libtorch), text(kernel), 1u8, 1u16, None::<u32>, vec![student; students])))
    };
    bounded::<Reply, _>(32, |length| calibration(length, 0, 0));
    bounded::<Reply, _>(64, |length| calibration(0, length, 0));
    bounded::<Reply, _>(5, |length| calibration(0, 0, length));
    bounded::<DeviceId, _>(32, text);
    bounded::<CoreFrequencies, _>(MAX_CORES, |length| vec![1200u16; length]);
}

/// Nothing that a channel carries can be longer than its payload, and no payload is read that is longer.
#[test]
fn payloads() {
    let key = seal::DeviceKey::new([1; 32]);
    let boot = crate::id::BootId([2; 16]);
    for channel in Channel::ALL {
        let topic = Topic { device: "b".parse().expect("a name"), channel };
        let mut opener = seal::Opener::new(key.clone(), channel.direction());
        opener.adopt(boot);
        let mut long = vec![0; channel.max_payload() + 1];
        let refused = opener.open(&topic, &mut long).map(drop);
        assert!(matches!(refused, Err(seal::SealError::TooLong { .. })), "{channel:?}");
        let refused = opener.open_document(&topic, &mut long).map(drop);
        assert!(matches!(refused, Err(seal::SealError::TooLong { .. })), "{channel:?}");
    }
}

/// The largest chunk fits its channel; a larger one cannot be sealed.
#[test]
fn chunks() {
    let key = seal::DeviceKey::new([1; 32]);
    let topic = Topic { device: text(32).parse().expect("a name"), channel: Channel::UpBlob };
    let mut sealer = seal::Sealer::new(&key, Direction::Up, crate::id::BootId([2; 16]));
    let mut buffer = vec![0; 2 * MAX_CHUNK];
    let bytes = vec![1; MAX_CHUNK + 256];
    let chunk = |length| BlobMessage::Chunk { blob: BlobHash([1; 32]), index: u32::MAX, bytes: &bytes[..length] };
    assert!(sealer.seal(&topic, u64::MAX, &chunk(MAX_CHUNK), &mut buffer).is_ok());
    assert!(sealer.seal(&topic, u64::MAX, &chunk(MAX_CHUNK + 256), &mut buffer).is_err());
    assert_eq!(MAX_CHUNK, *crate::transfer::CHUNK_BYTES.end() as usize);
}
