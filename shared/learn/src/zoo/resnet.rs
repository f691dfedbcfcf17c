//! ResNet-8x4 to -32x4: a stem of 32 channels, then three stages of 64, 128 and 256 channels with basic blocks.

use super::network::{Builder, Initial, NodeId};

/// Name and initialisation of the classifier.
pub(super) const CLASSIFIER: (&str, Initial) = ("fc", Initial::FanInUniform);

/// Adds the backbone with `blocks` basic blocks a stage; returns its last feature map, `[n, 256, 8, 8]`.
pub(super) fn resnet_x4(b: &mut Builder, blocks: usize) -> NodeId {
    let mut x = b.convolution("conv1", Builder::INPUT, (3, 32), 3, 1, Initial::FanOutNormal);
    x = b.norm("bn1", x, 32);
    x = b.relu(x);
    let mut channels = 32;
    for (stage, (wide, stride)) in [(64, 1), (128, 2), (256, 2)].into_iter().enumerate() {
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            x = basic_block(b, &name, x, (channels, wide), if block == 0 { stride } else { 1 });
            channels = wide;
        }
    }
    x
}

/// Two 3×3 convolutions, and beside them nothing or, where the shape changes, a 1×1 convolution.
fn basic_block(b: &mut Builder, name: &str, x: NodeId, (from, to): (i64, i64), stride: i64) -> NodeId {
    let mut y = b.convolution(&format!("{name}.conv1"), x, (from, to), 3, stride, Initial::FanOutNormal);
    y = b.norm(&format!("{name}.bn1"), y, to);
    y = b.relu(y);
    y = b.convolution(&format!("{name}.conv2"), y, (to, to), 3, 1, Initial::FanOutNormal);
    y = b.norm(&format!("{name}.bn2"), y, to);
    let shortcut = if stride != 1 || from != to {
        let s = b.convolution(&format!("{name}.downsample.0"), x, (from, to), 1, stride, Initial::FanOutNormal);
        b.norm(&format!("{name}.downsample.1"), s, to)
    } else {
        x
    };
    let sum = b.add(y, shortcut);
    b.relu(sum)
}
