//! `model eval`, `model list` and `bench train` with the programs as they are deployed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use twin_tests::fill::{fill, weight};
use twin_tests::programs_or_skip;

const CLASSES: usize = 10;
const IMAGES: usize = 4;

/// Names and shapes of a network's tensors.
type Shapes = Vec<(String, Vec<usize>)>;

fn norm(name: &str, channels: usize) -> Shapes {
    ["weight", "bias", "running_mean", "running_var"]
        .map(|part| (format!("{name}.{part}"), vec![channels]))
        .into_iter()
        .collect()
}

/// ResNet-(6n + 2)x4 as the public checkpoints name it, written down here once more on purpose.
fn resnet(blocks: usize) -> Shapes {
    let mut all = vec![("conv1.weight".to_owned(), vec![32, 3, 3, 3])];
    all.extend(norm("bn1", 32));
    let mut from = 32;
    for (stage, to) in [64, 128, 256].into_iter().enumerate() {
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            all.push((format!("{name}.conv1.weight"), vec![to, from, 3, 3]));
            all.extend(norm(&format!("{name}.bn1"), to));
            all.push((format!("{name}.conv2.weight"), vec![to, to, 3, 3]));
            all.extend(norm(&format!("{name}.bn2"), to));
            if block == 0 {
                all.push((format!("{name}.downsample.0.weight"), vec![to, from, 1, 1]));
                all.extend(norm(&format!("{name}.downsample.1"), to));
            }
            from = to;
        }
    }
    all.extend([("fc.weight".to_owned(), vec![CLASSES, 256]), ("fc.bias".to_owned(), vec![CLASSES])]);
    all
}

fn vgg8() -> Shapes {
    let mut all = Vec::new();
    let mut from = 3;
    for (block, to) in [64, 128, 256, 512, 512].into_iter().enumerate() {
        all.push((format!("block{block}.0.weight"), vec![to, from, 3, 3]));
        all.push((format!("block{block}.0.bias"), vec![to]));
        all.extend(norm(&format!("block{block}.1"), to));
        from = to;
    }
    all.extend([("classifier.weight".to_owned(), vec![CLASSES, 512]), ("classifier.bias".to_owned(), vec![CLASSES])]);
    all
}

/// Writes tensors of these values.
fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views: HashMap<&str, TensorView<'_>> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| {
            (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as the shape says"))
        })
        .collect();
    serialize_to_file(views, None, path).expect("written");
}

fn weights(path: &Path, shapes: &Shapes) {
    let tensors: Vec<_> =
        shapes.iter().map(|(name, shape)| (name.clone(), shape.clone(), weight(name, shape))).collect();
    write(path, &tensors);
}

/// Shape and values of a tensor of a file.
fn read(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).expect("the file is there");
    let file = SafeTensors::deserialize(&bytes).expect("whole");
    let view = file.tensor(name).expect("the tensor is there");
    assert_eq!(view.dtype(), Dtype::F32);
    let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (view.shape().to_vec(), values)
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

struct Bench {
    folder: tempfile::TempDir,
    programs: PathBuf,
}

impl Bench {
    fn new(programs: PathBuf) -> Self {
        let bench = Self { folder: tempfile::tempdir().expect("a folder"), programs };
        let shape = vec![IMAGES, 3, 32, 32];
        let input = fill("input", shape.iter().product(), -1.7, 1.7);
        write(&bench.path("input"), &[("input".to_owned(), shape, input)]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.safetensors"))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(self.programs.join("twin-host")).args(arguments).output().expect("twin-host starts")
    }

    fn eval(&self, arch: &str, weights: &str, input: &str) -> Output {
        let path = |name: &str| self.path(name).display().to_string();
        let (weights, input, output) = (path(weights), path(input), path("output"));
        self.run(&["model", "eval", "--arch", arch, "--weights", &weights, "--input", &input, "--output", &output])
    }

    /// Refused with status 1 and one line that holds all of these; nothing is written.
    fn refused(&self, arch: &str, weights: &str, input: &str, said: &[&str]) {
        let output = self.eval(arch, weights, input);
        let line = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        for part in said {
            assert!(line.contains(part), "`{part}` is not in: {line}");
        }
        assert!(!self.path("output").exists());
    }
}

#[test]
fn model_eval_gives_what_pytorch_gives() {
    let bench = Bench::new(programs_or_skip!());
    let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/learning/expected.safetensors");
    for (arch, shapes, map) in
        [("vgg8", vgg8(), [512, 4, 4]), ("resnet8x4", resnet(1), [256, 8, 8]), ("resnet32x4", resnet(5), [256, 8, 8])]
    {
        weights(&bench.path(arch), &shapes);
        let output = bench.eval(arch, arch, "input");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty());
        let (shape, logits) = read(&bench.path("output"), "logits");
        assert_eq!(shape, [IMAGES, CLASSES]);
        assert!(worst(&logits, &read(&expected, &format!("{arch}.logits")).1) < 1e-4, "{arch}");
        let (shape, features) = read(&bench.path("output"), "features");
        assert_eq!(shape, [&[IMAGES], &map[..]].concat());
        let first = &features[..map.iter().product()];
        assert!(worst(first, &read(&expected, &format!("{arch}.features")).1) < 1e-4, "{arch}");
    }
}

#[test]
fn weights_and_inputs_that_do_not_fit_are_named() {
    let bench = Bench::new(programs_or_skip!());
    let changed = |name: &str, change: &dyn Fn(&mut Shapes)| {
        let mut shapes = vgg8();
        change(&mut shapes);
        weights(&bench.path(name), &shapes);
    };
    weights(&bench.path("resnet"), &resnet(1));
    bench.refused("vgg8", "resnet", "input", &["resnet8x4", "vgg8"]);
    changed("wide", &|shapes| shapes[6].1 = vec![128, 65, 3, 3]);
    bench.refused("vgg8", "wide", "input", &["`block1.0.weight`", "[128, 65, 3, 3]", "[128, 64, 3, 3]"]);
    changed("missing", &|shapes| drop(shapes.remove(2)));
    bench.refused("vgg8", "missing", "input", &["`block0.1.weight`", "[64]"]);
    changed("more", &|shapes| shapes.push(("block9.0.weight".into(), vec![3])));
    bench.refused("vgg8", "more", "input", &["`block9.0.weight`"]);
    changed("headless", &|shapes| shapes.truncate(shapes.len() - 2));
    bench.refused("vgg8", "headless", "input", &["classifier"]);
    changed("bias", &|shapes| shapes.last_mut().expect("a bias").1 = vec![CLASSES + 1]);
    bench.refused("vgg8", "bias", "input", &["`classifier.bias`", "[11]", "[10]"]);
    weights(&bench.path("whole"), &vgg8());
    let bytes = std::fs::read(bench.path("whole")).expect("written above");
    std::fs::write(bench.path("cut"), &bytes[..bytes.len() - 5]).expect("written");
    bench.refused("vgg8", "cut", "input", &["cut.safetensors", "not a whole"]);
    bench.refused("vgg8", "nowhere", "input", &["nowhere.safetensors"]);
    write(&bench.path("small"), &[("input".into(), vec![1, 3, 8, 8], vec![0.0; 192])]);
    bench.refused("vgg8", "whole", "small", &["`input`", "[1, 3, 8, 8]", "[n, 3, 32, 32]"]);
    write(&bench.path("named"), &[("images".into(), vec![1], vec![0.0])]);
    bench.refused("vgg8", "whole", "named", &["`input`"]);
    write(&bench.path("nan"), &[("input".into(), vec![1, 3, 32, 32], vec![f32::NAN; 3072])]);
    bench.refused("vgg8", "whole", "nan", &["`input`", "finite"]);
    let unknown = bench.eval("alexnet", "whole", "input");
    assert_eq!(unknown.status.code(), Some(2), "{}", String::from_utf8_lossy(&unknown.stderr));
}

#[test]
fn model_list_and_bench_speak_json() {
    let bench = Bench::new(programs_or_skip!());
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = bench.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one object")
    };
    let list = json(&["model", "list", "--format", "json"]);
    let models = list["models"].as_array().expect("a list");
    let sizes: Vec<_> = models.iter().map(|model| model["parameters"].as_u64()).collect();
    assert_eq!(sizes, [3_965_028, 1_233_540, 2_783_620, 5_883_780, 7_433_860].map(Some));
    for precision in ["f32", "bf16"] {
        let words = ["bench", "train", "--arch", "vgg8", "--batch", "2", "--steps", "2", "--precision", precision];
        let timed = json(&[&words[..], &["--threads", "1", "--format", "json"]].concat());
        assert!(timed["images_per_s"].as_f64().is_some_and(|speed| speed > 0.0), "{timed}");
        assert_eq!((timed["precision"].as_str(), timed["threads"].as_u64()), (Some(precision), Some(1)));
        assert_eq!((timed["arch"].as_str(), timed["batch"].as_u64()), (Some("vgg8"), Some(2)));
    }
    for wrong in [["--batch", "0"], ["--steps", "0"], ["--arch", "alexnet"], ["--precision", "f16"]] {
        let mut words = vec!["bench", "train", "--format", "json"];
        if wrong[0] != "--arch" {
            words.extend(["--arch", "vgg8"]);
        }
        words.extend(wrong);
        assert_eq!(bench.run(&words).status.code(), Some(2), "{wrong:?}");
    }
}

/// `experiment accuracy` on two classes of the digits, as small as it can be.
fn accuracy(bench: &Bench, out: &str, more: &[&str]) -> Output {
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/digits").display().to_string();
    let out = bench.folder.path().join(out).display().to_string();
    let words = ["experiment", "accuracy", "--data", &digits, "--dataset", "digits", "--classes", "0..2"];
    let few = ["--devices", "2", "--students", "vgg8", "--epochs", "2", "--teacher", "resnet8x4"];
    let rest = ["--teacher-epochs", "1", "--threads", "1", "--precision", "f32", "--fl-rates", "0.05"];
    let one = ["--fl-local-epochs", "1", "--stu-rates", "0.05", "--seed", "3", "--out", &out];
    bench.run(&[&words[..], &few, &rest, &one, more].concat())
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_experiment_is_written_whole_and_gone_on_with() {
    let bench = Bench::new(programs_or_skip!());
    let run = |out: &str| accuracy(&bench, out, &["--split", "noniid", "--kd-rates", "0.05,0.5"]);
    let first = run("whole");
    assert!(first.status.success(), "{}", said(&first));
    let folder = bench.folder.path().join("whole");
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    let csv = text("accuracy.csv");
    assert_eq!(
        csv.lines().next(),
        Some(
            "method,student,split,device,epoch,private_top1,private_top5,private_top1_personal,unseen_top1,full_top1,\
             full_top5,train_top1,seconds"
        )
    );
    let count = |start: &str| csv.lines().filter(|line| line.starts_with(start)).count();
    // A row an epoch and device; the teacher's once a device, and the fine-tuned FedAvg's.
    let rows = ["teacher,", "kd,vgg8,noniid,", "stu,vgg8,noniid,", "fl,vgg8,noniid,", "fl-tuned,vgg8,noniid,"];
    assert_eq!(rows.map(count), [2, 4, 4, 4, 2], "{csv}");
    assert_eq!(text("tables.txt"), String::from_utf8_lossy(&first.stdout));
    assert!(text("accuracy.html").contains("<svg") && text("full-vgg8.svg").contains("</svg>"));
    assert!(text("trainer.json").contains("\"f32\""));
    let trials: serde_json::Value = serde_json::from_str(&text("cells/kd-vgg8.choice.json")).expect("JSON");
    assert!(trials.as_array().is_some_and(|all| all.len() == 2 && all[1]["held_top1"].is_number()), "{trials}");

    // A cell that is lost is run again, and gives the same; no other is touched.
    let without_seconds = |csv: &str| -> Vec<String> {
        csv.lines().map(|line| line.rsplit_once(',').expect("columns").0.to_owned()).collect()
    };
    let other = |name: &str| std::fs::metadata(folder.join(name)).and_then(|meta| meta.modified()).expect(name);
    let untouched = other("cells/stu-vgg8-0.csv");
    std::fs::remove_file(folder.join("cells/kd-vgg8-1.csv")).expect("there");
    let again = run("whole");
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(without_seconds(&text("accuracy.csv")), without_seconds(&csv));
    assert_eq!(other("cells/stu-vgg8-0.csv"), untouched);

    // Another experiment, or another number format, does not get into the same folder.
    let mixed = accuracy(&bench, "whole", &["--split", "iid"]);
    assert!(mixed.status.code() == Some(1) && said(&mixed).contains("another experiment"), "{}", said(&mixed));
}

#[test]
fn bad_datasets_and_words_are_named() {
    let bench = Bench::new(programs_or_skip!());
    let one_line = |output: &Output, status: i32, part: &str| {
        let line = said(output);
        assert_eq!(output.status.code(), Some(status), "{line}");
        assert!(line.lines().count() == 1 && line.contains(part), "`{part}` is not in: {line}");
    };
    for (words, part) in [
        (["--split", "halves"], "halves"),
        (["--split", "dirichlet:0"], "dirichlet"),
        (["--labels", "soft"], "soft"),
        (["--methods", "kd,alone"], "alone"),
        (["--devices", "0"], "devices"),
        (["--kd-rates", "-1"], "kd-rates"),
        (["--stu-rates", "nan"], "stu-rates"),
    ] {
        one_line(&accuracy(&bench, "wrong", &words), 2, part);
    }
    // CIFAR-100's format: cut short, a label out of range, a class without images.
    let folder = bench.folder.path().join("cifar");
    std::fs::create_dir(&folder).expect("a folder");
    let record = |label: u8| [&[0, label][..], &[label; 3072]].concat();
    let good: Vec<u8> = (0..2).flat_map(record).collect();
    let run = |train: &[u8], names: &str| {
        std::fs::write(folder.join("train.bin"), train).expect("written");
        std::fs::write(folder.join("test.bin"), &good).expect("written");
        std::fs::write(folder.join("fine_label_names.txt"), names).expect("written");
        let data = folder.display().to_string();
        let out = bench.folder.path().join("none").display().to_string();
        bench.run(&["experiment", "accuracy", "--data", &data, "--dataset", "cifar100", "--out", &out])
    };
    one_line(&run(&good[..good.len() - 1], "a\nb\n"), 1, "train.bin");
    one_line(&run(&[&good[..], &record(9)].concat(), "a\nb\n"), 1, "label 9");
    one_line(&run(&good, "a\nb\nc\n"), 1, "class 2");
    one_line(&run(b"", "a\nb\n"), 1, "train.bin");
}
