//! Arbitrary payloads, and honest ones that were damaged, against the seal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twin_shared::id::BootId;
use twin_shared::wire::seal::{DeviceKey, Opener, Sealer};
use twin_shared::wire::{Channel, Direction, Nonce, Topic};

fuzz_target!(|input: &[u8]| {
    let [channel, way, rest @ ..] = input else { return };
    let channel = Channel::ALL[usize::from(*channel) % Channel::ALL.len()];
    let topic = Topic { device: "board1".parse().expect("a name"), channel };
    let (key, boot) = (DeviceKey::new([7; 32]), BootId([9; 16]));
    let mut opener = Opener::new(key.clone(), channel.direction());
    opener.adopt(boot);
    if way % 2 == 0 {
        // Whoever watches the process compare tags can forge one, and the fuzzer does: that is no attack from outside.
        // Even then nothing opens twice, and what opens says the channel and the boot that it was opened for.
        let mut payload = rest.to_vec();
        if let Ok(opened) = opener.open(&topic, &mut payload) {
            assert_eq!((opened.header.channel, opened.header.boot), (channel as u8, boot));
        }
        assert!(opener.open(&topic, &mut rest.to_vec()).is_err(), "nothing opens twice");
        let _ = opener.open_document(&topic, &mut rest.to_vec());
        return;
    }
    // An honest payload, with some bytes changed.
    let direction = if way % 4 == 1 { channel.direction() } else { Direction::Up };
    let mut buffer = [0; 256];
    let mut sealer = Sealer::new(&key, direction, boot);
    let Ok(sealed) = sealer.seal(&topic, 1, &Nonce(5), &mut buffer) else { return };
    let mut damaged = sealed.to_vec();
    for change in rest.chunks_exact(2) {
        let at = usize::from(change[0]) % damaged.len();
        damaged[at] ^= change[1];
    }
    let honest = direction == channel.direction() && damaged == sealed;
    let opened = opener.open(&topic, &mut damaged.clone()).is_ok();
    assert!(opened || !honest, "what nobody touched opens");
    assert!(opener.open(&topic, &mut damaged).is_err(), "nothing opens twice");
});
