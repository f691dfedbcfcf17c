//! Arbitrary bytes as the delta of a student state, plain and as the body of an honest head.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use twin_shared::compress::{Compression, decode, encode};

/// A state of one 16 × 24 matrix and a bias of 24.
static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let header =
        br#"{"b":{"dtype":"F32","shape":[24],"data_offsets":[0,96]},"w":{"dtype":"F32","shape":[16,24],"data_offsets":[96,1632]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend((0..408u16).flat_map(|k| (f32::from(k) / 100.0).to_le_bytes()));
    file
});

fuzz_target!(|input: &[u8]| {
    let [kind, bytes @ ..] = input else { return };
    let compression = Compression::ALL[usize::from(*kind) % Compression::ALL.len()];
    if *kind < 128 {
        let _ = decode(&BASE, bytes);
    } else {
        // The head of an honest delta before the bytes, so that they are read as its body.
        let honest = encode(compression, &BASE, &BASE, None).expect("two states of one network").delta;
        let head = honest.len().min(80);
        let _ = decode(&BASE, &[&honest[..head], bytes].concat());
    }
    // As the state itself, its base, and what was left out.
    let _ = encode(compression, &BASE, bytes, None);
    let _ = encode(compression, bytes, &BASE, None);
    let _ = encode(compression, &BASE, &BASE, Some(bytes));
});
