//! A student's network: backbone, projector where it has one, average pooling, classifier.

use candle_core::{Device, Tensor};
use twin_data::bundle::{Bundle, BundleError};
use twin_data::{IMAGE_BYTES, Image, Normalisation, SIDE};
use twin_shared::model::Architecture;

use crate::layer::{Convolution, Shape};

/// Why a network cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// A tensor is missing or of another shape.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The runtime refuses.
    #[error("the runtime refuses: {0}")]
    Runtime(#[from] candle_core::Error),
    /// A norm whose numbers make no convolution, as a variance below zero.
    #[error("the norm {0} cannot be folded into its convolution")]
    Norm(String),
}

/// A network that answers.
#[derive(Debug)]
pub struct Network {
    backbone: Backbone,
    projector: Option<Projector>,
    /// `[channels, classes]`.
    weight: Tensor,
    /// `[classes]`.
    bias: Tensor,
    normalisation: Normalisation,
}

#[derive(Debug)]
enum Backbone {
    /// Convolutions, the first three with poolings behind.
    Vgg(Vec<Convolution>),
    Resnet {
        stem: Convolution,
        blocks: Vec<Block>,
    },
}

#[derive(Debug)]
struct Block {
    first: Convolution,
    second: Convolution,
    shortcut: Option<Convolution>,
}

#[derive(Debug)]
struct Projector {
    /// Means of so many pixels a side come first.
    pool: usize,
    layers: [Convolution; 3],
}

/// Poolings of VGG-8.
const VGG_POOLINGS: usize = 3;

impl Network {
    /// Builds a bundle's network.
    ///
    /// # Errors
    /// When a tensor is missing or of another shape.
    pub fn new(bundle: &Bundle) -> Result<Self, InferError> {
        let architecture = bundle.about.architecture;
        let backbone = match architecture {
            Architecture::Vgg8 => vgg(bundle)?,
            Architecture::Resnet8x4 => resnet(bundle, 1)?,
            Architecture::Resnet14x4 => resnet(bundle, 2)?,
            Architecture::Resnet26x4 => resnet(bundle, 4)?,
            Architecture::Resnet32x4 => resnet(bundle, 5)?,
        };
        let (from, side) = architecture.feature_map();
        let projector = match bundle.tensors.get("transfer.6.weight") {
            Some(last) => Some(projector(bundle, (from, side), last.shape.first().copied().unwrap_or(0))?),
            None => None,
        };
        let (weight, bias) = bundle.classifier()?;
        let channels = projector.as_ref().map_or(from, |projector| projector.channels());
        let classes = bundle.about.classes.len();
        if weight.shape != [classes, channels] {
            let name = "classifier.weight".to_owned();
            return Err(BundleError::Tensor { name, expected: vec![classes, channels] }.into());
        }
        let matrix = Tensor::from_slice(&weight.values, (classes, channels), &Device::Cpu)?;
        Ok(Self {
            backbone,
            projector,
            weight: matrix.t()?.contiguous()?,
            bias: Tensor::from_slice(&bias.values, classes, &Device::Cpu)?,
            normalisation: bundle.about.normalisation,
        })
    }

    /// Logits `[classes]` of each image, normalised as the network wants it.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub fn logits(&self, images: &[&Image]) -> Result<Vec<Vec<f32>>, InferError> {
        let Normalisation { mean, deviation } = self.normalisation;
        let mut values = Vec::with_capacity(images.len() * IMAGE_BYTES);
        for image in images {
            for (channel, plane) in image.chunks_exact(SIDE * SIDE).enumerate() {
                values.extend(plane.iter().map(|&byte| (f32::from(byte) / 255.0 - mean[channel]) / deviation[channel]));
            }
        }
        self.logits_of(values, images.len())
    }

    /// Logits `[classes]` of each of `count` normalised images, `[count, 3, 32, 32]`.
    ///
    /// # Errors
    /// When there are not so many values, or the runtime refuses.
    pub fn logits_of(&self, values: Vec<f32>, count: usize) -> Result<Vec<Vec<f32>>, InferError> {
        let images = Tensor::from_vec(values, (count, 3, SIDE, SIDE), &Device::Cpu)?;
        let mut map = self.backbone.apply(&images)?;
        if let Some(projector) = &self.projector {
            map = projector.apply(map)?;
        }
        let pooled = map.mean((2, 3))?;
        Ok(pooled.matmul(&self.weight)?.broadcast_add(&self.bias)?.to_vec2()?)
    }
}

impl Backbone {
    /// The last feature map.
    fn apply(&self, images: &Tensor) -> Result<Tensor, InferError> {
        match self {
            Self::Vgg(layers) => {
                let mut x = images.clone();
                for (number, layer) in layers.iter().enumerate() {
                    x = layer.apply(&x)?.relu()?;
                    if number < VGG_POOLINGS {
                        x = x.max_pool2d(2)?;
                    }
                }
                Ok(x)
            }
            Self::Resnet { stem, blocks } => {
                let mut x = stem.apply(images)?.relu()?;
                for block in blocks {
                    let y = block.second.apply(&block.first.apply(&x)?.relu()?)?;
                    let beside = match &block.shortcut {
                        Some(shortcut) => shortcut.apply(&x)?,
                        None => x,
                    };
                    x = (y + beside)?.relu()?;
                }
                Ok(x)
            }
        }
    }
}

impl Projector {
    fn channels(&self) -> usize {
        self.layers[2].outputs()
    }

    fn apply(&self, map: Tensor) -> Result<Tensor, InferError> {
        let mut x = if self.pool > 1 { map.avg_pool2d(self.pool)? } else { map };
        for layer in &self.layers {
            x = layer.apply(&x)?.relu()?;
        }
        Ok(x)
    }
}

fn vgg(bundle: &Bundle) -> Result<Backbone, InferError> {
    let mut from = 3;
    let layers = [64, 128, 256, 512, 512].into_iter().enumerate().map(|(block, to)| {
        let (convolution, norm) = (format!("block{block}.0"), format!("block{block}.1"));
        let shape = Shape { convolution: &convolution, norm: &norm, from, to, side: 3, stride: 1, has_bias: true };
        from = to;
        Convolution::folded(bundle, shape)
    });
    Ok(Backbone::Vgg(layers.collect::<Result<_, _>>()?))
}

fn resnet(bundle: &Bundle, blocks: usize) -> Result<Backbone, InferError> {
    let folded = |convolution: &str, norm: &str, (from, to): (usize, usize), side: usize, stride: usize| {
        Convolution::folded(bundle, Shape { convolution, norm, from, to, side, stride, has_bias: false })
    };
    let stem = folded("conv1", "bn1", (3, 32), 3, 1)?;
    let mut from = 32;
    let mut all = Vec::new();
    for (stage, (to, stride)) in [(64, 1), (128, 2), (256, 2)].into_iter().enumerate() {
        for block in 0..blocks {
            let name = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
            let stride = if block == 0 { stride } else { 1 };
            let shortcut = if stride != 1 || from != to {
                Some(folded(&name("downsample.0"), &name("downsample.1"), (from, to), 1, stride)?)
            } else {
                None
            };
            all.push(Block {
                first: folded(&name("conv1"), &name("bn1"), (from, to), 3, stride)?,
                second: folded(&name("conv2"), &name("bn2"), (to, to), 3, 1)?,
                shortcut,
            });
            from = to;
        }
    }
    Ok(Backbone::Resnet { stem, blocks: all })
}

/// From a student's map, `(channels, side)`, to a teacher's of so many channels. A map that is larger than the
/// teacher's is pooled first, as in training.
fn projector(bundle: &Bundle, (from, side): (usize, usize), to: usize) -> Result<Projector, InferError> {
    let target = if to >= 512 { 4 } else { 8 };
    let half = to / 2;
    let folded = |number: usize, (from, to): (usize, usize), side: usize| {
        let (convolution, norm) = (format!("transfer.{number}"), format!("transfer.{}", number + 1));
        let shape = Shape { convolution: &convolution, norm: &norm, from, to, side, stride: 1, has_bias: false };
        Convolution::folded(bundle, shape)
    };
    let layers = [folded(0, (from, half), 1)?, folded(3, (half, half), 3)?, folded(6, (half, to), 1)?];
    Ok(Projector { pool: (side / target).max(1), layers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use std::path::Path;

    const CLASSES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    const BATCH: usize = 4;

    /// The generator's numbers: see tests/fixtures/learning/generate.py.
    #[test]
    fn logits_of_every_network_are_pytorchs() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/learning/expected.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let images = sample::fill("input", BATCH * IMAGE_BYTES, -1.7, 1.7);
        for architecture in Architecture::ALL {
            let network = Network::new(&sample::bundle(architecture, &CLASSES, 0)).unwrap();
            let ours = network.logits_of(images.clone(), BATCH).unwrap();
            let view = file.tensor(&format!("{architecture}.logits")).unwrap();
            assert_eq!(view.shape(), [BATCH, CLASSES.len()]);
            let theirs = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            let worst = ours.iter().flatten().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{architecture}: {worst:e}");
            assert!(worst < 1e-4, "{architecture}: {worst}");
        }
    }

    #[test]
    fn an_image_is_normalised_as_the_bundle_says() {
        let bundle = sample::bundle(Architecture::Vgg8, &["a", "b"], 0);
        let network = Network::new(&bundle).unwrap();
        let image: Box<Image> = Box::new(std::array::from_fn(|i| (i * 7 % 251) as u8));
        let Normalisation { mean, deviation } = bundle.about.normalisation;
        let plain = image.iter().enumerate().map(|(i, &byte)| {
            let channel = i / (SIDE * SIDE);
            (f32::from(byte) / 255.0 - mean[channel]) / deviation[channel]
        });
        let expected = network.logits_of(plain.collect(), 1).unwrap();
        assert_eq!(network.logits(&[&image, &image]).unwrap()[1], expected[0]);
    }

    #[test]
    fn a_missing_tensor_and_a_foreign_classifier_are_named() {
        let mut bundle = sample::bundle(Architecture::Resnet8x4, &["a", "b"], 0);
        bundle.tensors.remove("layer2.0.downsample.1.running_var").unwrap();
        let said = Network::new(&bundle).unwrap_err().to_string();
        assert!(said.contains("layer2.0.downsample.1.running_var"), "{said}");
        let mut bundle = sample::bundle(Architecture::Resnet8x4, &["a", "b"], 0);
        let weight = bundle.tensors.get_mut("fc.weight").unwrap();
        weight.shape = vec![2, 128];
        weight.values.truncate(256);
        assert!(Network::new(&bundle).is_err());
    }
}
