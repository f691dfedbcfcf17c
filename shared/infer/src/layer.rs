//! A convolution with the batch norm after it folded in.
//!
//! Steps of two are not left to the runtime: candle 0.9.2 gives wrong sums for 3×3 kernels with a step of two over
//! small maps. The pixels that each kernel position meets are laid side by side as channels instead, and a 1×1
//! convolution sums them: the same number of multiplications.

use candle_core::{Device, Tensor};
use twin_data::bundle::Bundle;

use crate::network::InferError;

/// ε of every norm, as in training.
const NORM_EPSILON: f64 = 1e-5;

/// A convolution with a bias.
#[derive(Debug)]
pub(crate) struct Convolution {
    weight: Weight,
    /// `[1, out, 1, 1]`.
    bias: Tensor,
    /// Extent of the kernel.
    side: usize,
}

#[derive(Debug)]
enum Weight {
    /// `[out, in, k, k]`, in steps of one.
    Dense(Tensor),
    /// `[out, k · k · in, 1, 1]`, over pixels that lie side by side.
    Spread(Tensor),
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
            let scaled = kernel.iter().map(|&w| (f64::from(w) * scale) as f32);
            if stride == 1 {
                weights.extend(scaled);
            } else {
                let scaled: Vec<f32> = scaled.collect();
                let positions = 0..side * side;
                weights.extend(positions.flat_map(|at| scaled.iter().skip(at).step_by(side * side)));
            }
            biases.push(shift as f32);
        }
        if !weights.iter().chain(&biases).all(|value| value.is_finite()) {
            return Err(InferError::Norm(norm.to_owned()));
        }
        let weight = if stride == 1 {
            Weight::Dense(Tensor::from_vec(weights, (to, from, side, side), &Device::Cpu)?)
        } else {
            Weight::Spread(Tensor::from_vec(weights, (to, side * side * from, 1, 1), &Device::Cpu)?)
        };
        Ok(Self { weight, bias: Tensor::from_vec(biases, (1, to, 1, 1), &Device::Cpu)?, side })
    }

    /// Its output channels.
    pub(crate) fn outputs(&self) -> usize {
        self.bias.elem_count()
    }

    /// `[n, in, s, s]` to `[n, out, s / stride, s / stride]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor, InferError> {
        let y = match &self.weight {
            Weight::Dense(weight) => x.conv2d(weight, self.side / 2, 1, 1, 1)?,
            Weight::Spread(weight) => spread(x, self.side)?.conv2d(weight, 0, 1, 1, 1)?,
        };
        Ok(y.broadcast_add(&self.bias)?)
    }
}

/// For each position of a kernel the pixels that it meets in steps of two: `[n, c, s, s]` to
/// `[n, k · k · c, s / 2, s / 2]`.
fn spread(x: &Tensor, side: usize) -> Result<Tensor, InferError> {
    let (n, channels, height, width) = x.dims4()?;
    let padding = side / 2;
    let padded = x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?;
    let (down, across) = (height / 2 + padding, width / 2 + padding);
    let pairs = padded.reshape((n, channels, down, 2, across, 2))?;
    let mut positions = Vec::with_capacity(side * side);
    for row in 0..side {
        let rows = pairs.narrow(2, row / 2, height / 2)?.narrow(3, row % 2, 1)?;
        for column in 0..side {
            let met = rows.narrow(4, column / 2, width / 2)?.narrow(5, column % 2, 1)?;
            positions.push(met.contiguous()?.reshape((n, channels, height / 2, width / 2))?);
        }
    }
    Ok(Tensor::cat(&positions, 1)?)
}
