//! `twin-trainer model-eval`: one forward pass of any weights with the public names.

use std::path::Path;

use anyhow::Context;
use tch::Tensor;
use twin_learn::model::channels_last;
use twin_learn::tensor_file::{self, About, TensorFile};
use twin_learn::{LearnError, Model, Place};
use twin_shared::model::Architecture;

/// Images that go through the network at a time.
const BATCH: i64 = 256;

pub(crate) fn model_eval(
    architecture: Architecture,
    weights: &Path,
    input: &Path,
    output: &Path,
    place: Place,
) -> anyhow::Result<()> {
    let model = Model::load_as(architecture, weights, place)?;
    model.classifier()?;
    let images = TensorFile::read(input)?
        .tensors
        .remove("input")
        .with_context(|| format!("{} has no tensor `input` of floating-point numbers", input.display()))?;
    let shape = images.size();
    anyhow::ensure!(
        matches!(shape.as_slice(), [count, 3, 32, 32] if *count > 0),
        "{}: tensor `input` has shape {shape:?}, the network has [n, 3, 32, 32]",
        input.display()
    );
    let (mut logits, mut features) = (Vec::new(), Vec::new());
    for first in (0..shape[0]).step_by(BATCH as usize) {
        let part = images.f_narrow(0, first, BATCH.min(shape[0] - first))?.f_to_device(place.device)?;
        let outputs = model.evaluate(&channels_last(&part)?)?;
        logits.push(outputs.head);
        features.push(outputs.features);
    }
    let join = |parts: &[Tensor]| Tensor::f_cat(parts, 0).map_err(LearnError::from);
    let (logits, features) = (join(&logits)?, join(&features)?);
    tensor_file::write(output, &About::default(), [("logits", &logits), ("features", &features)])?;
    Ok(())
}
