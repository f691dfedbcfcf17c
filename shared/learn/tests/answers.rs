//! The board's runtime (twin-infer) against LibTorch: the same logits for every student, SimKD's projector and reused
//! classifier included.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};
use twin_data::Normalisation;
use twin_data::bundle::{About, Bundle, Weights};
use twin_infer::Network;
use twin_learn::Model;
use twin_learn::model::channels_last;
use twin_learn::zoo::{HeadKind, Mode, NormKind, classify, pooled};
use twin_shared::id::BlobHash;
use twin_shared::model::Architecture;

const CLASSES: i64 = 7;
const BATCH: i64 = 3;

fn weights(tensor: &Tensor) -> Weights {
    let flat = tensor.detach().contiguous().flatten(0, -1);
    Weights {
        shape: tensor.size().iter().map(|&extent| extent as usize).collect(),
        values: Vec::try_from(flat).unwrap(),
    }
}

/// Images `[n, 3, 32, 32]` of a seed.
fn images(seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randn([BATCH, 3, 32, 32], (Kind::Float, Device::Cpu))
}

fn compare(architecture: Architecture, head: HeadKind) {
    let model = Model::initial(architecture, head, NormKind::Batch, 5, Device::Cpu).unwrap();
    // Running statistics other than those of a fresh network.
    for seed in 0..3 {
        model.forward(&channels_last(&images(seed)).unwrap(), Mode::Train).unwrap();
    }
    let mut tensors: BTreeMap<String, Weights> =
        model.named().map(|(name, tensor)| (name.to_owned(), weights(tensor))).collect();
    let input = images(9);
    let outputs = model.evaluate(&channels_last(&input).unwrap()).unwrap();
    let logits = match head {
        HeadKind::Classifier { .. } => outputs.head,
        HeadKind::Projector { channels } => {
            let weight = Tensor::randn([CLASSES, channels], (Kind::Float, Device::Cpu)) * 0.1;
            let bias = Tensor::randn([CLASSES], (Kind::Float, Device::Cpu));
            tensors.insert("classifier.weight".into(), weights(&weight));
            tensors.insert("classifier.bias".into(), weights(&bias));
            classify(&pooled(&outputs.head).unwrap(), &weight, &bias).unwrap()
        }
    };
    let about = About {
        architecture,
        method: "simkd".into(),
        classes: (0..CLASSES).map(|class| format!("class {class}")).collect(),
        normalisation: Normalisation { mean: [0.0; 3], deviation: [1.0; 3] },
        label_counts: vec![1; CLASSES as usize],
        teacher: BlobHash([1; 32]),
        state: BlobHash([2; 32]),
        device: "board1".parse().unwrap(),
        job: 1,
        epochs: 1,
    };
    let bundle = Bundle::from_bytes(&Bundle { about, tensors }.to_bytes().unwrap()).unwrap();
    let ours = Network::new(&bundle).unwrap().logits_of(weights(&input).values, BATCH as usize).unwrap();
    let theirs = weights(&logits).values;
    let worst = ours.iter().flatten().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{architecture} {head:?}: {worst}");
}

#[test]
fn every_student_answers_alike_on_board_and_host() {
    for architecture in Architecture::STUDENTS {
        // Teachers of the zoo: ResNets with 256 channels of 8×8, VGG-8 with 512 of 4×4.
        for head in [
            HeadKind::Classifier { classes: CLASSES },
            HeadKind::Projector { channels: 256 },
            HeadKind::Projector { channels: 512 },
        ] {
            compare(architecture, head);
        }
    }
}
