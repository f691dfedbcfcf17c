//! The seal under honest use, attack and arbitrary bytes.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::wire::Nonce;

const KEY: [u8; 32] = [7; 32];
const BOOT: BootId = BootId([9; 16]);

fn topic(device: &str, channel: Channel) -> Topic {
    Topic { device: device.parse().expect("valid"), channel }
}

fn ping() -> Topic {
    topic("board1", Channel::UpPing)
}

fn sealed(sealer: &mut Sealer, topic: &Topic, nonce: u64) -> Vec<u8> {
    let mut buffer = [0; 256];
    sealer.seal(topic, 42, &Nonce(nonce), &mut buffer).expect("fits").to_vec()
}

fn pair() -> (Sealer, Opener) {
    let key = DeviceKey::new(KEY);
    let sealer = Sealer::new(&key, Direction::Up, BOOT);
    let mut opener = Opener::new(key, Direction::Up);
    opener.adopt(BOOT);
    (sealer, opener)
}

#[test]
fn what_is_sealed_opens_once() {
    let (mut sealer, mut opener) = pair();
    let mut payload = sealed(&mut sealer, &ping(), 5);
    let mut again = payload.clone();
    let opened = opener.open(&ping(), &mut payload).expect("honest");
    assert_eq!((opened.header.sequence, opened.header.time_ms), (0, 42));
    assert_eq!(codec::decode::<Nonce>(opened.body), Ok(Nonce(5)));
    assert_eq!(opener.open(&ping(), &mut again).unwrap_err(), SealError::Replayed(0));
}

#[test]
fn another_topic_device_direction_boot_or_key_is_refused() {
    let (mut sealer, mut opener) = pair();
    let payload = sealed(&mut sealer, &ping(), 5);
    let other_device = topic("board2", Channel::UpPing);
    assert_eq!(opener.open(&other_device, &mut payload.clone()).unwrap_err(), SealError::Forged);
    let other_channel = topic("board1", Channel::UpLog);
    assert!(matches!(opener.open(&other_channel, &mut payload.clone()).unwrap_err(), SealError::Channel { .. }));
    let mut down = Opener::new(DeviceKey::new(KEY), Direction::Down);
    down.adopt(BOOT);
    assert_eq!(down.open(&ping(), &mut payload.clone()).unwrap_err(), SealError::Forged);
    let mut stranger = Opener::new(DeviceKey::new([8; 32]), Direction::Up);
    stranger.adopt(BOOT);
    assert_eq!(stranger.open(&ping(), &mut payload.clone()).unwrap_err(), SealError::Forged);
    opener.adopt(BootId([1; 16]));
    assert_eq!(opener.open(&ping(), &mut payload.clone()).unwrap_err(), SealError::Boot(BOOT));
}

#[test]
fn a_document_opens_from_any_boot_and_again() {
    let (mut sealer, _) = pair();
    let state = topic("board1", Channel::UpState);
    let payload = sealed(&mut sealer, &state, 5);
    let opener = Opener::new(DeviceKey::new(KEY), Direction::Up);
    for _ in 0..2 {
        assert_eq!(opener.open_document(&state, &mut payload.clone()).expect("authentic").header.boot, BOOT);
    }
}

#[test]
fn a_future_version_is_named() {
    let (mut sealer, mut opener) = pair();
    let mut payload = sealed(&mut sealer, &ping(), 5);
    payload[0] = 9;
    let error = opener.open(&ping(), &mut payload).unwrap_err();
    assert_eq!(error, SealError::Version { found: 9, known: WIRE_VERSIONS });
}

#[test]
fn a_long_payload_is_refused_unread() {
    let (_, mut opener) = pair();
    let error = opener.open(&ping(), &mut [0; 2000]).unwrap_err();
    assert!(matches!(error, SealError::TooLong { length: 2000, .. }));
}

/// The bytes of version 1. They must never change.
#[test]
fn the_bytes_are_pinned() {
    let (mut sealer, _) = pair();
    let payload = sealed(&mut sealer, &ping(), 300);
    let text: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    let (header, body) = text.split_at(40);
    assert_eq!(header, "010509090909090909090909090909090909002a");
    assert_eq!(body, PINNED_BODY);
}

const PINNED_BODY: &str = "9d25a9d7a5a98dd98af6a9dd011ac6f25ae7";

#[test]
fn a_key_never_prints() {
    assert_eq!(format!("{:?}", DeviceKey::new(KEY)), "DeviceKey(…)");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_open(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (_, mut opener) = pair();
        prop_assert!(opener.open(&ping(), &mut bytes).is_err());
    }

    #[test]
    fn a_flipped_bit_never_opens(at in 0usize..64, bit in 0u8..8) {
        let (mut sealer, mut opener) = pair();
        let mut payload = sealed(&mut sealer, &ping(), 77);
        let at = at % payload.len();
        payload[at] ^= 1 << bit;
        prop_assert!(opener.open(&ping(), &mut payload).is_err());
    }

    /// The window against a set that remembers everything.
    #[test]
    fn the_window_never_admits_twice(numbers in proptest::collection::vec(0u64..3000, 1..400)) {
        let (mut window, mut seen, mut highest) = (ReplayWindow::default(), HashSet::new(), 0);
        for number in numbers {
            let admitted = !window.has_seen(number);
            let recent = number + 1024 >= highest;
            prop_assert_eq!(admitted, recent && !seen.contains(&number), "{}", number);
            if admitted {
                window.mark(number);
                seen.insert(number);
                highest = highest.max(number + 1);
            }
        }
    }
}
