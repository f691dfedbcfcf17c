//! States of small made-up networks through every compression.

use std::collections::HashMap;

use proptest::prelude::*;
use safetensors::{Dtype, serialize, tensor::TensorView};

use super::*;
use crate::id::BlobHash;

/// A state with two coarse tensors, a norm's parameters and a running mean.
fn state(seed: u32, spread: f32, about: &str) -> Vec<u8> {
    let mut draw = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = |scale: f32| {
        // A sum of four uniform draws is normal enough.
        let sum: f32 = (0..4)
            .map(|_| {
                draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (draw >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .sum();
        (sum * scale).to_le_bytes()
    };
    let shapes: [(&str, &[usize]); 4] =
        [("conv.weight", &[24, 16, 3, 3]), ("fc.weight", &[10, 77]), ("bn.weight", &[24]), ("bn.running_mean", &[24])];
    let tensors: Vec<(&str, Vec<usize>, Vec<u8>)> = shapes
        .iter()
        .map(|(name, shape)| {
            let values = (0..shape.iter().product::<usize>()).flat_map(|_| next(spread)).collect();
            (*name, shape.to_vec(), values)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, values)| {
        (*name, TensorView::new(Dtype::F32, shape.clone(), values).expect("as long as its shape says"))
    });
    serialize(views, Some(HashMap::from([("about".to_owned(), about.to_owned())]))).expect("serialises")
}

/// `base` with every number moved by one of `other`.
fn moved(base: &[u8], other: &[u8]) -> Vec<u8> {
    let layout = layout::Layout::of(base, Compression::None).expect("a state");
    let mut out = base.to_vec();
    for section in &layout.sections {
        let by: Vec<f32> = layout::numbers(&other[section.range.clone()]).collect();
        for (value, by) in out[section.range.clone()].as_chunks_mut::<4>().0.iter_mut().zip(by) {
            *value = (f32::from_le_bytes(*value) + by).to_le_bytes();
        }
    }
    out
}

fn values(state: &[u8], coarse: bool) -> Vec<f32> {
    let layout = layout::Layout::of(state, Compression::Int8).expect("a state");
    layout.of_kind(coarse).flat_map(|section| layout::numbers(&state[section.range.clone()])).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

fn compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(Compression::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Both sides hold the same bytes, and what is exact stays exact.
    #[test]
    fn both_sides_adopt_the_same_state(
        compression in compression(), seeds in any::<(u32, u32)>(), spread in 1e-6f32..10.0, longer in 0usize..200,
    ) {
        let base = state(seeds.0, 1.0, "");
        // What a state says about itself may change on the way.
        let fresh = moved(&state(seeds.0, 1.0, &"x".repeat(longer)), &state(seeds.1, spread, &"x".repeat(longer)));
        let encoded = encode(compression, &base, &fresh, None).expect("encodes");
        prop_assert!(is_delta(&encoded.delta) && !is_delta(&base));
        prop_assert_eq!(decode(&base, &encoded.delta), Ok(encoded.state.clone()));
        prop_assert_eq!(values(&encoded.state, false), values(&fresh, false));
        let (about, _) = About::read(&encoded.delta).expect("reads");
        prop_assert_eq!((about.base, about.state), (BlobHash::of(&base), BlobHash::of(&encoded.state)));
        if compression == Compression::None {
            prop_assert_eq!(&encoded.state, &fresh);
        }
    }

    /// Whatever happens to a delta on the way, it is refused or decodes to what was encoded; nothing panics.
    #[test]
    fn a_damaged_delta_is_refused(
        compression in compression(), at in any::<proptest::sample::Index>(), by in 1u8.., cut in any::<bool>(),
    ) {
        let base = state(1, 1.0, "");
        let encoded = encode(compression, &base, &moved(&base, &state(2, 0.1, "")), None).expect("encodes");
        let mut delta = encoded.delta.clone();
        let at = at.index(delta.len());
        if cut { delta.truncate(at) } else { delta[at] ^= by }
        if let Ok(decoded) = decode(&base, &delta) {
            prop_assert_eq!(decoded, encoded.state);
        }
    }

    #[test]
    fn foreign_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), marked in any::<bool>()) {
        let base = state(1, 1.0, "");
        let delta = if marked { [b"TWDELTA1".as_slice(), &bytes].concat() } else { bytes.clone() };
        prop_assert!(decode(&base, &delta).is_err());
        prop_assert!(encode(Compression::Int8, &base, &bytes, None).is_err());
        prop_assert!(encode(Compression::Int8, &base, &base, Some(&bytes)).is_err());
    }
}

/// Error feedback: what a round leaves out comes in later ones, so after many rounds the adopted state has moved as
/// far as training wanted, within about a step, while without feedback the same codes stay behind for ever.
#[test]
fn nothing_is_lost_for_good() {
    for compression in [Compression::Bf16, Compression::Int8, Compression::Int4, Compression::Int2] {
        let start = state(1, 1.0, "");
        let step = state(2, 0.01, "");
        let (mut held, mut residual) = (start.clone(), None);
        let mut wanted = start.clone();
        for _ in 0..40 {
            wanted = moved(&wanted, &step);
            let encoded = encode(compression, &held, &moved(&held, &step), residual.as_deref()).expect("encodes");
            (held, residual) = (encoded.state, Some(encoded.residual));
        }
        let one_step = distance(&values(&step, true), &vec![0.0; values(&step, true).len()]);
        let behind = distance(&values(&held, true), &values(&wanted, true));
        assert!(behind < 2.0 * one_step, "{compression:?}: {behind} after 40 steps of {one_step}");
    }
}

/// Bytes of a delta between states of a real network's size, as a part of the file's.
#[test]
fn few_bits_make_few_bytes() {
    let base = state(1, 1.0, "");
    let fresh = moved(&base, &state(2, 0.01, ""));
    let part = |compression| {
        let header = layout::Layout::of(&base, compression).expect("a state").prefix;
        let delta = encode(compression, &base, &fresh, None).expect("encodes").delta.len();
        delta.saturating_sub(header) as f64 / (base.len() - header) as f64
    };
    let parts = Compression::ALL.map(part);
    assert!(parts.is_sorted_by(|a, b| a > b), "{parts:?}");
    let most = [1.01, 0.51, 0.26, 0.135, 0.075];
    assert!(parts.iter().zip(most).all(|(part, most)| *part < most), "{parts:?}");
}

#[test]
fn a_delta_that_unpacks_to_more_than_a_state_is_refused() {
    let base = state(1, 1.0, "");
    let honest = encode(Compression::Int8, &base, &base, None).expect("encodes").delta;
    let (about, _) = About::read(&honest).expect("reads");
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).expect("compresses");
    let mut delta = postcard::to_extend(&about, b"TWDELTA1".to_vec()).expect("encodes");
    delta.extend(bomb);
    assert!(matches!(decode(&base, &delta), Err(CompressError::NotState(_) | CompressError::NotDelta(_))));
}

#[test]
fn another_base_network_or_residual_is_named() {
    let base = state(1, 1.0, "");
    let encoded = encode(Compression::Int4, &base, &moved(&base, &state(2, 0.1, "")), None).expect("encodes");
    let other = state(3, 1.0, "");
    assert!(matches!(decode(&other, &encoded.delta), Err(CompressError::OtherState { .. })));
    let small = serialize(
        [("fc.weight", TensorView::new(Dtype::F32, vec![1, 2], &[0; 8]).expect("a view"))],
        None::<HashMap<String, String>>,
    )
    .expect("serialises");
    assert_eq!(decode(&small, &encoded.delta), Err(CompressError::OtherNetwork("the base")));
    assert_eq!(
        encode(Compression::Int4, &small, &small, Some(&encoded.residual)),
        Err(CompressError::OtherNetwork("the residual"))
    );
    let broken = moved(&base, &state(2, f32::INFINITY, ""));
    assert!(matches!(encode(Compression::Int4, &base, &broken, None), Err(CompressError::NotFinite(_))));
}

/// Files of the first version decode for ever; zstd's own bytes may change, so only reading is pinned.
#[test]
fn a_delta_of_version_1_decodes() {
    let tensor = |values: [f32; 4]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2, 2], &bytes).expect("a view");
        serialize([("w", view)], None::<HashMap<String, String>>).expect("serialises")
    };
    let base = tensor([0.0, 1.0, -1.0, 0.5]);
    let adopted = tensor([7.0, 1.0, -8.0, 3.5]);
    let delta: Vec<u8> = GOLDEN
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect();
    assert_eq!(decode(&base, &delta), Ok(adopted.clone()));
    let fresh = encode(Compression::Int4, &base, &adopted, None).expect("encodes");
    assert_eq!(fresh.state, adopted, "every difference is a whole number of steps");
}
const GOLDEN: &str = "\
    545744454c54413103aa187ebbf81c9ea47a3ed9afe58ced9f7172c7777ef4947139d426d9ac59fd8d8c1a6d8cfc1339\
    73a468f8103f3ffcd35d9f7c4b818dc7f84dded7ee449fcd114828b52ffd204c61020040000000000000007b2277223a\
    7b226474797065223a22463332222c227368617065223a5b322c325d2c22646174615f6f666673657473223a5b302c31\
    365d7d7d20202020202020803f0739\
    ";
