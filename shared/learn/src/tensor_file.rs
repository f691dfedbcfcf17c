//! Named tensors in a safetensors file, written whole or not at all, and the hash of what they are.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use twin_data::Normalisation;
use twin_shared::id::{BlobHash, ModelVersion};

use crate::error::LearnError;

/// Most bytes that a file of tensors may have.
pub const MAX_BYTES: u64 = 1 << 31;

/// The key of the file's metadata under which [`About`] lies, as JSON.
const ABOUT: &str = "twinstill";

/// What a file says about its tensors. Public checkpoints say nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// How images must be normalised for this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalisation: Option<Normalisation>,
    /// Epochs, steps or rounds done, in a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u32>,
    /// What the checkpoint belongs to; another job's is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Sum of the losses so far as the bits of an f64, and the samples that they are of, in an epoch's checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<[u64; 2]>,
}

/// A file's content.
#[derive(Debug)]
pub struct TensorFile {
    /// Where it came from, for messages.
    pub path: PathBuf,
    /// What it says about itself.
    pub about: About,
    /// Tensors by name, f32, on the CPU. Integer tensors (counters of batches) are left out.
    pub tensors: BTreeMap<String, Tensor>,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Hash of the canonical list of tensors.
    pub version: ModelVersion,
    /// BLAKE3 of the file.
    pub hash: BlobHash,
    /// Length of the file, bytes.
    pub bytes: u64,
}

impl TensorFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no safetensors file, or holds a number that is not finite.
    pub fn read(path: &Path) -> Result<Self, LearnError> {
        let not = |problem: String| LearnError::NotSafetensors { path: path.to_owned(), problem };
        let length = fs::metadata(path).map_err(LearnError::io(path))?.len();
        if length > MAX_BYTES {
            return Err(not(format!("{length} bytes are over the limit of {MAX_BYTES}")));
        }
        let bytes = fs::read(path).map_err(LearnError::io(path))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| not(error.to_string()))?;
        let about = match metadata.metadata().as_ref().and_then(|m| m.get(ABOUT)) {
            None => About::default(),
            Some(json) => serde_json::from_str(json).map_err(|error| not(format!("its `{ABOUT}` entry: {error}")))?,
        };
        if let Some(normalisation) = about.normalisation {
            normalisation.checked().map_err(|error| not(error.to_string()))?;
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|error| not(error.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            if let Some(tensor) = to_tensor(&view)? {
                if !all_finite(&tensor)? {
                    return Err(LearnError::NotFinite { path: path.to_owned(), name });
                }
                tensors.insert(name, tensor);
            }
        }
        Ok(Self { path: path.to_owned(), about, tensors })
    }

    /// Takes a tensor of that shape out.
    ///
    /// # Errors
    /// When it is not there, or of another shape.
    pub fn take(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, LearnError> {
        let tensor = self.tensors.remove(name).ok_or_else(|| LearnError::TensorMissing {
            path: self.path.clone(),
            name: name.to_owned(),
            expected: shape.to_vec(),
        })?;
        let actual = tensor.size();
        if actual != shape {
            return Err(LearnError::TensorShape {
                path: self.path.clone(),
                name: name.to_owned(),
                expected: shape.to_vec(),
                actual,
            });
        }
        Ok(tensor)
    }

    /// Nothing, if every tensor was taken.
    ///
    /// # Errors
    /// Names the first one left.
    pub fn finish(self) -> Result<(), LearnError> {
        match self.tensors.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(LearnError::TensorUnknown { path: self.path, name }),
        }
    }
}

fn all_finite(tensor: &Tensor) -> Result<bool, LearnError> {
    Ok(tensor.numel() == 0 || tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}

/// `None` for integers.
#[expect(clippy::wildcard_enum_match_arm, reason = "the format's list of types may grow; all but these are no weights")]
fn to_tensor(view: &TensorView<'_>) -> Result<Option<Tensor>, LearnError> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        _ => return Ok(None),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
    Ok(Some(Tensor::f_from_data_size(view.data(), &shape, kind)?.f_to_kind(Kind::Float)?))
}

/// Little-endian bytes of a tensor's values as f32, in the order of its shape.
pub(crate) fn f32_bytes(tensor: &Tensor) -> Result<Vec<u8>, LearnError> {
    let tensor = tensor.detach().f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    // LibTorch has no big-endian targets, so its memory is little endian already.
    let count = tensor.numel();
    let mut bytes = vec![0u8; count * 4];
    tensor.f_copy_data_u8(&mut bytes, count)?;
    Ok(bytes)
}

/// A tensor ready to be hashed and written.
struct Plain {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// The version of a list of tensors: BLAKE3 over the tensors in the order of their names, each as name, shape, type
/// and little-endian values, with lengths before what varies.
fn version(tensors: &[Plain]) -> ModelVersion {
    let mut hasher = blake3::Hasher::new_derive_key("twinstill model version v1");
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    for tensor in sorted {
        hasher.update(&(tensor.name.len() as u64).to_le_bytes());
        hasher.update(tensor.name.as_bytes());
        hasher.update(&(tensor.shape.len() as u64).to_le_bytes());
        for &extent in &tensor.shape {
            hasher.update(&(extent as u64).to_le_bytes());
        }
        hasher.update(b"f32");
        hasher.update(&tensor.bytes);
    }
    ModelVersion(*hasher.finalize().as_bytes())
}

/// What a file of f32 tensors would be told of when written: its version, hash and length.
///
/// # Errors
/// When the bytes are no such file.
pub(crate) fn written(path: &Path, bytes: &[u8]) -> Result<Written, LearnError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| LearnError::NotSafetensors { path: path.to_owned(), problem: error.to_string() })?;
    let plain = file.tensors().into_iter().map(|(name, view)| Plain {
        name,
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    });
    let plain: Vec<Plain> = plain.collect();
    Ok(Written { version: version(&plain), hash: BlobHash::of(bytes), bytes: bytes.len() as u64 })
}

/// Writes tensors as f32 beside the name, and then gives the file the name. Equal content gives equal bytes.
///
/// # Errors
/// When the disk refuses; what was there before is left as it was.
pub fn write<'a>(
    path: &Path,
    about: &About,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<Written, LearnError> {
    let plain = tensors
        .into_iter()
        .map(|(name, tensor)| {
            Ok(Plain {
                name: name.to_owned(),
                shape: tensor.size().iter().map(|&d| d as usize).collect(),
                bytes: f32_bytes(tensor)?,
            })
        })
        .collect::<Result<Vec<_>, LearnError>>()?;
    let views = plain.iter().map(|p| {
        let view = TensorView::new(Dtype::F32, p.shape.clone(), &p.bytes).expect("as many bytes as the shape says");
        (p.name.as_str(), view)
    });
    // One entry, so that the file's bytes do not depend on a hash map's order.
    let json = serde_json::to_string(about).expect("plain data is JSON");
    let metadata = HashMap::from([(ABOUT.to_owned(), json)]);
    let bytes = serialize(views, Some(metadata))
        .map_err(|error| LearnError::NotSafetensors { path: path.to_owned(), problem: error.to_string() })?;
    write_whole(path, &bytes)?;
    Ok(Written { version: version(&plain), hash: BlobHash::of(&bytes), bytes: bytes.len() as u64 })
}

/// Writes a file beside its name, flushes it to the disk, and then gives it the name.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), LearnError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let result = fs::File::create(&partial)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&partial, path))
        .and_then(|()| {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
        });
    if result.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&partial);
    }
    result.map_err(LearnError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<(&'static str, Tensor)> {
        vec![("b", Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).reshape([2, 2])), ("a", Tensor::from_slice(&[0.5f32]))]
    }

    fn write_some(path: &Path, tensors: &[(&'static str, Tensor)]) -> Written {
        write(path, &About::default(), tensors.iter().map(|(n, t)| (*n, t))).unwrap()
    }

    #[test]
    fn what_is_written_reads_back_and_equal_content_has_equal_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let first = write_some(&path, &some());
        let mut reversed = some();
        reversed.reverse();
        let second = write_some(&dir.path().join("y.safetensors"), &reversed);
        assert_eq!(first, second);
        assert_eq!(first.bytes, fs::metadata(&path).unwrap().len());
        let mut file = TensorFile::read(&path).unwrap();
        assert_eq!(
            Vec::<f32>::try_from(file.take("b", &[2, 2]).unwrap().flatten(0, -1)).unwrap(),
            [1.0, 2.0, 3.0, 4.0]
        );
        assert!(matches!(file.take("a", &[2]), Err(LearnError::TensorShape { .. })));
        assert!(matches!(file.take("c", &[1]), Err(LearnError::TensorMissing { .. })));
        let changed = vec![("b", some().remove(0).1), ("a", Tensor::from_slice(&[0.25f32]))];
        assert_ne!(write_some(&path, &changed).version, first.version);
    }

    #[test]
    fn the_version_of_a_list_is_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let written = write_some(&dir.path().join("x.safetensors"), &some());
        assert_eq!(written.version.to_string(), GOLDEN);
    }
    const GOLDEN: &str = "00bdf6e70fb1b7e162c21d8aee3a6ea402e7e0fe2451786c2b509f7a41855340";

    #[test]
    fn cut_and_poisoned_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write_some(&path, &some());
        let bytes = fs::read(&path).unwrap();
        for keep in [0, 4, 30, bytes.len() - 1] {
            fs::write(&path, &bytes[..keep]).unwrap();
            assert!(matches!(TensorFile::read(&path), Err(LearnError::NotSafetensors { .. })), "{keep}");
        }
        write_some(&path, &[("n", Tensor::from_slice(&[f32::NAN]))]);
        assert!(matches!(TensorFile::read(&path), Err(LearnError::NotFinite { .. })));
    }

    #[test]
    fn a_refused_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write_some(&path, &some());
        let before = fs::read(&path).unwrap();
        // A directory where the partial file would go stands for any refusal.
        fs::create_dir(dir.path().join("x.safetensors.partial")).unwrap();
        assert!(write(&path, &About::default(), [("z", &Tensor::from_slice(&[1f32]))]).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
