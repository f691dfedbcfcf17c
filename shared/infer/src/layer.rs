//! A convolution with the batch norm after it folded in.
//!
//! Larger kernels than one pixel are not left to the runtime: candle 0.9.2 gives wrong sums for 3×3 kernels over 8 or
//! 32 channels. The pixels that each kernel position meets are laid side by side as channels instead, and a 1×1
//! convolution sums them: the same multiplications, and nine times the memory of the largest map.

use candle_core::{Device, Tensor};
use twin_data::bundle::Bundle;

use crate::network::InferError;

/// ε of every norm, as in training.
const NORM_EPSILON: f64 = 1e-5;

/// A convolution with a bias.
#[derive(Debug)]
pub(crate) struct Convolution {
    /// `[out, k · k · in, 1, 1]`, over pixels that lie side by side.
    weight: Tensor,
    /// `[1, out, 1, 1]`.
    bias: Tensor,
    /// Extent of the kernel.
    side: usize,
    /// 1 or 2.
    stride: usize,
}

/// Where a convolution's numbers are, and its shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape<'a> {
    /// Prefix of the convolution's tensors.
    pub(crate) convolution: &'a str,
    /// Prefix of the norm's.
    pub(crate) norm: &'a str,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) side: usize,
    /// 1 or 2.
    pub(crate) stride: usize,
    pub(crate) has_bias: bool,
}

impl Convolution {
    /// y = γ (w·x + b - μ) / √(σ² + ε) + β as one convolution.
    pub(crate) fn folded(bundle: &Bundle, shape: Shape<'_>) -> Result<Self, InferError> {
        let Shape { convolution, norm, from, to, side, stride, has_bias } = shape;
        let weight = bundle.tensor(&format!("{convolution}.weight"), &[to, from, side, side])?;
        let own = if has_bias { Some(bundle.tensor(&format!("{convolution}.bias"), &[to])?) } else { None };
        let of = |name: &str| bundle.tensor(&format!("{norm}.{name}"), &[to]);
        let (gamma, beta) = (of("weight")?, of("bias")?);
        let (mean, variance) = (of("running_mean")?, of("running_var")?);
        let mut weights = Vec::with_capacity(weight.values.len());
        let mut biases = Vec::with_capacity(to);
        for (channel, kernel) in weight.values.chunks_exact(from * side * side).enumerate() {
            let scale = f64::from(gamma.values[channel]) / (f64::from(variance.values[channel]) + NORM_EPSILON).sqrt();
            let own = own.map_or(0.0, |own| f64::from(own.values[channel]));
            let shift = f64::from(beta.values[channel]) + (own - f64::from(mean.values[channel])) * scale;
            let scaled: Vec<f32> = kernel.iter().map(|&w| (f64::from(w) * scale) as f32).collect();
            weights.extend((0..side * side).flat_map(|at| scaled.iter().skip(at).step_by(side * side)));
            biases.push(shift as f32);
        }
        if !weights.iter().chain(&biases).all(|value| value.is_finite()) {
            return Err(InferError::Norm(norm.to_owned()));
        }
        let weight = Tensor::from_vec(weights, (to, side * side * from, 1, 1), &Device::Cpu)?;
        Ok(Self { weight, bias: Tensor::from_vec(biases, (1, to, 1, 1), &Device::Cpu)?, side, stride })
    }

    /// Its output channels.
    pub(crate) fn outputs(&self) -> usize {
        self.bias.elem_count()
    }

    /// `[n, in, s, s]` to `[n, out, s / stride, s / stride]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor, InferError> {
        let y = spread(x, self.side, self.stride)?.conv2d(&self.weight, 0, 1, 1, 1)?;
        Ok(y.broadcast_add(&self.bias)?)
    }
}

/// For each position of a kernel the pixels that it meets: `[n, c, s, s]` to `[n, k · k · c, s / stride, s / stride]`.
/// Steps are of 1 or 2, and of 2 over even sides.
fn spread(x: &Tensor, side: usize, stride: usize) -> Result<Tensor, InferError> {
    if (side, stride) == (1, 1) {
        return Ok(x.clone());
    }
    let (n, channels, height, width) = x.dims4()?;
    let padding = side / 2;
    let padded = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
    let (tall, wide) = ((height + 2 * padding) / stride, (width + 2 * padding) / stride);
    // Groups of as many pixels as a step is long: a position is one pixel of each group.
    let groups = padded.reshape((n, channels, tall, stride, wide, stride))?;
    let (down, across) = (height / stride, width / stride);
    let mut positions = Vec::with_capacity(side * side);
    for row in 0..side {
        let rows = groups.narrow(2, row / stride, down)?.narrow(3, row % stride, 1)?;
        for column in 0..side {
            let met = rows.narrow(4, column / stride, across)?.narrow(5, column % stride, 1)?;
            positions.push(met.contiguous()?.reshape((n, channels, down, across))?);
        }
    }
    Ok(Tensor::cat(&positions, 1)?)
}
