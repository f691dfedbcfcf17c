//! See Cargo.toml: this library has no standard library, no allocator, and a panic handler of its own.
#![no_std]

use twin_shared::id::BootId;
use twin_shared::wire::seal::{DeviceKey, Opener, Sealer};
use twin_shared::wire::{Channel, Direction, Nonce, Topic, codec};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Seals a ping and opens it again; returns the nonce that came out, or 0.
#[unsafe(no_mangle)]
pub extern "C" fn twin_round_trip(number: u64) -> u64 {
    let key = DeviceKey::new([1; 32]);
    let boot = BootId([2; 16]);
    let Ok(device) = "board1".parse() else { return 0 };
    let topic = Topic { device, channel: Channel::UpPing };
    let mut buffer = [0; 128];
    let mut sealer = Sealer::new(&key, Direction::Up, boot);
    let Ok(length) = sealer.seal(&topic, 0, &Nonce(number), &mut buffer).map(<[u8]>::len) else { return 0 };
    let mut opener = Opener::new(key, Direction::Up);
    opener.adopt(boot);
    match opener.open(&topic, &mut buffer[..length]) {
        Ok(opened) => codec::decode::<Nonce>(opened.body).map_or(0, |nonce| nonce.0),
        Err(_) => 0,
    }
}
