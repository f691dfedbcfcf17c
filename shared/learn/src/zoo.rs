//! The zoo: networks as lists of operations over named parameters.
//!
//! A network is data, not code, so that the same definition runs under autograd (one student) and in lockstep over
//! twins that exchange nothing but moments ([`crate::samples`]).

mod network;
mod projector;
mod resnet;
mod vgg;

pub use network::{
    Head, Initial, Mode, NORM_EPSILON, NORM_MOMENTUM, Network, Norm, NormKind, Operation, Parameter, Role, classify,
    pooled,
};

pub(crate) use network::apply;

use twin_shared::model::Architecture;

use network::Builder;

/// What follows a network's last feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// Global average pooling and a linear classifier of that many outputs.
    Classifier {
        /// Outputs.
        classes: i64,
    },
    /// SimKD's projector onto a teacher's last feature map of that many channels.
    Projector {
        /// Channels of the teacher's map.
        channels: i64,
    },
}

/// Builds a network. Batch norm everywhere, or group norm in its place.
#[must_use]
pub fn build(architecture: Architecture, head: HeadKind, norm: NormKind) -> Network {
    let mut builder = Builder::new(norm);
    let (channels, side) = architecture.feature_map();
    let (channels, side) = (channels as i64, side as i64);
    let features = match architecture {
        Architecture::Vgg8 => vgg::vgg8(&mut builder),
        Architecture::Resnet8x4 => resnet::resnet_x4(&mut builder, 1),
        Architecture::Resnet14x4 => resnet::resnet_x4(&mut builder, 2),
        Architecture::Resnet26x4 => resnet::resnet_x4(&mut builder, 4),
        Architecture::Resnet32x4 => resnet::resnet_x4(&mut builder, 5),
    };
    let head = match head {
        HeadKind::Classifier { classes } => {
            let (name, initial) = classifier(architecture);
            builder.linear(name, channels, classes, initial)
        }
        HeadKind::Projector { channels: target } => {
            projector::projector(&mut builder, features, (channels, side), (target, teacher_side(target)))
        }
    };
    builder.finish(features, head)
}

/// Name and initialisation of a network's classifier.
const fn classifier(architecture: Architecture) -> (&'static str, Initial) {
    match architecture {
        Architecture::Vgg8 => vgg::CLASSIFIER,
        Architecture::Resnet8x4 | Architecture::Resnet14x4 | Architecture::Resnet26x4 | Architecture::Resnet32x4 => {
            resnet::CLASSIFIER
        }
    }
}

/// Prefix of the names of a network's classifier.
#[must_use]
pub const fn classifier_name(architecture: Architecture) -> &'static str {
    classifier(architecture).0
}

/// Side of the last feature map of a teacher with that many channels: the ResNets of the zoo have 256 channels of
/// 8×8, VGG has 512 of 4×4.
#[must_use]
pub const fn teacher_side(channels: i64) -> i64 {
    if channels >= 512 { 4 } else { 8 }
}

/// Recognises a network by the names of its tensors.
#[must_use]
pub fn recognise<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<Architecture> {
    if names.clone().any(|name| name == "block0.0.weight") {
        return Some(Architecture::Vgg8);
    }
    let blocks = names.filter_map(|name| name.strip_prefix("layer1.")?.strip_suffix(".conv1.weight")).count();
    match blocks {
        1 => Some(Architecture::Resnet8x4),
        2 => Some(Architecture::Resnet14x4),
        4 => Some(Architecture::Resnet26x4),
        5 => Some(Architecture::Resnet32x4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn trained(network: &Network, of: impl Fn(&str) -> bool) -> usize {
        network
            .parameters()
            .iter()
            .filter(|p| p.role == Role::Trained && of(&p.name))
            .map(|p| p.shape.iter().product::<i64>() as usize)
            .sum()
    }

    #[test]
    fn parameter_counts_are_those_that_the_scheduler_knows() {
        for architecture in Architecture::ALL {
            let network = build(architecture, HeadKind::Classifier { classes: 100 }, NormKind::Batch);
            assert_eq!(trained(&network, |_| true), architecture.parameters(100), "{architecture}");
            let student = build(architecture, HeadKind::Projector { channels: 256 }, NormKind::Batch);
            assert_eq!(
                trained(&student, |name| name.starts_with("transfer.")),
                architecture.projector_parameters(256),
                "{architecture}"
            );
            assert_eq!(
                trained(&student, |name| !name.starts_with("transfer.")),
                architecture.backbone_parameters(),
                "{architecture}"
            );
        }
    }

    #[test]
    fn names_are_unique_and_recognised() {
        for architecture in Architecture::ALL {
            let network = build(architecture, HeadKind::Classifier { classes: 10 }, NormKind::Batch);
            let names: BTreeSet<_> = network.parameters().iter().map(|p| p.name.as_str()).collect();
            assert_eq!(names.len(), network.parameters().len());
            assert_eq!(recognise(names.iter().copied()), Some(architecture));
        }
        assert_eq!(recognise(["conv1.weight", "layer1.0.attention"].into_iter()), None);
    }

    #[test]
    fn the_public_names_are_there() {
        let network = build(Architecture::Resnet32x4, HeadKind::Classifier { classes: 100 }, NormKind::Batch);
        for (name, shape) in [
            ("conv1.weight", vec![32, 3, 3, 3]),
            ("layer1.0.downsample.0.weight", vec![64, 32, 1, 1]),
            ("layer2.0.downsample.1.running_var", vec![128]),
            ("layer3.4.bn2.bias", vec![256]),
            ("fc.weight", vec![100, 256]),
        ] {
            let found = network.parameters().iter().find(|p| p.name == name).unwrap();
            assert_eq!(found.shape, shape, "{name}");
        }
        let vgg = build(Architecture::Vgg8, HeadKind::Classifier { classes: 100 }, NormKind::Batch);
        for name in ["block0.0.weight", "block0.0.bias", "block4.1.running_mean", "classifier.bias"] {
            assert!(vgg.parameters().iter().any(|p| p.name == name), "{name}");
        }
    }
}
