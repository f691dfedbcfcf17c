//! Networks, losses and the optimiser against numbers that PyTorch computed (tests/fixtures/learning/generate.py).
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::path::Path;

use tch::{Device, Kind, Tensor};
use twin_learn::distill::cross_entropy::cross_entropy;
use twin_learn::distill::kd::kd;
use twin_learn::distill::simkd::{map_loss, vector_loss};
use twin_learn::model::channels_last;
use twin_learn::sgd::Sgd;
use twin_learn::tensor_file::{self, About, TensorFile};
use twin_learn::zoo::{self, HeadKind, Mode, NormKind, pooled};
use twin_learn::{LearnError, Model};
use twin_shared::model::Architecture;

const BATCH: i64 = 4;
const CLASSES: i64 = 10;

/// The generator's `fill` as a tensor.
fn fill(name: &str, shape: &[i64], low: f64, high: f64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&twin_tests::fill::fill(name, count, low, high)).reshape(shape)
}

fn weight(name: &str, shape: &[i64]) -> Tensor {
    let extents: Vec<usize> = shape.iter().map(|&extent| extent as usize).collect();
    Tensor::from_slice(&twin_tests::fill::weight(name, &extents)).reshape(shape)
}

/// A network with the generator's weights, by way of a file.
fn model(architecture: Architecture, head: HeadKind) -> Model {
    let network = zoo::build(architecture, head, NormKind::Batch);
    let tensors: Vec<(&str, Tensor)> =
        network.parameters().iter().map(|p| (p.name.as_str(), weight(&p.name, &p.shape))).collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights.safetensors");
    tensor_file::write(&path, &About::default(), tensors.iter().map(|(n, t)| (*n, t))).unwrap();
    Model::load_as(architecture, &path, Device::Cpu).unwrap()
}

/// The generator's `summary`, in the order of the names.
fn summary<'a>(named: impl IntoIterator<Item = (&'a str, Tensor)>) -> Vec<(&'a str, [f64; 2])> {
    let mut rows: Vec<_> = named
        .into_iter()
        .map(|(name, tensor)| {
            let values = tensor.detach().contiguous().to_kind(Kind::Double).flatten(0, -1);
            let probe = fill("probe", &values.size(), -1.0, 1.0).to_kind(Kind::Double);
            let row = [values.norm().double_value(&[]), (values * probe).sum(Kind::Double).double_value(&[])];
            (name, row)
        })
        .collect();
    rows.sort_by_key(|(name, _)| *name);
    rows
}

struct Expected(TensorFile);

impl Expected {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/learning/expected.safetensors");
        Self(TensorFile::read(&path).unwrap())
    }

    fn tensor(&self, name: &str) -> &Tensor {
        &self.0.tensors[name]
    }

    fn number(&self, name: &str, index: i64) -> f64 {
        self.tensor(name).double_value(&[index])
    }

    /// Norms agree to `tolerance`, and scalar products with the probe to `tolerance` of the norm.
    fn check_summary(&self, name: &str, ours: &[(&str, [f64; 2])], tolerance: f64) {
        let expected = self.tensor(name);
        assert_eq!(expected.size(), [ours.len() as i64, 2], "{name}");
        // A convolution's bias before a norm has no gradient but rounding: measure against the largest norm too.
        let largest = (0..ours.len() as i64).map(|row| expected.double_value(&[row, 0])).fold(0.0, f64::max);
        for (row, (tensor, [norm, product])) in ours.iter().enumerate() {
            let at = |column| expected.double_value(&[row as i64, column]);
            let scale = at(0) * tolerance + largest * 1e-6;
            assert!((norm - at(0)).abs() < scale, "{name} {tensor}: norm {norm}, PyTorch {}", at(0));
            assert!((product - at(1)).abs() < scale, "{name} {tensor}: product {product}, PyTorch {}", at(1));
        }
    }
}

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn images(name: &str) -> Tensor {
    channels_last(&fill(name, &[BATCH, 3, 32, 32], -1.7, 1.7)).unwrap()
}

fn labels() -> Tensor {
    (Tensor::arange(BATCH, (Kind::Int64, Device::Cpu)) * 3).remainder(CLASSES)
}

/// The network in double precision: in single, rounding opens other rectifiers, and gradients differ by percents.
struct Double<'a> {
    model: &'a Model,
    weights: Vec<Tensor>,
}

impl<'a> Double<'a> {
    fn of(model: &'a Model) -> Self {
        let copy = |tensor: &Tensor| tensor.detach().to_kind(Kind::Double).set_requires_grad(tensor.requires_grad());
        Self { model, weights: model.weights().iter().map(copy).collect() }
    }

    fn head(&self, input: &str) -> Tensor {
        self.model.network().forward(&self.weights, &images(input), Mode::Train, Kind::Double).unwrap().1
    }

    fn named(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.model.named().map(|(name, _)| name).zip(&self.weights)
    }

    fn gradients(&self, loss: &Tensor) -> Vec<(&str, [f64; 2])> {
        let trained: Vec<_> = self.named().filter(|(_, tensor)| tensor.requires_grad()).collect();
        let tensors: Vec<&Tensor> = trained.iter().map(|(_, tensor)| *tensor).collect();
        let gradients = Tensor::run_backward(&[loss], &tensors, false, false);
        summary(trained.iter().map(|(name, _)| *name).zip(gradients))
    }
}

#[test]
fn forward_and_gradient_of_every_network() {
    let expected = Expected::read();
    for architecture in Architecture::ALL {
        let model = model(architecture, HeadKind::Classifier { classes: CLASSES });
        let outputs = model.evaluate(&images("input")).unwrap();
        let name = architecture.name();
        assert!(worst(&outputs.head, expected.tensor(&format!("{name}.logits"))) < 1e-4, "{name}");
        let features = expected.tensor(&format!("{name}.features"));
        assert!(worst(&outputs.features.narrow(0, 0, 1), features) < 1e-4, "{name}");

        let double = Double::of(&model);
        let loss = cross_entropy(&double.head("input"), &labels()).unwrap();
        let theirs = expected.number(&format!("{name}.loss"), 0);
        assert!((loss.double_value(&[]) - theirs).abs() < 1e-6, "{name}");
        expected.check_summary(&format!("{name}.gradient"), &double.gradients(&loss), 1e-4);
        let buffers = double.named().filter(|(name, _)| name.contains("running"));
        let buffers = summary(buffers.map(|(name, tensor)| (name, tensor.shallow_clone())));
        expected.check_summary(&format!("{name}.buffers"), &buffers, 1e-4);
    }
}

#[test]
fn simkd_losses_and_gradients() {
    let expected = Expected::read();
    for architecture in [Architecture::Vgg8, Architecture::Resnet8x4] {
        let model = model(architecture, HeadKind::Projector { channels: 256 });
        let double = Double::of(&model);
        let teacher = fill("teacher map", &[BATCH, 256, 8, 8], 0.0, 1.0).to_kind(Kind::Double);
        let projected = double.head("input");
        let map = map_loss(&projected, &teacher).unwrap();
        let vector = vector_loss(&projected, &pooled(&teacher).unwrap()).unwrap();
        for (index, loss) in [&map, &vector].into_iter().enumerate() {
            let theirs = expected.number(&format!("simkd.{architecture}.losses"), index as i64);
            assert!((loss.double_value(&[]) - theirs).abs() < 1e-6 * theirs.max(1.0), "{architecture}");
        }
        expected.check_summary(&format!("simkd.{architecture}.gradient"), &double.gradients(&map), 1e-4);
        let scalars = teacher.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double);
        assert!(matches!(vector_loss(&projected, &scalars), Err(LearnError::Job(_))));
    }
}

#[test]
fn classic_losses() {
    let expected = Expected::read();
    let logits = |name| fill(name, &[BATCH, CLASSES], -3.0, 3.0);
    let (student, teacher) = (logits("student logits"), logits("teacher logits"));
    let hard = cross_entropy(&student, &labels()).unwrap().double_value(&[]);
    let both = kd(&student, &teacher, &labels(), 4.0, 0.9).unwrap().double_value(&[]);
    assert!((hard - expected.number("kd.losses", 0)).abs() < 1e-5, "{hard}");
    assert!((both - expected.number("kd.losses", 1)).abs() < 1e-5, "{both}");
}

#[test]
fn three_steps_of_the_optimiser() {
    let expected = Expected::read();
    let model = model(Architecture::Resnet8x4, HeadKind::Classifier { classes: CLASSES });
    let mut optimiser = Sgd::new(&model, 0.9, 7.5e-4).unwrap();
    for step in 0..3 {
        let outputs = model.forward(&images(&format!("input {step}")), Mode::Train).unwrap();
        let loss = cross_entropy(&outputs.head, &labels()).unwrap();
        let trained: Vec<&Tensor> = model.trained().map(|(_, tensor)| tensor).collect();
        let gradients = Tensor::run_backward(&[&loss], &trained, false, false);
        optimiser.step(&model, gradients, 0.05).unwrap();
    }
    let weights = summary(model.trained().map(|(name, tensor)| (name, tensor.shallow_clone())));
    expected.check_summary("sgd.resnet8x4", &weights, 2e-3);
}
