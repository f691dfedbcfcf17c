//! A network as data: operations in order, over numbered parameters with public names.

use tch::{Kind, Tensor};

use crate::error::LearnError;

/// A value within a network: the input, or what an operation gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeId(usize);

impl NodeId {
    /// 0 for the input, 1 for the first operation's value, and so on.
    pub(crate) const fn number(self) -> usize {
        self.0
    }
}

/// One step of a network. Parameters are numbers into [`Network::parameters`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// 2-d convolution.
    Convolution {
        /// `[out, in, k, k]`.
        weight: usize,
        /// `[out]`.
        bias: Option<usize>,
        /// Step.
        stride: i64,
        /// Zero padding.
        padding: i64,
    },
    /// Batch norm over `n, h, w`, or group norm.
    Norm(Norm),
    /// Rectifier, in place: its input has no other reader.
    Relu,
    /// Sum with another value, in place: only the other value may have other readers.
    Add(NodeId),
    /// 2×2 maxima.
    MaxPool,
    /// Means down to that side.
    AveragePool {
        /// Side of the result.
        side: i64,
    },
}

/// A normalisation layer's parameters, each `[channels]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// Batch norm.
    Batch {
        /// Scale γ.
        weight: usize,
        /// Shift β.
        bias: usize,
        /// Running mean.
        mean: usize,
        /// Running variance.
        variance: usize,
    },
    /// Group norm.
    Group {
        /// Scale γ.
        weight: usize,
        /// Shift β.
        bias: usize,
        /// Groups of channels.
        groups: i64,
    },
}

impl Norm {
    /// Numbers of its scale γ and shift β.
    #[must_use]
    pub const fn scale_and_shift(self) -> (usize, usize) {
        match self {
            Self::Batch { weight, bias, .. } | Self::Group { weight, bias, .. } => (weight, bias),
        }
    }
}

/// Which normalisation a network is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Batch norm.
    Batch,
    /// Group norm with 16 channels a group.
    Group,
}

/// ε of every norm.
pub const NORM_EPSILON: f64 = 1e-5;
/// Share of a new batch in the running statistics.
pub const NORM_MOMENTUM: f64 = 0.1;

/// Whether a tensor of the state is trained or only kept up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The optimiser changes it.
    Trained,
    /// A batch-norm buffer.
    Buffer,
}

/// How a parameter begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initial {
    /// Normal of variance 2 / (out · k²).
    FanOutNormal,
    /// Uniform within ± 1 / √(in · k²).
    FanInUniform,
    /// Uniform within ± 1 / √fan-in of a weight, for its bias.
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// Normal of that deviation.
    Normal {
        /// Standard deviation.
        deviation: f64,
    },
    /// All the same.
    Constant(f64),
}

/// A named tensor of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// As in the public checkpoints.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Trained or buffer.
    pub role: Role,
    /// How it begins.
    pub initial: Initial,
}

/// What follows the last feature map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Head {
    /// Global average pooling, then a linear layer.
    Classifier {
        /// `[classes, channels]`.
        weight: usize,
        /// `[classes]`.
        bias: usize,
    },
    /// SimKD's projector; its operations are among the network's.
    Projector {
        /// The projected map.
        map: NodeId,
        /// Its side.
        side: i64,
    },
}

/// Whether batch norm takes its statistics from the batch (and updates the running ones) or the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch.
    Train,
    /// Running statistics.
    Evaluate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Node {
    pub(crate) operation: Operation,
    pub(crate) input: NodeId,
}

/// A network without its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    nodes: Vec<Node>,
    parameters: Vec<Parameter>,
    features: NodeId,
    head: Head,
    readers: Vec<u32>,
}

impl Network {
    /// Every tensor of the state, in the order of the network.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// What follows the last feature map.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) const fn features_node(&self) -> NodeId {
        self.features
    }

    /// How many operations read each value (the end counts as one), by number.
    pub(crate) fn all_readers(&self) -> &[u32] {
        &self.readers
    }

    /// Runs the network on images `[n, 3, 32, 32]`: the last feature map `[n, c, s, s]`, and either logits
    /// `[n, classes]` or the projected map `[n, t, s', s']`. Convolutions run in `kind`; what comes out of narrower
    /// ones than f32 is widened.
    ///
    /// # Errors
    /// When LibTorch refuses, as for a batch of another shape.
    pub fn forward(
        &self,
        weights: &[Tensor],
        images: &Tensor,
        mode: Mode,
        kind: Kind,
    ) -> Result<(Tensor, Tensor), LearnError> {
        let mut values: Vec<Option<Tensor>> = (0..=self.nodes.len()).map(|_| None).collect();
        let mut unread = self.readers.clone();
        values[0] = Some(images.f_to_kind(kind)?);
        for (index, node) in self.nodes.iter().enumerate() {
            let other = match node.operation {
                Operation::Add(other) => values[other.0].as_ref().map(Tensor::shallow_clone),
                Operation::Convolution { .. }
                | Operation::Norm(_)
                | Operation::Relu
                | Operation::MaxPool
                | Operation::AveragePool { .. } => None,
            };
            let input = values[node.input.0].as_ref().expect("operations are in order of their inputs");
            let value = apply(node.operation, weights, input, other.as_ref(), mode)?;
            for read in [Some(node.input), self.other_input(index)].into_iter().flatten() {
                unread[read.0] -= 1;
                if unread[read.0] == 0 {
                    values[read.0] = None;
                }
            }
            values[index + 1] = Some(value);
        }
        let take = |id: NodeId| {
            let value = values[id.0].as_ref().expect("the head reads it last");
            let wide = if kind == Kind::Double { Kind::Double } else { Kind::Float };
            value.f_to_kind(wide)
        };
        let features = take(self.features)?;
        let head = match self.head {
            Head::Classifier { weight, bias } => classify(&pooled(&features)?, &weights[weight], &weights[bias])?,
            Head::Projector { map, .. } => take(map)?,
        };
        Ok((features, head))
    }

    pub(crate) fn other_input(&self, node: usize) -> Option<NodeId> {
        match self.nodes[node].operation {
            Operation::Add(other) => Some(other),
            Operation::Convolution { .. }
            | Operation::Norm(_)
            | Operation::Relu
            | Operation::MaxPool
            | Operation::AveragePool { .. } => None,
        }
    }
}

/// Global average pooling: `[n, c, s, s]` to `[n, c]`.
///
/// # Errors
/// When LibTorch refuses.
pub fn pooled(map: &Tensor) -> Result<Tensor, LearnError> {
    Ok(map.f_mean_dim([2i64, 3].as_slice(), false, map.f_kind()?)?)
}

/// A linear classifier: `[n, c]` to `[n, classes]`.
///
/// # Errors
/// When shapes do not fit.
pub fn classify(vectors: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, LearnError> {
    Ok(vectors.f_linear(weight, Some(bias))?)
}

/// One operation. `other` is the second input of a sum.
pub(crate) fn apply(
    operation: Operation,
    weights: &[Tensor],
    input: &Tensor,
    other: Option<&Tensor>,
    mode: Mode,
) -> Result<Tensor, LearnError> {
    Ok(match operation {
        Operation::Convolution { weight, bias, stride, padding } => {
            let kind = input.f_kind()?;
            let weight = weights[weight].f_to_kind(kind)?;
            let bias = bias.map(|b| weights[b].f_to_kind(kind)).transpose()?;
            input.f_conv2d(&weight, bias.as_ref(), [stride; 2], [padding; 2], [1i64; 2], 1)?
        }
        Operation::Norm(Norm::Batch { weight, bias, mean, variance }) => input.f_batch_norm(
            Some(&weights[weight]),
            Some(&weights[bias]),
            Some(&weights[mean]),
            Some(&weights[variance]),
            mode == Mode::Train,
            NORM_MOMENTUM,
            NORM_EPSILON,
            true,
        )?,
        Operation::Norm(Norm::Group { weight, bias, groups }) => {
            let kind = input.f_kind()?;
            input.f_group_norm(
                groups,
                Some(&weights[weight].f_to_kind(kind)?),
                Some(&weights[bias].f_to_kind(kind)?),
                NORM_EPSILON,
                true,
            )?
        }
        Operation::Relu => input.shallow_clone().f_relu_()?,
        Operation::Add(_) => {
            let other = other.expect("a sum has two inputs");
            input.shallow_clone().f_add_(other)?
        }
        Operation::MaxPool => input.f_max_pool2d([2i64; 2], [2i64; 2], [0i64; 2], [1i64; 2], false)?,
        Operation::AveragePool { side } => input.f_adaptive_avg_pool2d([side; 2])?,
    })
}

/// Puts a network together.
pub(super) struct Builder {
    norm: NormKind,
    nodes: Vec<Node>,
    parameters: Vec<Parameter>,
}

impl Builder {
    /// The images.
    pub(super) const INPUT: NodeId = NodeId(0);

    pub(super) const fn new(norm: NormKind) -> Self {
        Self { norm, nodes: Vec::new(), parameters: Vec::new() }
    }

    fn parameter(&mut self, name: String, shape: Vec<i64>, role: Role, initial: Initial) -> usize {
        self.parameters.push(Parameter { name, shape, role, initial });
        self.parameters.len() - 1
    }

    fn node(&mut self, operation: Operation, input: NodeId) -> NodeId {
        self.nodes.push(Node { operation, input });
        NodeId(self.nodes.len())
    }

    /// A square convolution without bias that keeps the side at stride 1.
    pub(super) fn convolution(
        &mut self,
        name: &str,
        input: NodeId,
        (from, to): (i64, i64),
        side: i64,
        stride: i64,
        initial: Initial,
    ) -> NodeId {
        let weight = self.parameter(format!("{name}.weight"), vec![to, from, side, side], Role::Trained, initial);
        let padding = side / 2;
        self.node(Operation::Convolution { weight, bias: None, stride, padding }, input)
    }

    /// A 3×3 convolution with a bias that begins at zero.
    pub(super) fn convolution_with_bias(&mut self, name: &str, input: NodeId, (from, to): (i64, i64)) -> NodeId {
        let weight =
            self.parameter(format!("{name}.weight"), vec![to, from, 3, 3], Role::Trained, Initial::FanOutNormal);
        let bias = self.parameter(format!("{name}.bias"), vec![to], Role::Trained, Initial::Constant(0.0));
        let convolution = Operation::Convolution { weight, bias: Some(bias), stride: 1, padding: 1 };
        self.node(convolution, input)
    }

    pub(super) fn norm(&mut self, name: &str, input: NodeId, channels: i64) -> NodeId {
        let mut vector = |part: &str, role, value| {
            self.parameter(format!("{name}.{part}"), vec![channels], role, Initial::Constant(value))
        };
        let weight = vector("weight", Role::Trained, 1.0);
        let bias = vector("bias", Role::Trained, 0.0);
        let norm = match self.norm {
            NormKind::Batch => Norm::Batch {
                weight,
                bias,
                mean: self.parameter(
                    format!("{name}.running_mean"),
                    vec![channels],
                    Role::Buffer,
                    Initial::Constant(0.0),
                ),
                variance: self.parameter(
                    format!("{name}.running_var"),
                    vec![channels],
                    Role::Buffer,
                    Initial::Constant(1.0),
                ),
            },
            NormKind::Group => Norm::Group { weight, bias, groups: (channels / 16).max(1) },
        };
        self.node(Operation::Norm(norm), input)
    }

    pub(super) fn relu(&mut self, input: NodeId) -> NodeId {
        self.node(Operation::Relu, input)
    }

    pub(super) fn add(&mut self, input: NodeId, other: NodeId) -> NodeId {
        self.node(Operation::Add(other), input)
    }

    pub(super) fn max_pool(&mut self, input: NodeId) -> NodeId {
        self.node(Operation::MaxPool, input)
    }

    pub(super) fn average_pool(&mut self, input: NodeId, side: i64) -> NodeId {
        self.node(Operation::AveragePool { side }, input)
    }

    pub(super) fn linear(&mut self, name: &str, from: i64, to: i64, initial: Initial) -> Head {
        let weight = self.parameter(format!("{name}.weight"), vec![to, from], Role::Trained, initial);
        let bias = match initial {
            Initial::FanInUniform => Initial::Uniform { bound: 1.0 / (from as f64).sqrt() },
            Initial::FanOutNormal | Initial::Uniform { .. } | Initial::Normal { .. } | Initial::Constant(_) => {
                Initial::Constant(0.0)
            }
        };
        let bias = self.parameter(format!("{name}.bias"), vec![to], Role::Trained, bias);
        Head::Classifier { weight, bias }
    }

    pub(super) fn finish(self, features: NodeId, head: Head) -> Network {
        let mut readers = vec![0; self.nodes.len() + 1];
        for node in &self.nodes {
            readers[node.input.0] += 1;
            if let Operation::Add(other) = node.operation {
                readers[other.0] += 1;
            }
        }
        // Read once more at the end, so they are kept until then.
        readers[features.0] += 1;
        if let Head::Projector { map, .. } = head {
            readers[map.0] += 1;
        }
        Network { nodes: self.nodes, parameters: self.parameters, features, head, readers }
    }
}
