use std::path::{Path, PathBuf};
use std::process::Command;

use twin_infer::sample;

use super::*;

const CLASSES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A model with made-up weights; with a teacher's channels a SimKD student under a teacher with so many.
fn model(architecture: Architecture, teacher: Option<usize>) -> Bundle {
    let mut bundle = sample::bundle(architecture, &CLASSES, 1);
    let Some(to) = teacher else { return bundle };
    for name in ["fc", "classifier"] {
        bundle.tensors.retain(|tensor, _| tensor.strip_prefix(name).is_none_or(|rest| !rest.starts_with('.')));
    }
    let from = architecture.feature_map().0;
    let half = to / 2;
    for (number, shape) in [(0, [half, from, 1, 1]), (3, [half, half, 3, 3]), (6, [to, half, 1, 1])] {
        let mut add = |name: String, shape: &[usize]| {
            let weights = sample::weights(&name, shape);
            bundle.tensors.insert(name, weights);
        };
        add(format!("transfer.{number}.weight"), &shape);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            add(format!("transfer.{}.{part}", number + 1), &shape[..1]);
        }
    }
    for (name, shape) in [("classifier.weight", vec![CLASSES.len(), to]), ("classifier.bias", vec![CLASSES.len()])] {
        bundle.tensors.insert(name.into(), sample::weights(name, &shape));
    }
    bundle.about.method = "simkd".into();
    bundle
}

fn every_model() -> Vec<Bundle> {
    let alone = Architecture::ALL.map(|architecture| model(architecture, None));
    let taught = Architecture::STUDENTS.iter().flat_map(|&student| [256, 512].map(|to| model(student, Some(to))));
    alone.into_iter().chain(taught).collect()
}

#[test]
fn onnxruntime_gives_the_boards_logits() {
    let Some(python) = std::env::var_os("TWIN_ONNX_PYTHON") else {
        println!("skipped: TWIN_ONNX_PYTHON names no python with onnxruntime; scripts/test makes one");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (file, pixels) = (directory.path().join("model.onnx"), directory.path().join("pixels"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/logits.py");
    let values = sample::fill("pixels", 2 * 3 * 32 * 32, 0.0, 1.0);
    fs::write(&pixels, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    for bundle in every_model() {
        let about = &bundle.about;
        fs::write(&file, onnx(&bundle).unwrap()).unwrap();
        let done = Command::new(&python).arg(&script).arg(&file).arg(&pixels).output().unwrap();
        assert!(done.status.success(), "{}: {}", about.architecture, String::from_utf8_lossy(&done.stderr));
        let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((&said["input"], &said["output"]), (&"pixels".into(), &"logits".into()));
        assert_eq!(said["metadata"]["version"], about.version().to_string());
        assert_eq!(said["metadata"]["classes"], serde_json::to_string(&CLASSES).unwrap());
        let theirs: Vec<Vec<f32>> = serde_json::from_value(said["logits"].clone()).unwrap();
        let Normalisation { mean, deviation } = about.normalisation;
        let normalised = values.iter().enumerate().map(|(at, value)| {
            let channel = at / (32 * 32) % 3;
            (value - mean[channel]) / deviation[channel]
        });
        let ours = twin_infer::Network::new(&bundle).unwrap().logits_of(normalised.collect(), 2).unwrap();
        let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
        let worst = pairs.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
        println!("{} {}: {worst:e}", about.architecture, about.method);
        assert_eq!(theirs.iter().map(Vec::len).collect::<Vec<_>>(), [CLASSES.len(); 2]);
        assert!(worst < 1e-4, "{} {}: {worst}", about.architecture, about.method);
    }
}

/// A state or teacher as a trainer writes it.
fn write(path: &Path, tensors: &BTreeMap<String, Weights>, beside: Option<&str>) {
    use safetensors::tensor::TensorView;
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, weights)| {
            (name.clone(), weights.shape.clone(), weights.values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let metadata = beside.map(|text| std::collections::HashMap::from([(BESIDE.to_owned(), text.to_owned())]));
    fs::write(path, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

#[test]
fn a_student_and_its_teachers_classifier_make_a_model() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { directory.path().join(name) };
    let whole = model(Architecture::Vgg8, Some(256));
    let (classifier, state): (BTreeMap<_, _>, BTreeMap<_, _>) =
        whole.tensors.clone().into_iter().partition(|(name, _)| name.starts_with("classifier."));
    let teacher = classifier.into_iter().map(|(name, weights)| (name.replace("classifier", "fc"), weights)).collect();
    let beside = serde_json::json!({ "normalisation": whole.about.normalisation }).to_string();
    write(&path("state"), &state, Some(&beside));
    write(&path("teacher"), &teacher, None);
    let parts = Parts {
        device: "board1".parse().unwrap(),
        job: JobId(3),
        epochs: 4,
        architecture: Architecture::Vgg8,
        method: Method::SimKd,
        classes: CLASSES.map(str::to_owned).into(),
        label_counts: vec![5, 6],
        teacher: (path("teacher"), BlobHash([1; 32])),
        state: (path("state"), BlobHash([2; 32])),
    };
    let made = assemble(parts.clone()).unwrap();
    assert_eq!(made.tensors, whole.tensors);
    assert_eq!(made.about.label_counts, [5, 6, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Bundle::from_bytes(&made.to_bytes().unwrap()).unwrap(), made);
    let fewer = Parts { classes: vec!["a".into()], ..parts.clone() };
    assert!(matches!(assemble(fewer), Err(ExportError::Bundle(_))));
    write(&path("state"), &state, None);
    let said = assemble(parts).unwrap_err().to_string();
    assert!(said.contains("normalised"), "{said}");
}
