//! A lockstep step over twins is the step that all samples in one place would give.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::path::PathBuf;

use tch::{Device, Kind, Tensor};
use twin_data::augment::Augmenter;
use twin_data::{ImageSet, Normalisation};
use twin_learn::fedsgd::synchronised_gradient;
use twin_learn::samples::Guide;
use twin_learn::zoo::{HeadKind, NormKind};
use twin_learn::{Model, Place, TwinSamples};
use twin_shared::model::Architecture;
use twin_shared::plan::{Augmentation, Method};

const AUGMENTATION: Augmentation = Augmentation { crop_padding: 4, flip: true };

/// Noise around a level of its own for every class: twins without a class in common differ in their moments.
fn images(count: usize, classes: std::ops::Range<u16>) -> ImageSet {
    let normalisation = Normalisation { mean: [0.4; 3], deviation: [0.2; 3] };
    let mut set = ImageSet::new(6, normalisation).unwrap();
    let span = usize::from(classes.end - classes.start);
    for number in 0..count {
        let label = classes.start + (number % span) as u16;
        let image = std::array::from_fn(|i| {
            let noise = (i * 2_654_435_761 + number * 40_503 + usize::from(label) * 977) >> 7;
            (noise % 120) as u8 + 20 * label as u8
        });
        set.push(label, &image).unwrap();
    }
    set
}

struct Files(tempfile::TempDir);

impl Files {
    fn open(&self, name: &str, set: &ImageSet) -> TwinSamples {
        let path: PathBuf = self.0.path().join(name);
        set.write(&path).unwrap();
        TwinSamples::open(&path, Device::Cpu).unwrap()
    }
}

/// Largest difference of a number, relative to the largest of its tensor.
fn worst_difference(a: &[Tensor], b: &[Tensor]) -> f64 {
    let relative = |(a, b): (&Tensor, &Tensor)| {
        let scale = b.abs().max().double_value(&[]).max(1e-3);
        (a - b).abs().max().double_value(&[]) / scale
    };
    a.iter().zip(b).map(relative).fold(0.0, f64::max)
}

/// Length of the difference of two gradients, relative to the second.
fn distance(a: &[Tensor], b: &[Tensor]) -> f64 {
    let square = |t: Tensor| t.square().sum(Kind::Double).double_value(&[]);
    let apart: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    let length: f64 = b.iter().map(|b| square(b.shallow_clone())).sum();
    (apart / length).sqrt()
}

fn buffers(model: &Model) -> Vec<Tensor> {
    model.named().filter(|(name, _)| name.contains("running")).map(|(_, tensor)| tensor.shallow_clone()).collect()
}

#[test]
fn a_step_over_twins_equals_the_central_one_for_every_micro_batch() {
    let files = Files(tempfile::tempdir().unwrap());
    let parts = [images(9, 0..2), images(7, 2..5), images(4, 5..6)];
    let twins: Vec<TwinSamples> = parts.iter().enumerate().map(|(i, set)| files.open(&format!("{i}"), set)).collect();
    let mut all = images(0, 0..1);
    for set in &parts {
        for index in 0..set.len() {
            all.push(set.label(index), set.image(index)).unwrap();
        }
    }
    let central = files.open("all", &all);
    // Augmentation depends on an index within a twin, so the comparison is made without it.
    let plain = Augmenter::new(1, 0, Augmentation { crop_padding: 0, flip: false });
    let everyone: Vec<Vec<u32>> = parts.iter().map(|set| (0..set.len() as u32).collect()).collect();
    let everyone: Vec<&[u32]> = everyone.iter().map(Vec::as_slice).collect();
    for architecture in [Architecture::Resnet8x4, Architecture::Vgg8] {
        let fresh = || {
            let head = HeadKind::Classifier { classes: 6 };
            Model::initial(architecture, head, NormKind::Batch, 4, Device::Cpu).unwrap()
        };
        let reference = fresh();
        let indices: Vec<u32> = (0..all.len() as u32).collect();
        let (loss, gradients) =
            central.gradient(&reference, Method::CrossEntropy, Guide::Labels, &indices, &plain).unwrap();
        for micro in [64, 3, 1] {
            let model = fresh();
            let (ours, over_twins) = synchronised_gradient(&model, &twins, &everyone, &plain, micro).unwrap();
            assert!((ours - loss).abs() < 1e-5, "{architecture} by {micro}: {ours} and {loss}");
            // A rectifier whose input is zero but for rounding may open in one sum and not in the other, which
            // moves single numbers: the same samples in another order differ as much.
            let apart = distance(&over_twins, &gradients);
            assert!(apart < 5e-4, "{architecture} by {micro}: gradients are {apart} apart");
            for (a, b) in over_twins.iter().zip(&gradients) {
                let step = 0.05 * (a - b).abs().max().double_value(&[]);
                assert!(step < 1e-4, "{architecture} by {micro}: weights after a step differ by {step}");
            }
            let running = worst_difference(&buffers(&model), &buffers(&reference));
            assert!(running < 5e-4, "{architecture} by {micro}: running statistics differ by {running}");
        }
    }
}

#[test]
fn a_step_over_twins_in_bf16_is_as_near_to_the_exact_one_as_the_central_one() {
    let files = Files(tempfile::tempdir().unwrap());
    let parts = [images(9, 0..2), images(7, 2..6)];
    let twins: Vec<TwinSamples> = parts.iter().enumerate().map(|(i, set)| files.open(&format!("{i}"), set)).collect();
    let mut all = images(0, 0..1);
    for set in &parts {
        for index in 0..set.len() {
            all.push(set.label(index), set.image(index)).unwrap();
        }
    }
    let central = files.open("all", &all);
    let plain = Augmenter::new(1, 0, Augmentation { crop_padding: 0, flip: false });
    let everyone: Vec<Vec<u32>> = parts.iter().map(|set| (0..set.len() as u32).collect()).collect();
    let everyone: Vec<&[u32]> = everyone.iter().map(Vec::as_slice).collect();
    let indices: Vec<u32> = (0..all.len() as u32).collect();
    let fresh = |compute| {
        let head = HeadKind::Classifier { classes: 6 };
        let place = Place { device: Device::Cpu, compute };
        Model::initial(Architecture::Resnet8x4, head, NormKind::Batch, 4, place).unwrap()
    };
    let of_all =
        |model: &Model| central.gradient(model, Method::CrossEntropy, Guide::Labels, &indices, &plain).unwrap();
    let (exact_loss, exact) = of_all(&fresh(Kind::Float));
    let half = fresh(Kind::BFloat16);
    let (central_loss, by_central) = of_all(&half);
    let lockstep = fresh(Kind::BFloat16);
    let (loss, by_twins) = synchronised_gradient(&lockstep, &twins, &everyone, &plain, 3).unwrap();
    assert!((loss - exact_loss).abs() < 0.05 && (central_loss - exact_loss).abs() < 0.05, "{loss} {exact_loss}");
    let (rounding, apart) = (distance(&by_central, &exact), distance(&by_twins, &exact));
    assert!(apart < 2.0 * rounding, "{apart} from the exact gradient, the central one {rounding}");
    assert!(by_twins.iter().all(|gradient| gradient.kind() == Kind::Float));
    let running = worst_difference(&buffers(&lockstep), &buffers(&half));
    assert!(running < 0.02, "running statistics differ by {running}");
}

#[test]
fn statistics_of_one_twin_alone_would_not_do() {
    // What the test above would not notice if the twins' moments happened to agree.
    let files = Files(tempfile::tempdir().unwrap());
    let twins = [files.open("a", &images(8, 0..2)), files.open("b", &images(8, 4..6))];
    let augmenter = Augmenter::new(1, 0, AUGMENTATION);
    let indices: Vec<u32> = (0..8).collect();
    let head = HeadKind::Classifier { classes: 6 };
    let model = Model::initial(Architecture::Resnet8x4, head, NormKind::Batch, 4, Device::Cpu).unwrap();
    let (_, together) = synchronised_gradient(&model, &twins, &[&indices, &indices], &augmenter, 64).unwrap();
    let halves: Vec<Vec<Tensor>> = twins
        .iter()
        .map(|twin| twin.gradient(&model, Method::CrossEntropy, Guide::Labels, &indices, &augmenter).unwrap().1)
        .collect();
    let averaged: Vec<Tensor> = halves[0].iter().zip(&halves[1]).map(|(a, b)| (a + b) * 0.5).collect();
    assert!(distance(&together, &averaged) > 1e-1);
}

#[test]
fn twins_without_samples_sit_out_and_nobody_at_all_is_an_error() {
    let files = Files(tempfile::tempdir().unwrap());
    let twins = [files.open("a", &images(8, 0..2)), files.open("b", &images(8, 4..6))];
    let augmenter = Augmenter::new(1, 0, AUGMENTATION);
    let head = HeadKind::Classifier { classes: 6 };
    let model = Model::initial(Architecture::Resnet8x4, head, NormKind::Batch, 4, Device::Cpu).unwrap();
    let some: Vec<u32> = (0..8).collect();
    let (loss, gradients) = synchronised_gradient(&model, &twins, &[&some, &[]], &augmenter, 64).unwrap();
    assert!(loss > 0.0 && gradients.iter().all(|g| g.isfinite().all().int64_value(&[]) == 1));
    assert_eq!(gradients[0].kind(), Kind::Float);
    assert!(synchronised_gradient(&model, &twins, &[&[], &[]], &augmenter, 64).is_err());
}
