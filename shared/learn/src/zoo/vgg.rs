//! VGG-8 with batch norm: five convolutions with bias, three poolings.

use super::network::{Builder, Initial, NodeId};

/// Name and initialisation of the classifier.
pub(super) const CLASSIFIER: (&str, Initial) = ("classifier", Initial::Normal { deviation: 0.01 });

/// Adds the backbone; returns its last feature map, `[n, 512, 4, 4]`.
pub(super) fn vgg8(b: &mut Builder) -> NodeId {
    let mut x = Builder::INPUT;
    let mut channels = 3;
    for (block, wide) in [64, 128, 256, 512, 512].into_iter().enumerate() {
        x = b.convolution_with_bias(&format!("block{block}.0"), x, (channels, wide));
        x = b.norm(&format!("block{block}.1"), x, wide);
        x = b.relu(x);
        if block < 3 {
            x = b.max_pool(x);
        }
        channels = wide;
    }
    x
}
