//! A network with its weights: a student state, a teacher, or a checkpoint of another's making.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};
use twin_data::Normalisation;
use twin_shared::model::Architecture;

use crate::error::LearnError;
use crate::place::Place;
use crate::tensor_file::{self, About, TensorFile, Written};
use crate::zoo::{self, Head, HeadKind, Initial, Mode, Network, NormKind, Role};

/// A network with its weights on a device.
///
/// The **student state** is the list of all its tensors, backbone, projector or classifier, and batch-norm buffers,
/// in the order of their names; hash, size on the wire, checkpoints and exports all mean this list.
#[derive(Debug)]
pub struct Model {
    architecture: Architecture,
    network: Network,
    weights: Vec<Tensor>,
    /// How images must be normalised for it; `None` until it has seen data.
    pub normalisation: Option<Normalisation>,
    compute: Kind,
}

/// Held from seeding LibTorch's generator to the last number drawn.
static GENERATOR: Mutex<()> = Mutex::new(());

/// What a network makes of images.
#[derive(Debug)]
pub struct Outputs {
    /// The last feature map, `[n, c, s, s]`.
    pub features: Tensor,
    /// Logits `[n, classes]`, or the projected map `[n, t, s', s']`.
    pub head: Tensor,
}

impl Model {
    /// Fresh weights of a seed, drawn on the CPU whatever the place.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn initial(
        architecture: Architecture,
        head: HeadKind,
        norm: NormKind,
        seed: u64,
        place: impl Into<Place>,
    ) -> Result<Self, LearnError> {
        let Place { device, compute } = place.into();
        let network = zoo::build(architecture, head, norm);
        // LibTorch's generator is one for the whole process.
        let _held = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(seed.cast_signed());
        let weights = network
            .parameters()
            .iter()
            .map(|parameter| {
                let values = initial_values(&parameter.shape, parameter.initial)?;
                placed(&values, parameter.role, device)
            })
            .collect::<Result<_, LearnError>>()?;
        Ok(Self { architecture, network, weights, normalisation: None, compute })
    }

    /// Reads a file and recognises its network by the names and shapes of the tensors.
    ///
    /// # Errors
    /// When the file cannot be read, holds no network of the zoo, or a tensor is missing, unknown, of another shape
    /// or not finite.
    pub fn load(path: &Path, place: impl Into<Place>) -> Result<Self, LearnError> {
        Self::from_file(TensorFile::read(path)?, None, place.into())
    }

    /// Reads a file as that network; the number of classes, or of the projector's channels, is read from it.
    ///
    /// # Errors
    /// As [`Self::load`], and when it is another network's.
    pub fn load_as(architecture: Architecture, path: &Path, place: impl Into<Place>) -> Result<Self, LearnError> {
        Self::from_file(TensorFile::read(path)?, Some(architecture), place.into())
    }

    pub(crate) fn from_file(
        mut file: TensorFile,
        wanted: Option<Architecture>,
        place: Place,
    ) -> Result<Self, LearnError> {
        let Place { device, compute } = place;
        let unknown = |problem: String| LearnError::UnknownNetwork { path: file.path.clone(), problem };
        let names = || file.tensors.keys().map(String::as_str);
        let architecture = match (zoo::recognise(names()), wanted) {
            (Some(found), Some(wanted)) if found != wanted => {
                return Err(unknown(format!("it is a {found}, not a {wanted}")));
            }
            (Some(found), _) => found,
            // What is missing is named below.
            (None, Some(wanted)) => wanted,
            (None, None) => {
                let first = names().next().unwrap_or("no tensor at all");
                return Err(unknown(format!("its tensors have other names; it has `{first}`")));
            }
        };
        let extent = |name: &str| {
            let shape = file.tensors.get(name)?.size();
            shape.first().copied().filter(|&n| (1..=65_535).contains(&n))
        };
        let classifier = zoo::classifier_name(architecture);
        let of_classifier = |part: &str| extent(&format!("{classifier}.{part}"));
        let head = match (extent("transfer.6.weight"), of_classifier("weight").or(of_classifier("bias"))) {
            (Some(channels), None) => HeadKind::Projector { channels },
            (None, Some(classes)) => HeadKind::Classifier { classes },
            (None, None) => {
                let channels = architecture.feature_map().0;
                return Err(unknown(format!(
                    "it has neither a classifier (`{classifier}.weight` of shape [classes, {channels}]) nor a projector \
                     (`transfer.6.weight`)"
                )));
            }
            (Some(_), Some(_)) => return Err(unknown("it has both a classifier and a projector".into())),
        };
        let norm = if names().any(|name| name.ends_with(".running_mean")) { NormKind::Batch } else { NormKind::Group };
        let network = zoo::build(architecture, head, norm);
        let weights = network
            .parameters()
            .iter()
            .map(|parameter| placed(&file.take(&parameter.name, &parameter.shape)?, parameter.role, device))
            .collect::<Result<_, LearnError>>()?;
        let normalisation = file.about.normalisation;
        file.finish()?;
        Ok(Self { architecture, network, weights, normalisation, compute })
    }

    /// Takes over the weights of the same network with as many classes or fewer. The classifier's rows of the classes
    /// beyond stay as they are; the normalisation too.
    ///
    /// # Errors
    /// When the networks differ in more than that.
    pub fn take_over(&mut self, earlier: &Self) -> Result<(), LearnError> {
        let _guard = tch::no_grad_guard();
        let (had, has) = (earlier.classes()?, self.classes()?);
        if earlier.architecture != self.architecture || had > has {
            return Err(LearnError::Job(format!(
                "a {} with {has} classes cannot go on from a {} with {had}",
                self.architecture, earlier.architecture
            )));
        }
        for ((parameter, own), theirs) in self.network.parameters().iter().zip(&self.weights).zip(&earlier.weights) {
            let (shape, given) = (own.size(), theirs.size());
            let rows = if shape == given { own.shallow_clone() } else { own.f_narrow(0, 0, had)? };
            if rows.size() != given {
                return Err(LearnError::Job(format!("{} is {given:?} there and {shape:?} here", parameter.name)));
            }
            rows.detach().f_copy_(theirs)?;
        }
        Ok(())
    }

    /// Writes the state.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, path: &Path) -> Result<Written, LearnError> {
        let about = About { normalisation: self.normalisation, ..About::default() };
        tensor_file::write(path, &about, self.named())
    }

    /// Every tensor of the state with its name.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.network.parameters().iter().map(|parameter| parameter.name.as_str()).zip(&self.weights)
    }

    /// The network's name.
    #[must_use]
    pub const fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Its tensors, as numbered by the network.
    pub fn weights(&self) -> &[Tensor] {
        &self.weights
    }

    /// Where it lives and computes.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { device: self.device(), compute: self.compute }
    }

    /// Where its tensors live.
    #[must_use]
    pub fn device(&self) -> Device {
        self.weights[0].device()
    }

    /// The trained tensors with their names, in the network's order.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.network
            .parameters()
            .iter()
            .zip(&self.weights)
            .filter(|(parameter, _)| parameter.role == Role::Trained)
            .map(|(parameter, tensor)| (parameter.name.as_str(), tensor))
    }

    /// Outputs of its classifier.
    ///
    /// # Errors
    /// When it has a projector instead.
    pub fn classes(&self) -> Result<i64, LearnError> {
        Ok(self.classifier()?.0.size()[0])
    }

    /// Weight `[classes, c]` and bias `[classes]` of its classifier.
    ///
    /// # Errors
    /// When it has a projector instead.
    pub fn classifier(&self) -> Result<(&Tensor, &Tensor), LearnError> {
        match self.network.head() {
            Head::Classifier { weight, bias } => Ok((&self.weights[weight], &self.weights[bias])),
            Head::Projector { .. } => Err(LearnError::Job(format!(
                "this {} is a SimKD student without a classifier of its own",
                self.architecture
            ))),
        }
    }

    /// Runs it on normalised images `[n, 3, 32, 32]`.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Outputs, LearnError> {
        let (features, head) = self.network.forward(&self.weights, images, mode, self.compute)?;
        Ok(Outputs { features, head })
    }

    /// Runs it on normalised images `[n, 3, 32, 32]` with running statistics and without gradients.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn evaluate(&self, images: &Tensor) -> Result<Outputs, LearnError> {
        tch::no_grad(|| self.forward(images, Mode::Evaluate))
    }

    /// A copy that shares nothing.
    ///
    /// # Errors
    /// When LibTorch refuses.
    pub fn duplicate(&self) -> Result<Self, LearnError> {
        let weights = self
            .network
            .parameters()
            .iter()
            .zip(&self.weights)
            .map(|(parameter, tensor)| {
                let mut copy = tensor.detach().f_zeros_like()?;
                copy.f_copy_(tensor)?;
                Ok(copy.f_set_requires_grad(parameter.role == Role::Trained)?)
            })
            .collect::<Result<_, LearnError>>()?;
        Ok(Self {
            architecture: self.architecture,
            network: self.network.clone(),
            weights,
            normalisation: self.normalisation,
            compute: self.compute,
        })
    }
}

/// A tensor of four dimensions in the channels-last memory format; values and shape are the same.
///
/// # Errors
/// When LibTorch refuses.
pub fn channels_last(tensor: &Tensor) -> Result<Tensor, LearnError> {
    Ok(tensor.f_permute([0i64, 2, 3, 1])?.f_contiguous()?.f_permute([0i64, 3, 1, 2])?)
}

fn placed(values: &Tensor, role: Role, device: Device) -> Result<Tensor, LearnError> {
    let values = values.f_to_device(device)?;
    let values = if values.dim() == 4 { channels_last(&values)? } else { values };
    Ok(values.detach().f_set_requires_grad(role == Role::Trained)?)
}

fn initial_values(shape: &[i64], initial: Initial) -> Result<Tensor, LearnError> {
    let mut tensor = Tensor::f_zeros(shape, (Kind::Float, Device::Cpu))?;
    let receptive: i64 = shape.iter().skip(2).product();
    let deviation = match initial {
        Initial::Constant(value) => return Ok(tensor.f_fill_(value)?),
        Initial::Uniform { bound } => return Ok(tensor.f_uniform_(-bound, bound)?),
        Initial::FanInUniform => {
            let bound = 1.0 / ((shape[1] * receptive) as f64).sqrt();
            return Ok(tensor.f_uniform_(-bound, bound)?);
        }
        Initial::FanOutNormal => (2.0 / (shape[0] * receptive) as f64).sqrt(),
        Initial::Normal { deviation } => deviation,
    };
    Ok(tensor.f_normal_(0.0, deviation)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn teacher(classes: i64, seed: u64) -> Model {
        let head = HeadKind::Classifier { classes };
        Model::initial(Architecture::Vgg8, head, NormKind::Batch, seed, Device::Cpu).unwrap()
    }

    #[test]
    fn a_wider_classifier_answers_as_before_on_the_old_classes() {
        let (narrow, mut wide) = (teacher(3, 1), teacher(5, 2));
        let images = Tensor::f_ones([2, 3, 32, 32], (Kind::Float, Device::Cpu)).unwrap();
        let rows = |model: &Model| {
            let logits = model.evaluate(&images).unwrap().head;
            Vec::<f32>::try_from(logits.narrow(1, 0, 3).contiguous().flatten(0, -1)).unwrap()
        };
        // A wider product adds up in another order: the last bits may differ.
        let furthest = |model: &Model| {
            let pairs = rows(model).into_iter().zip(rows(&narrow));
            pairs.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max)
        };
        assert!(furthest(&wide) > 1e-3);
        wide.take_over(&narrow).unwrap();
        assert!(furthest(&wide) < 1e-6, "{}", furthest(&wide));
        assert_eq!(wide.classes().unwrap(), 5);
    }

    #[test]
    fn a_narrower_classifier_and_another_network_are_refused() {
        assert!(teacher(3, 1).take_over(&teacher(5, 2)).is_err());
        let head = HeadKind::Classifier { classes: 3 };
        let other = Model::initial(Architecture::Resnet8x4, head, NormKind::Batch, 1, Device::Cpu).unwrap();
        assert!(teacher(3, 1).take_over(&other).is_err());
    }
}
