//! A model as one file: backbone, projector, classifier, class names and normalisation; what a board answers by and
//! what an owner takes away.
//!
//! A safetensors file of f32 tensors under the names of the zoo. A SimKD student has its projector `transfer.0` to
//! `transfer.7`, and the teacher's classifier that it reuses as `classifier.weight` `[classes, t]` and
//! `classifier.bias` `[classes]`; a student with a classifier of its own keeps its name (`fc` or `classifier`). The
//! metadata's entry `twinstill.model` is [`About`] as JSON.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, View};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};
use twin_shared::id::{BlobHash, DeviceId, ModelVersion};
use twin_shared::model::Architecture;

use crate::classes::{ClassError, check_names};
use crate::normalisation::Normalisation;

/// Longest bundle that is read, bytes.
pub const MAX_BYTES: u64 = 256 << 20;
const FORMAT: &str = "twinstill-model-1";
const ENTRY: &str = "twinstill.model";

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The network.
    pub architecture: Architecture,
    /// What it learned by: `simkd`, `kd` or `cross-entropy`.
    pub method: String,
    /// Class names by index.
    pub classes: Vec<String>,
    /// How images are normalised for it.
    pub normalisation: Normalisation,
    /// Training samples a class of the board it was made for, for the personal answer.
    pub label_counts: Vec<u32>,
    /// The teacher's weights.
    pub teacher: BlobHash,
    /// The student state.
    pub state: BlobHash,
    /// The board it was made for.
    pub device: DeviceId,
    /// The job that made it.
    pub job: u32,
    /// Epochs that it was trained.
    pub epochs: u32,
}

/// A tensor of f32 values in the order of its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// A tensor as the file has it. It becomes bytes when its turn comes, lest a model be held once more than it must.
struct Plain<'a>(&'a Weights);

impl View for Plain<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.0.values.as_slice())
    }
}

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct Bundle {
    /// What it says of itself.
    pub about: About,
    /// Its tensors by name.
    pub tensors: BTreeMap<String, Weights>,
}

/// Why a file is no model.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read or written as safetensors.
    #[error("not a model bundle: {0}")]
    Format(String),
    /// It is of a network that this program does not know.
    #[error("not a model bundle: unknown network {0:?}")]
    Architecture(String),
    /// Its class names are unusable.
    #[error("not a model bundle: {0}")]
    Classes(#[from] ClassError),
    /// It says another version than its parts give.
    #[error("the bundle says that it is {said:.12}, its parts give {found:.12}")]
    Version {
        /// What it says.
        said: ModelVersion,
        /// What its parts give.
        found: ModelVersion,
    },
    /// A tensor that must be there is missing or of another shape.
    #[error("tensor {name} is missing or is not {expected:?}")]
    Tensor {
        /// Its name.
        name: String,
        /// The shape it must have.
        expected: Vec<usize>,
    },
    /// A value is infinite or no number.
    #[error("tensor {0} holds a value that is not finite")]
    NotFinite(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    format: String,
    architecture: String,
    method: String,
    classes: Vec<String>,
    normalisation: Normalisation,
    label_counts: Vec<u32>,
    teacher: String,
    state: String,
    version: String,
    device: DeviceId,
    job: u32,
    epochs: u32,
}

/// A model's version: BLAKE3 over the teacher's hash, the class names as a JSON array, the normalisation's six f32
/// (little endian) and the student state's hash, each behind its length (u64, little endian).
#[must_use]
pub fn model_version(
    teacher: &BlobHash,
    classes: &[String],
    normalisation: &Normalisation,
    state: &BlobHash,
) -> ModelVersion {
    let classes = serde_json::to_vec(classes).expect("names serialise");
    let numbers: Vec<u8> =
        normalisation.mean.iter().chain(&normalisation.deviation).flat_map(|number| number.to_le_bytes()).collect();
    let mut hasher = blake3::Hasher::new();
    for part in [teacher.0.as_slice(), &classes, &numbers, &state.0] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    ModelVersion(*hasher.finalize().as_bytes())
}

impl About {
    /// The model's version.
    #[must_use]
    pub fn version(&self) -> ModelVersion {
        model_version(&self.teacher, &self.classes, &self.normalisation, &self.state)
    }
}

impl Bundle {
    /// The classifier's weight `[classes, channels]` and bias `[classes]`.
    ///
    /// # Errors
    /// When one is missing or of a shape that does not fit the classes.
    pub fn classifier(&self) -> Result<(&Weights, &Weights), BundleError> {
        let name = if self.tensors.contains_key("classifier.weight") { "classifier" } else { "fc" };
        let classes = self.about.classes.len();
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let channels = self.tensors.get(&weight).and_then(|weights| weights.shape.get(1)).copied().unwrap_or(0);
        Ok((self.tensor(&weight, &[classes, channels])?, self.tensor(&bias, &[classes])?))
    }

    /// A tensor of that shape.
    ///
    /// # Errors
    /// When it is missing or of another shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<&Weights, BundleError> {
        let wrong = || BundleError::Tensor { name: name.to_owned(), expected: shape.to_vec() };
        self.tensors.get(name).filter(|weights| weights.shape == shape).ok_or_else(wrong)
    }

    /// The file's bytes; equal bundles give equal bytes.
    ///
    /// # Errors
    /// When a tensor has not as many values as its shape says.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let about = &self.about;
        let entry = Entry {
            format: FORMAT.into(),
            architecture: about.architecture.name().into(),
            method: about.method.clone(),
            classes: about.classes.clone(),
            normalisation: about.normalisation,
            label_counts: about.label_counts.clone(),
            teacher: about.teacher.to_string(),
            state: about.state.to_string(),
            version: about.version().to_string(),
            device: about.device.clone(),
            job: about.job,
            epochs: about.epochs,
        };
        let format = |error: String| BundleError::Format(error);
        // One entry, so that the bytes do not depend on a hash map's order.
        let json = serde_json::to_string(&entry).map_err(|error| format(error.to_string()))?;
        let whole = |weights: &Weights| weights.shape.iter().product::<usize>() == weights.values.len();
        if let Some((name, weights)) = self.tensors.iter().find(|(_, weights)| !whole(weights)) {
            return Err(BundleError::Tensor { name: name.clone(), expected: weights.shape.clone() });
        }
        let views = self.tensors.iter().map(|(name, weights)| (name, Plain(weights)));
        serialize(views, Some(HashMap::from([(ENTRY.to_owned(), json)]))).map_err(|error| format(error.to_string()))
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// When they are no bundle, longer than [`MAX_BYTES`], or contradict themselves.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let format = |problem: &dyn std::fmt::Display| BundleError::Format(problem.to_string());
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format(&format_args!("{} bytes are over {MAX_BYTES}", bytes.len())));
        }
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| format(&error))?;
        let json = metadata.metadata().as_ref().and_then(|entries| entries.get(ENTRY));
        let json = json.ok_or_else(|| format(&format_args!("no entry {ENTRY:?} in its metadata")))?;
        let entry: Entry = serde_json::from_str(json).map_err(|error| format(&error))?;
        let (about, said) = entry.check()?;
        if about.version() != said {
            return Err(BundleError::Version { said, found: about.version() });
        }
        let file = SafeTensors::deserialize(bytes).map_err(|error| format(&error))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if view.dtype() != Dtype::F32 {
                return Err(format(&format_args!("tensor {name} is not of f32")));
            }
            let values: Vec<f32> =
                view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            if !values.iter().all(|value| value.is_finite()) {
                return Err(BundleError::NotFinite(name.to_owned()));
            }
            tensors.insert(name.to_owned(), Weights { shape: view.shape().to_vec(), values });
        }
        let bundle = Self { about, tensors };
        bundle.classifier()?;
        Ok(bundle)
    }
}

impl Entry {
    fn check(self) -> Result<(About, ModelVersion), BundleError> {
        let format = |problem: String| BundleError::Format(problem);
        if self.format != FORMAT {
            return Err(format(format!("its format is {:?}, not {FORMAT:?}", self.format)));
        }
        let blob = |name: &str, hex: &str| {
            BlobHash::from_hex(hex).ok_or_else(|| format(format!("its {name} {hex:?} is no hash")))
        };
        if self.label_counts.len() != self.classes.len() {
            let (counts, classes) = (self.label_counts.len(), self.classes.len());
            return Err(format(format!("{counts} label counts for {classes} classes")));
        }
        if self.classes.is_empty() {
            return Err(format("no classes".to_owned()));
        }
        check_names(self.classes.iter().map(String::as_str))?;
        let said = ModelVersion::from_hex(&self.version).ok_or_else(|| format("its version is no hash".to_owned()))?;
        let about = About {
            architecture: self.architecture.parse().map_err(|_| BundleError::Architecture(self.architecture))?,
            method: self.method,
            classes: self.classes,
            normalisation: self.normalisation.checked().map_err(|error| format(error.to_string()))?,
            label_counts: self.label_counts,
            teacher: blob("teacher", &self.teacher)?,
            state: blob("state", &self.state)?,
            device: self.device,
            job: self.job,
            epochs: self.epochs,
        };
        Ok((about, said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        let about = About {
            architecture: Architecture::Resnet8x4,
            method: "simkd".into(),
            classes: vec!["cat".into(), "dog".into()],
            normalisation: Normalisation { mean: [0.5; 3], deviation: [0.25; 3] },
            label_counts: vec![3, 0],
            teacher: BlobHash([1; 32]),
            state: BlobHash([2; 32]),
            device: "board1".parse().unwrap(),
            job: 4,
            epochs: 5,
        };
        let tensor = |shape: &[usize]| Weights { shape: shape.to_vec(), values: vec![0.5; shape.iter().product()] };
        let tensors = [("classifier.weight", tensor(&[2, 3])), ("classifier.bias", tensor(&[2])), ("a", tensor(&[1]))];
        Bundle { about, tensors: tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect() }
    }

    #[test]
    fn a_bundle_reads_back_and_its_bytes_are_its_own() {
        let bytes = bundle().to_bytes().unwrap();
        assert_eq!(Bundle::from_bytes(&bytes).unwrap(), bundle());
        assert_eq!(bundle().to_bytes().unwrap(), bytes);
        let read = Bundle::from_bytes(&bytes).unwrap();
        assert_eq!(read.classifier().unwrap().0.shape, [2, 3]);
    }

    #[test]
    fn the_version_follows_from_its_four_parts() {
        let about = bundle().about;
        assert_eq!(about.version().to_string(), GOLDEN);
        let mut others = vec![about.clone(); 4];
        others[0].teacher.0[0] ^= 1;
        others[1].classes[1] = "dogs".into();
        others[2].normalisation.mean[0] = 0.25;
        others[3].state.0[0] ^= 1;
        assert!(others.iter().all(|other| other.version() != about.version()));
        let renamed = About { device: "board2".parse().unwrap(), epochs: 9, ..about.clone() };
        assert_eq!(renamed.version(), about.version());
    }
    const GOLDEN: &str = "951e2376d05d7d5c8c20876c3000c8b85dc60937fd51ca9fbd5e6eb3d8d016dd";

    #[test]
    fn contradictions_are_refused() {
        let bytes = bundle().to_bytes().unwrap();
        assert!(matches!(Bundle::from_bytes(&bytes[..50]), Err(BundleError::Format(_))));
        let altered = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            let mut bytes = bytes.clone();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            Bundle::from_bytes(&bytes).unwrap_err()
        };
        assert!(matches!(altered("cat", "cow"), BundleError::Version { .. }));
        assert!(matches!(altered("resnet8x4", "resnet9x4"), BundleError::Architecture(_)));
        let mut wrong = bundle();
        wrong.tensors.get_mut("classifier.bias").unwrap().shape = vec![1, 2];
        assert!(matches!(Bundle::from_bytes(&wrong.to_bytes().unwrap()), Err(BundleError::Tensor { .. })));
        let mut wrong = bundle();
        wrong.tensors.get_mut("a").unwrap().values[0] = f32::NAN;
        assert!(matches!(Bundle::from_bytes(&wrong.to_bytes().unwrap()), Err(BundleError::NotFinite(_))));
        let mut short = bundle();
        short.tensors.get_mut("a").unwrap().values.clear();
        assert!(matches!(short.to_bytes(), Err(BundleError::Tensor { name, .. }) if name == "a"));
    }
}
