//! Stochastic gradient descent with Nesterov momentum, with a state that can be written to a file.

use std::path::Path;

use tch::Tensor;

use crate::error::LearnError;
use crate::model::Model;
use crate::tensor_file::{self, About, TensorFile};

/// Momentum of every trained tensor of a model, and the constants of the update
///
/// g ← g + λ w;  v ← μ v + g;  w ← w - η (g + μ v).
#[derive(Debug)]
pub struct Sgd {
    velocity: Vec<Tensor>,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    /// Without momentum yet.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn new(model: &Model, momentum: f64, weight_decay: f64) -> Result<Self, LearnError> {
        let velocity = model
            .trained()
            .map(|(_, tensor)| Ok(tensor.detach().f_zeros_like()?))
            .collect::<Result<_, LearnError>>()?;
        Ok(Self { velocity, momentum, weight_decay })
    }

    /// One update. Gradients are in the order of [`Model::trained`], and are used up.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn step(&mut self, model: &Model, gradients: Vec<Tensor>, learning_rate: f64) -> Result<(), LearnError> {
        debug_assert_eq!(gradients.len(), self.velocity.len());
        // Scalars as tensors: `addcmul_` by one is a multiply-add in a single pass over memory.
        let scalar = |value: f64| Tensor::f_from_slice(&[value as f32])?.f_squeeze()?.f_to_device(model.device());
        let (decay, momentum, descent) = (scalar(self.weight_decay)?, scalar(self.momentum)?, scalar(-learning_rate)?);
        tch::no_grad(|| {
            for (((_, weight), velocity), mut gradient) in model.trained().zip(&mut self.velocity).zip(gradients) {
                let mut weight = weight.shallow_clone();
                let _ = gradient.f_addcmul_(&weight, &decay)?;
                let _ = velocity.f_mul_(&momentum)?.f_add_(&gradient)?;
                let _ = gradient.f_addcmul_(velocity, &momentum)?;
                let _ = weight.f_addcmul_(&gradient, &descent)?;
            }
            Ok(())
        })
    }

    /// Momentum with the names of the tensors it belongs to.
    pub fn named<'a>(&'a self, model: &'a Model) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        model.trained().map(|(name, _)| name).zip(&self.velocity)
    }

    /// Writes the momentum.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, model: &Model, path: &Path) -> Result<(), LearnError> {
        tensor_file::write(path, &About::default(), self.named(model)).map(|_| ())
    }

    /// Reads the momentum.
    ///
    /// # Errors
    /// When the file does not fit the model.
    pub fn load(&mut self, model: &Model, path: &Path) -> Result<(), LearnError> {
        let mut file = TensorFile::read(path)?;
        self.restore(model, |name, shape| file.take(name, shape))?;
        file.finish()
    }

    pub(crate) fn restore(
        &mut self,
        model: &Model,
        mut take: impl FnMut(&str, &[i64]) -> Result<Tensor, LearnError>,
    ) -> Result<(), LearnError> {
        for ((name, weight), velocity) in model.trained().zip(&mut self.velocity) {
            velocity.f_copy_(&take(name, &weight.size())?)?;
        }
        Ok(())
    }
}
