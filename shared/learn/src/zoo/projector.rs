//! SimKD's projector: conv 1×1 to t/2, 3×3, 1×1 to t, each with norm and ReLU; names `transfer.0` to `transfer.7`.

use super::network::{Builder, Head, Initial, NodeId};

/// Adds the projector from a student's map to a teacher's, each `(channels, side)`. A student's map that is larger
/// than the teacher's is average-pooled first; a smaller one stays, and the teacher's is pooled for the loss.
pub(super) fn projector(b: &mut Builder, features: NodeId, student: (i64, i64), teacher: (i64, i64)) -> Head {
    let (from, side) = student;
    let (to, target) = teacher;
    let half = to / 2;
    let mut x = if side > target { b.average_pool(features, target) } else { features };
    let init = Initial::FanInUniform;
    x = b.convolution("transfer.0", x, (from, half), 1, 1, init);
    x = b.norm("transfer.1", x, half);
    x = b.relu(x);
    x = b.convolution("transfer.3", x, (half, half), 3, 1, init);
    x = b.norm("transfer.4", x, half);
    x = b.relu(x);
    x = b.convolution("transfer.6", x, (half, to), 1, 1, init);
    x = b.norm("transfer.7", x, to);
    x = b.relu(x);
    Head::Projector { map: x, side: side.min(target) }
}
