//! Where in a state's file which numbers lie.

use core::ops::Range;

use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::{CompressError, Compression};

/// Longest header that is read, bytes; a ResNet-32x4's has 16 KiB.
const MAX_HEADER: usize = 1 << 20;

/// One tensor's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    /// Bytes of the values, from the start of the file.
    pub(super) range: Range<usize>,
    /// Whether its differences are quantised.
    pub(super) coarse: bool,
}

/// A state's file: a prefix, then the sections without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Bytes before the first section.
    pub(super) prefix: usize,
    pub(super) sections: Vec<Section>,
}

impl Layout {
    /// Reads the prefix of a state's file. The rest need not be there.
    pub(super) fn of(bytes: &[u8], compression: Compression) -> Result<Self, CompressError> {
        let not = |problem: String| CompressError::NotState(problem);
        let prefix = Self::prefix(bytes)?;
        let header = bytes.get(8..prefix).ok_or_else(|| not("its header is cut".into()))?;
        let metadata: Metadata = serde_json::from_slice(header).map_err(|error| not(error.to_string()))?;
        let mut sections = Vec::new();
        for (name, info) in metadata.tensors() {
            if info.dtype != Dtype::F32 {
                return Err(not(format!("tensor {name:?} is {:?}", info.dtype)));
            }
            let (start, end) = info.data_offsets;
            let coarse = compression != Compression::None && info.shape.len() >= 2;
            sections.push(Section { name, range: prefix + start..prefix + end, coarse });
        }
        sections.sort_by_key(|section| (section.range.start, section.range.end));
        Ok(Self { prefix, sections })
    }

    /// The length of the prefix, from its first eight bytes.
    fn prefix(bytes: &[u8]) -> Result<usize, CompressError> {
        let length = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
        let length = length.and_then(|length| usize::try_from(length).ok()).filter(|&length| length <= MAX_HEADER);
        length.map(|length| length + 8).ok_or_else(|| CompressError::NotState("its header has no length".into()))
    }

    /// Length of the whole file.
    pub(super) fn file(&self) -> usize {
        self.sections.last().map_or(self.prefix, |section| section.range.end)
    }

    /// The coarse or the exact sections.
    pub(super) fn of_kind(&self, coarse: bool) -> impl Iterator<Item = &Section> {
        self.sections.iter().filter(move |section| section.coarse == coarse)
    }

    /// Numbers in the coarse or the exact sections.
    pub(super) fn numbers(&self, coarse: bool) -> usize {
        self.of_kind(coarse).map(|section| section.range.len() / 4).sum()
    }

    /// Whether two files have the same tensors in the same order; what they say about them may differ.
    pub(super) fn matches(&self, other: &Self) -> bool {
        let place = |layout: &Self, section: &Section| (section.range.start - layout.prefix, section.range.len());
        self.sections.len() == other.sections.len()
            && self.sections.iter().zip(&other.sections).all(|(own, theirs)| {
                own.name == theirs.name && own.coarse == theirs.coarse && place(self, own) == place(other, theirs)
            })
    }

    /// Names the tensors and their order.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("twinstill state layout v1");
        for section in &self.sections {
            hasher.update(&(section.name.len() as u64).to_le_bytes());
            hasher.update(section.name.as_bytes());
            hasher.update(&(section.range.len() as u64).to_le_bytes());
            hasher.update(&[u8::from(section.coarse)]);
        }
        *hasher.finalize().as_bytes()
    }
}

/// The numbers of a section.
pub(super) fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number))
}
