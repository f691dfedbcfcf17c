//! A model as an ONNX file: the same numbers under the same names, with the normalisation in front, so that any runtime
//! answers on plain pixels.
//!
//! Input `pixels` `[n, 3, 32, 32]`, f32, red, green and blue plane scaled to 0..1. Output `logits` `[n, classes]`.
//! Operator set 13. The metadata holds `classes` (JSON), `version`, `device`, `architecture`, `method`, `job`, `epochs`.

use prost::Message;
use twin_data::bundle::{Bundle, BundleError};
use twin_shared::model::Architecture;

use super::protobuf::{
    Attribute, Dimension, Entry, Graph, Model, Node, OperatorSet, Shape, Tensor, TensorType, Type, ValueInfo, attribute,
};

/// ε of every norm, as in training.
const NORM_EPSILON: f32 = 1e-5;
/// The operator set's version, and that of the file format.
const OPERATORS: i64 = 13;
const FORMAT: i64 = 8;
/// `TensorProto.FLOAT`.
const FLOAT: i32 = 1;

/// The file's bytes.
///
/// # Errors
/// When the bundle lacks a tensor of its network.
pub(crate) fn onnx(bundle: &Bundle) -> Result<Vec<u8>, BundleError> {
    let about = &bundle.about;
    let mut graph = Builder { bundle, nodes: Vec::new(), tensors: Vec::new() };
    let mut x = graph.normalise("pixels");
    x = match about.architecture {
        Architecture::Vgg8 => graph.vgg(x)?,
        Architecture::Resnet8x4 => graph.resnet(x, 1)?,
        Architecture::Resnet14x4 => graph.resnet(x, 2)?,
        Architecture::Resnet26x4 => graph.resnet(x, 4)?,
        Architecture::Resnet32x4 => graph.resnet(x, 5)?,
    };
    x = graph.projector(x)?;
    graph.classify(&x)?;
    let classes = serde_json::to_string(&about.classes).expect("names serialise");
    let texts = [
        ("classes", classes),
        ("version", about.version().to_string()),
        ("device", about.device.to_string()),
        ("architecture", about.architecture.name().to_owned()),
        ("method", about.method.clone()),
        ("job", about.job.to_string()),
        ("epochs", about.epochs.to_string()),
    ];
    let of = |name: &str, sides: &[i64]| {
        let named = Dimension { value: None, name: Some("n".into()) };
        let fixed = sides.iter().map(|side| Dimension { value: Some(*side), name: None });
        let shape = Shape { dimensions: std::iter::once(named).chain(fixed).collect() };
        let tensor = TensorType { element: FLOAT, shape: Some(shape) };
        ValueInfo { name: name.into(), r#type: Some(Type { tensor: Some(tensor) }) }
    };
    let outputs = i64::try_from(about.classes.len()).unwrap_or(i64::MAX);
    let model = Model {
        format: FORMAT,
        producer: "twinstill".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(Graph {
            nodes: graph.nodes,
            name: about.device.to_string(),
            initialisers: graph.tensors,
            inputs: vec![of("pixels", &[3, 32, 32])],
            outputs: vec![of("logits", &[outputs])],
        }),
        operators: vec![OperatorSet { domain: String::new(), version: OPERATORS }],
        metadata: texts.map(|(key, value)| Entry { key: key.into(), value }).into(),
    };
    Ok(model.encode_to_vec())
}

/// Nodes in order, each named after the value that it makes.
struct Builder<'a> {
    bundle: &'a Bundle,
    nodes: Vec<Node>,
    tensors: Vec<Tensor>,
}

impl Builder<'_> {
    /// Adds an operation; the name of its value.
    fn node(&mut self, operator: &str, inputs: &[&str], attributes: Vec<Attribute>) -> String {
        let value = format!("value{}", self.nodes.len());
        self.nodes.push(Node {
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            outputs: vec![value.clone()],
            name: format!("node{}", self.nodes.len()),
            operator: operator.into(),
            attributes,
        });
        value
    }

    fn constant(&mut self, name: &str, shape: Vec<usize>, values: &[f32]) {
        self.tensors.push(Tensor {
            dimensions: shape.into_iter().map(|extent| i64::try_from(extent).unwrap_or(i64::MAX)).collect(),
            element: FLOAT,
            name: name.into(),
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
    }

    /// Takes one of the bundle's tensors over.
    fn weight(&mut self, name: &str) -> Result<usize, BundleError> {
        let missing = || BundleError::Tensor { name: name.to_owned(), expected: Vec::new() };
        let weights = self.bundle.tensors.get(name).ok_or_else(missing)?;
        let outputs = weights.shape.first().copied().ok_or_else(missing)?;
        let (shape, values) = (weights.shape.clone(), &weights.values);
        self.constant(name, shape, values);
        Ok(outputs)
    }

    fn normalise(&mut self, pixels: &str) -> String {
        let normalisation = self.bundle.about.normalisation;
        self.constant("normalisation.mean", vec![1, 3, 1, 1], &normalisation.mean);
        self.constant("normalisation.deviation", vec![1, 3, 1, 1], &normalisation.deviation);
        let centred = self.node("Sub", &[pixels, "normalisation.mean"], Vec::new());
        self.node("Div", &[&centred, "normalisation.deviation"], Vec::new())
    }

    /// A square convolution and the batch norm behind it.
    fn convolution(&mut self, x: &str, (convolution, norm): (&str, &str), stride: i64) -> Result<String, BundleError> {
        let weight = format!("{convolution}.weight");
        self.weight(&weight)?;
        let side = self.bundle.tensors.get(&weight).and_then(|weights| weights.shape.get(2)).copied().unwrap_or(1);
        let side = i64::try_from(side).unwrap_or(1);
        let bias = format!("{convolution}.bias");
        let mut inputs = vec![x, weight.as_str()];
        if self.bundle.tensors.contains_key(&bias) {
            self.weight(&bias)?;
            inputs.push(&bias);
        }
        let attributes = vec![
            attribute::integers("kernel_shape", &[side; 2]),
            attribute::integers("strides", &[stride; 2]),
            attribute::integers("pads", &[side / 2; 4]),
        ];
        let y = self.node("Conv", &inputs, attributes);
        let parts = ["weight", "bias", "running_mean", "running_var"].map(|part| format!("{norm}.{part}"));
        for part in &parts {
            self.weight(part)?;
        }
        let [scale, shift, mean, variance] = &parts;
        Ok(self.node(
            "BatchNormalization",
            &[&y, scale, shift, mean, variance],
            vec![attribute::float("epsilon", NORM_EPSILON)],
        ))
    }

    fn relu(&mut self, x: &str) -> String {
        self.node("Relu", &[x], Vec::new())
    }

    fn pool(&mut self, operator: &str, x: &str, side: i64) -> String {
        let attributes =
            vec![attribute::integers("kernel_shape", &[side; 2]), attribute::integers("strides", &[side; 2])];
        self.node(operator, &[x], attributes)
    }

    fn vgg(&mut self, mut x: String) -> Result<String, BundleError> {
        for block in 0..5 {
            let names = (format!("block{block}.0"), format!("block{block}.1"));
            x = self.convolution(&x, (&names.0, &names.1), 1)?;
            x = self.relu(&x);
            if block < 3 {
                x = self.pool("MaxPool", &x, 2);
            }
        }
        Ok(x)
    }

    fn resnet(&mut self, mut x: String, blocks: usize) -> Result<String, BundleError> {
        x = self.convolution(&x, ("conv1", "bn1"), 1)?;
        x = self.relu(&x);
        for stage in 1..=3 {
            for block in 0..blocks {
                let name = |part: &str| format!("layer{stage}.{block}.{part}");
                let stride = if stage > 1 && block == 0 { 2 } else { 1 };
                let mut y = self.convolution(&x, (&name("conv1"), &name("bn1")), stride)?;
                y = self.relu(&y);
                y = self.convolution(&y, (&name("conv2"), &name("bn2")), 1)?;
                let shortcut = (name("downsample.0"), name("downsample.1"));
                let beside = if self.bundle.tensors.contains_key(&format!("{}.weight", shortcut.0)) {
                    self.convolution(&x, (&shortcut.0, &shortcut.1), stride)?
                } else {
                    x
                };
                y = self.node("Add", &[&y, &beside], Vec::new());
                x = self.relu(&y);
            }
        }
        Ok(x)
    }

    /// SimKD's projector, where the student has one; a map that is larger than the teacher's is pooled first.
    fn projector(&mut self, mut x: String) -> Result<String, BundleError> {
        let Some(last) = self.bundle.tensors.get("transfer.6.weight") else { return Ok(x) };
        let teachers_side = if last.shape.first().is_some_and(|&channels| channels >= 512) { 4 } else { 8 };
        let (_, side) = self.bundle.about.architecture.feature_map();
        if side > teachers_side {
            x = self.pool("AveragePool", &x, i64::try_from(side / teachers_side).unwrap_or(1));
        }
        for number in [0, 3, 6] {
            let names = (format!("transfer.{number}"), format!("transfer.{}", number + 1));
            x = self.convolution(&x, (&names.0, &names.1), 1)?;
            x = self.relu(&x);
        }
        Ok(x)
    }

    fn classify(&mut self, map: &str) -> Result<(), BundleError> {
        let name = if self.bundle.tensors.contains_key("classifier.weight") { "classifier" } else { "fc" };
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        self.weight(&weight)?;
        self.weight(&bias)?;
        let pooled = self.node("GlobalAveragePool", &[map], Vec::new());
        let flat = self.node("Flatten", &[&pooled], Vec::new());
        self.node("Gemm", &[&flat, &weight, &bias], vec![attribute::integer("transB", 1)]);
        if let Some(last) = self.nodes.last_mut() {
            last.outputs = vec!["logits".into()];
        }
        Ok(())
    }
}
