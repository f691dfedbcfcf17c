//! Arbitrary manifests: their arithmetic is exact, and a receiver takes none beyond its limit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twin_shared::transfer::{CHUNK_BYTES, OnDisk, Receiver, WINDOW, WINDOW_BYTES};
use twin_shared::wire::{BlobAck, BlobMessage, codec};

const LIMIT: u64 = 8 << 30;

fuzz_target!(|input: &[u8]| {
    let Some((tail, bytes)) = input.split_first_chunk::<16>() else { return };
    let Ok(BlobMessage::Manifest(manifest)) = codec::decode::<BlobMessage<'_>>(bytes) else { return };
    let [on_disk, index] = [&tail[..8], &tail[8..]].map(|half| u64::from_le_bytes(half.try_into().expect("eight")));
    let index = index as u32;
    if let Some(length) = manifest.chunk_length(index) {
        assert!(length <= manifest.chunk && length > 0);
        assert!(u64::from(index) * u64::from(manifest.chunk) + u64::from(length) <= manifest.size);
    } else if manifest.chunk > 0 {
        assert!(u64::from(index) >= manifest.chunks());
    }
    let on_disk = if on_disk == 0 { OnDisk::Nothing } else { OnDisk::Partial(on_disk) };
    let Ok(mut receiver) = Receiver::new(manifest, LIMIT, on_disk) else { return };
    assert!(manifest.size <= LIMIT && CHUNK_BYTES.contains(&manifest.chunk));
    if let Some(offset) = receiver.place(index, manifest.chunk_length(index).unwrap_or(0) as usize) {
        assert!(offset < manifest.size);
        receiver.wrote(index);
        assert_eq!(receiver.place(index, manifest.chunk_length(index).unwrap_or(0) as usize), None, "held already");
    }
    let BlobAck::Holding { base, credit, .. } = receiver.ack() else { unreachable!("a receiver says what it holds") };
    assert!(credit - base <= WINDOW && (credit - base) * manifest.chunk <= WINDOW_BYTES);
});
