//! A twin's part in a lockstep step of the shared teacher.
//!
//! Batch norm makes a network's output for one sample depend on all samples of the step. Twins that must not see
//! each other's samples run the same network side by side and stop at every norm layer: there, each hands out the
//! moments of what goes in ([`Moments`]: a count, and a mean and a sum of squared deviations a channel), gets back
//! the moments of all, and goes on. On the way back each hands out the gradients of the layer's scale and shift
//! ([`NormGradient`]), gets back their sums, and goes on. Nothing else passes between twins, and a type that holds
//! samples, activations or labels never leaves this module.
//!
//! Within a twin, autograd does the work. The graph is cut at the input of every norm layer and at every value with
//! several readers; a cut value is a leaf to what follows it. On the way back, cuts are visited in reverse: a leaf's
//! gradient is complete once everything behind it is done, and is then carried on by differentiating
//! Σ value · gradient. So every piece of graph is used once, and several micro-batches are as good as one.

use tch::{Kind, Tensor};
use twin_data::augment::Augmenter;

use super::TwinSamples;
use crate::distill::cross_entropy;
use crate::error::LearnError;
use crate::model::Model;
use crate::zoo::{Head, Mode, NORM_EPSILON, NORM_MOMENTUM, Network, Norm, Operation, Role, apply, classify, pooled};

/// Samples of a twin that go through a layer at a time.
pub const MICRO_BATCH: usize = 64;

/// Moments of a norm layer's input, a channel.
#[derive(Debug)]
pub struct Moments {
    count: f64,
    /// `[channels]`, f64.
    mean: Tensor,
    /// Sum of squared deviations from the mean, `[channels]`, f64.
    squares: Tensor,
}

impl Moments {
    fn of(values: &Tensor) -> Result<Self, LearnError> {
        let size = values.size();
        let count = (values.numel() as i64 / size[1]) as f64;
        // Running statistics in f32, unused, make LibTorch keep the moments of bf16 values in f32.
        let unused = Tensor::f_zeros([size[1]], (Kind::Float, values.device()))?;
        let (mean, variance) = values.f_batch_norm_update_stats(Some(&unused), Some(&unused), 0.0)?;
        Ok(Self {
            count,
            mean: mean.f_to_kind(Kind::Double)?,
            squares: variance.f_to_kind(Kind::Double)?.f_mul_scalar(count)?,
        })
    }

    /// Of two disjoint sets together, without cancellation.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn pooled(self, other: &Self) -> Result<Self, LearnError> {
        let count = self.count + other.count;
        let apart = other.mean.f_sub(&self.mean)?;
        let mean = self.mean.f_add(&apart.f_mul_scalar(other.count / count)?)?;
        let between = apart.f_square()?.f_mul_scalar(self.count * other.count / count)?;
        Ok(Self { count, mean, squares: self.squares.f_add(&other.squares)?.f_add(&between)? })
    }

    /// Mean and (biased) variance, f32.
    fn statistics(&self) -> Result<(Tensor, Tensor), LearnError> {
        let variance = self.squares.f_div_scalar(self.count)?;
        Ok((self.mean.f_to_kind(Kind::Float)?, variance.f_to_kind(Kind::Float)?))
    }

    /// Moves a layer's running statistics towards these.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn update_running(&self, model: &Model, norm: Norm) -> Result<(), LearnError> {
        let Norm::Batch { mean, variance, .. } = norm else {
            return Ok(());
        };
        let unbiased = self.squares.f_div_scalar((self.count - 1.0).max(1.0))?;
        tch::no_grad(|| {
            for (slot, new) in [(mean, &self.mean), (variance, &unbiased)] {
                let mut running = model.weights()[slot].shallow_clone();
                let _ = running.f_lerp_(&new.f_to_kind(Kind::Float)?, NORM_MOMENTUM)?;
            }
            Ok(())
        })
    }
}

/// Gradients of a norm layer's scale and shift, `[channels]`: over one twin, or summed over all.
#[derive(Debug)]
pub struct NormGradient {
    scale: Tensor,
    shift: Tensor,
}

impl NormGradient {
    /// Sum of two.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn pooled(self, other: &Self) -> Result<Self, LearnError> {
        Ok(Self { scale: self.scale.f_add(&other.scale)?, shift: self.shift.f_add(&other.shift)? })
    }
}

/// The batch-norm layers of a network, in order: the node, and its parameters.
#[must_use]
pub fn norm_layers(network: &Network) -> Vec<(usize, Norm)> {
    network
        .nodes()
        .iter()
        .enumerate()
        .filter_map(|(index, node)| match node.operation {
            Operation::Norm(norm @ Norm::Batch { .. }) => Some((index, norm)),
            Operation::Norm(Norm::Group { .. })
            | Operation::Convolution { .. }
            | Operation::Relu
            | Operation::Add(_)
            | Operation::MaxPool
            | Operation::AveragePool { .. } => None,
        })
        .collect()
}

/// A value at which the graph is cut.
struct Cut {
    value: usize,
    /// What the graph before the cut gave.
    before: Tensor,
    /// The same numbers as a leaf for what follows.
    leaf: Tensor,
}

/// One micro-batch on its way through the network.
struct Tape {
    labels: Tensor,
    /// Values still to be read, by number.
    values: Vec<Option<Tensor>>,
    unread: Vec<u32>,
    cuts: Vec<Cut>,
}

/// A twin's part in one step.
pub struct Pass<'a> {
    network: &'a Network,
    /// The shared weights as leaves of this twin's own.
    weights: Vec<Tensor>,
    tapes: Vec<Tape>,
    samples: usize,
    next: usize,
}

impl std::fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pass({} samples, at node {})", self.samples, self.next)
    }
}

impl TwinSamples {
    /// Begins a step of a classifier on the samples `indices`, in micro-batches of at most `micro`.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn begin<'a>(
        &self,
        model: &'a Model,
        indices: &[u32],
        augmenter: &Augmenter,
        micro: usize,
    ) -> Result<Pass<'a>, LearnError> {
        self.require_outputs(model.classes()?)?;
        let network = model.network();
        let weights = network
            .parameters()
            .iter()
            .zip(model.weights())
            .map(|(parameter, tensor)| {
                let leaf = tensor.f_detach()?;
                Ok(leaf.f_set_requires_grad(parameter.role == Role::Trained)?)
            })
            .collect::<Result<_, LearnError>>()?;
        let normalisation = model.normalisation.unwrap_or(self.normalisation());
        let tapes = indices
            .chunks(micro.max(1))
            .map(|part| {
                let mut values: Vec<Option<Tensor>> = (0..=network.nodes().len()).map(|_| None).collect();
                values[0] = Some(self.images(part, Some(augmenter), normalisation)?.f_to_kind(model.place().compute)?);
                Ok(Tape {
                    labels: self.labels(part)?,
                    values,
                    unread: network.all_readers().to_vec(),
                    cuts: Vec::new(),
                })
            })
            .collect::<Result<_, LearnError>>()?;
        Ok(Pass { network, weights, tapes, samples: indices.len(), next: 0 })
    }
}

impl Tape {
    fn read(&mut self, value: usize) -> Tensor {
        let tensor = self.values[value].as_ref().expect("operations are in order of their inputs");
        let tensor = tensor.shallow_clone();
        self.unread[value] -= 1;
        if self.unread[value] == 0 {
            self.values[value] = None;
        }
        tensor
    }

    /// Cuts the graph at a tensor; what follows reads the leaf.
    fn cut(&mut self, value: usize, before: Tensor) -> Result<Tensor, LearnError> {
        let leaf = before.f_detach()?.f_set_requires_grad(true)?;
        self.cuts.push(Cut { value, before, leaf: leaf.shallow_clone() });
        Ok(leaf)
    }

    fn store(&mut self, network: &Network, value: usize, tensor: Tensor) -> Result<(), LearnError> {
        let kept = if network.all_readers()[value] > 1 { self.cut(value, tensor)? } else { tensor };
        self.values[value] = Some(kept);
        Ok(())
    }

    /// Carries gradients on from every cut behind `after`, last first.
    fn backward_to(&mut self, after: usize) -> Result<(), LearnError> {
        while let Some(cut) = self.cuts.pop_if(|cut| cut.value > after) {
            carry(&cut.before, &cut.leaf.grad())?;
        }
        Ok(())
    }
}

/// Carries a map's gradient on to what the map `[n, c, s, s]` was computed from.
fn carry(value: &Tensor, gradient: &Tensor) -> Result<(), LearnError> {
    // A scalar product is one pass over memory forward and one back, without a tensor of products in between.
    let flat = |map: &Tensor| map.f_permute([0i64, 2, 3, 1])?.f_reshape([-1i64]);
    Ok(flat(value)?.f_dot(&flat(gradient)?)?.f_backward()?)
}

impl Pass<'_> {
    /// How many samples take part.
    #[must_use]
    pub const fn samples(&self) -> usize {
        self.samples
    }

    fn run_until(&mut self, end: usize) -> Result<(), LearnError> {
        for index in self.next..end {
            let node = self.network.nodes()[index];
            for tape in &mut self.tapes {
                let input = tape.read(node.input.number());
                let other = self.network.other_input(index).map(|id| tape.read(id.number()));
                let value = apply(node.operation, &self.weights, &input, other.as_ref(), Mode::Train)?;
                tape.store(self.network, index + 1, value)?;
            }
        }
        self.next = end;
        Ok(())
    }

    /// Goes on to norm layer `layer` and hands out the moments of what goes into it.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn moments(&mut self, layer: usize) -> Result<Moments, LearnError> {
        self.run_until(layer)?;
        let value = self.network.nodes()[layer].input.number();
        let mut total: Option<Moments> = None;
        for tape in &self.tapes {
            let input = tape.values[value].as_ref().expect("the layer's input was just computed");
            let own = tch::no_grad(|| Moments::of(&input.f_detach()?))?;
            total = Some(match total {
                None => own,
                Some(before) => before.pooled(&own)?,
            });
        }
        total.ok_or_else(|| LearnError::Job("a twin without samples cannot take part in a step".into()))
    }

    /// Normalises by the moments of all twins.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn normalise(&mut self, layer: usize, norm: Norm, all: &Moments) -> Result<(), LearnError> {
        let node = self.network.nodes()[layer];
        let (weight, bias) = norm.scale_and_shift();
        let (mean, variance) = all.statistics()?;
        for tape in &mut self.tapes {
            let before = tape.read(node.input.number());
            let leaf = tape.cut(node.input.number(), before)?;
            let value = leaf.f_batch_norm(
                Some(&self.weights[weight]),
                Some(&self.weights[bias]),
                Some(&mean),
                Some(&variance),
                false,
                0.0,
                NORM_EPSILON,
                true,
            )?;
            tape.store(self.network, layer + 1, value)?;
        }
        self.next = layer + 1;
        Ok(())
    }

    /// Runs to the end. The loss is this twin's share of the mean over `total` samples; its gradient is carried back
    /// to the last cut.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn loss(&mut self, total: usize) -> Result<f64, LearnError> {
        self.run_until(self.network.nodes().len())?;
        let Head::Classifier { weight, bias } = self.network.head() else {
            return Err(LearnError::Job("only a network with a classifier is trained over twins".into()));
        };
        let features = self.network.features_node().number();
        let mut sum = 0.0;
        for tape in &mut self.tapes {
            let map = tape.read(features);
            let logits = classify(&pooled(&map.f_to_kind(Kind::Float)?)?, &self.weights[weight], &self.weights[bias])?;
            let loss = cross_entropy::sum(&logits, &tape.labels)?.f_div_scalar(total as f64)?;
            loss.f_backward()?;
            sum += loss.f_double_value(&[])?;
        }
        Ok(sum)
    }

    /// Goes back to behind norm layer `layer` and hands out the gradients of its scale and shift.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn norm_gradient(&mut self, layer: usize, norm: Norm) -> Result<NormGradient, LearnError> {
        let value = self.network.nodes()[layer].input.number();
        for tape in &mut self.tapes {
            tape.backward_to(value)?;
        }
        let (weight, bias) = norm.scale_and_shift();
        Ok(NormGradient {
            scale: self.weights[weight].grad().f_detach()?.f_add_scalar(0.0)?,
            shift: self.weights[bias].grad().f_detach()?.f_add_scalar(0.0)?,
        })
    }

    /// Goes back through norm layer `layer`, given its gradients over all twins.
    ///
    /// With x̂ = (x - mean) · s, s = 1/√(variance + ε), and N values a channel over all twins:
    /// ∂x = γ s (∂y - (Σ ∂y + x̂ Σ ∂y x̂) / N).
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn norm_input(
        &mut self,
        layer: usize,
        norm: Norm,
        moments: &Moments,
        all: &NormGradient,
    ) -> Result<(), LearnError> {
        let value = self.network.nodes()[layer].input.number();
        let (weight, _) = norm.scale_and_shift();
        let (linear, constant) = tch::no_grad(|| -> Result<_, LearnError> {
            let (mean, variance) = moments.statistics()?;
            let inverse = variance.f_add_scalar(NORM_EPSILON)?.f_rsqrt()?;
            let share = self.weights[weight].f_detach()?.f_mul(&inverse)?.f_div_scalar(-moments.count)?;
            let linear = share.f_mul(&all.scale)?.f_mul(&inverse)?;
            let constant = share.f_mul(&all.shift)?.f_sub(&linear.f_mul(&mean)?)?;
            let shape = [1, -1, 1, 1];
            Ok((linear.f_reshape(shape)?, constant.f_reshape(shape)?))
        })?;
        for tape in &mut self.tapes {
            let cut = tape
                .cuts
                .pop_if(|cut| cut.value == value)
                .expect("every norm layer's input is cut, and later cuts are done");
            // γ s ∂y: the layer's statistics were constants to autograd.
            let mut gradient = cut.leaf.grad();
            tch::no_grad(|| -> Result<(), LearnError> {
                let _ = gradient.f_addcmul_(&cut.leaf, &linear)?.f_add_(&constant)?;
                Ok(())
            })?;
            carry(&cut.before, &gradient)?;
        }
        Ok(())
    }

    /// This twin's gradients, in the order of [`Model::trained`].
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn finish(self) -> Result<Vec<Tensor>, LearnError> {
        self.network
            .parameters()
            .iter()
            .zip(&self.weights)
            .filter(|(parameter, _)| parameter.role == Role::Trained)
            .map(|(_, tensor)| Ok(tensor.grad().f_detach()?))
            .collect()
    }
}
