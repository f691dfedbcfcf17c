//! Models with made-up weights: those of the PyTorch fixtures, which follow from the tensors' names.

use std::collections::BTreeMap;

use twin_data::Normalisation;
use twin_data::bundle::{About, Bundle, Weights};
use twin_shared::id::BlobHash;
use twin_shared::model::Architecture;

/// splitmix64 of FNV-1a(name) + i, its upper 24 bits spread over `low..high`: the `fill` of
/// tests/fixtures/learning/generate.py.
#[must_use]
pub fn fill(name: &str, count: usize, low: f64, high: f64) -> Vec<f32> {
    let fold = |key: u64, byte: u8| (key ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
    let key = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, fold);
    (0..count as u64)
        .map(|i| {
            let mut z = i.wrapping_add(key).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            let unit = (z >> 40) as f64 / f64::from(1u32 << 24);
            (low + unit * (high - low)) as f32
        })
        .collect()
}

/// A tensor with the generator's weights.
#[must_use]
pub fn weights(name: &str, shape: &[usize]) -> Weights {
    let count = shape.iter().product();
    let values = if name.ends_with("running_var") {
        fill(name, count, 0.5, 1.5)
    } else if name.ends_with("running_mean") || name.ends_with("bias") {
        fill(name, count, -0.1, 0.1)
    } else if shape.len() == 1 {
        fill(name, count, 0.8, 1.2)
    } else {
        let bound = (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        fill(name, count, -bound, bound)
    };
    Weights { shape: shape.to_vec(), values }
}

/// A model of these classes with a classifier of its own; `number` tells it from others.
#[must_use]
pub fn bundle(architecture: Architecture, classes: &[&str], number: u8) -> Bundle {
    let mut tensors = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let made = weights(&name, shape);
        tensors.insert(name, made);
    };
    let blocks = match architecture {
        Architecture::Vgg8 => None,
        Architecture::Resnet8x4 => Some(1),
        Architecture::Resnet14x4 => Some(2),
        Architecture::Resnet26x4 => Some(4),
        Architecture::Resnet32x4 => Some(5),
    };
    let mut normed = |convolution: String, norm: String, from: usize, to: usize, side: usize, has_bias: bool| {
        add(format!("{convolution}.weight"), &[to, from, side, side]);
        if has_bias {
            add(format!("{convolution}.bias"), &[to]);
        }
        for part in ["weight", "bias", "running_mean", "running_var"] {
            add(format!("{norm}.{part}"), &[to]);
        }
    };
    let name = match blocks {
        None => {
            let channels = [3, 64, 128, 256, 512, 512];
            for (block, pair) in channels.windows(2).enumerate() {
                normed(format!("block{block}.0"), format!("block{block}.1"), pair[0], pair[1], 3, true);
            }
            "classifier"
        }
        Some(blocks) => {
            normed("conv1".into(), "bn1".into(), 3, 32, 3, false);
            let mut from = 32;
            for (stage, to) in [64, 128, 256].into_iter().enumerate() {
                for block in 0..blocks {
                    let part = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
                    if block == 0 {
                        normed(part("downsample.0"), part("downsample.1"), from, to, 1, false);
                    }
                    normed(part("conv1"), part("bn1"), from, to, 3, false);
                    normed(part("conv2"), part("bn2"), to, to, 3, false);
                    from = to;
                }
            }
            "fc"
        }
    };
    let channels = architecture.feature_map().0;
    add(format!("{name}.weight"), &[classes.len(), channels]);
    add(format!("{name}.bias"), &[classes.len()]);
    let about = About {
        architecture,
        method: "cross-entropy".into(),
        classes: classes.iter().map(|&class| class.to_owned()).collect(),
        normalisation: Normalisation { mean: [0.25, 0.5, 0.75], deviation: [0.25; 3] },
        label_counts: vec![1; classes.len()],
        teacher: BlobHash([1; 32]),
        state: BlobHash([number; 32]),
        device: "board1".parse().expect("a name"),
        job: 1,
        epochs: 1,
    };
    Bundle { about, tensors }
}
