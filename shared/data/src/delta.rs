//! What changed between two versions of a dataset: additions, deletions and new labels. Whoever holds the older
//! version makes the newer one of it, to the byte.
//!
//! Both versions are in canonical order: by class, then by sample hash, no sample twice; [`canonical`] makes it so.
//!
//! | bytes | content (little endian) |
//! | --- | --- |
//! | 8, 2 | `TWINDIF` and a zero; version, 1 |
//! | 32, 32 | the older version, the newer version |
//! | 2 | classes of the newer version |
//! | 12, 12 | its mean and standard deviation a channel, f32 |
//! | 4, 4, 4 | deletions, relabellings, additions |
//! | 16 each | hashes of deleted samples |
//! | 18 each | hashes of relabelled samples, and their label (u16) |
//! | 3,074 each | label (u16) and image of each addition |

use std::collections::{BTreeMap, BTreeSet};

use twin_shared::id::{BlobHash, DatasetVersion};

use crate::blobs::{BlobError, Blobs};
use crate::error::DataError;
use crate::image_set::{IMAGE_BYTES, Image, ImageSet, SampleHash, read_bounded};
use crate::manifest::Manifest;
use crate::normalisation::Normalisation;

/// Longest delta that is sent or taken, bytes: whoever applies it holds it in memory. Beyond, the set is sent whole.
pub const MAX_BYTES: u64 = 1 << 30;

const MAGIC: &[u8; 8] = b"TWINDIF\0";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 8 + 2 + 64 + 2 + 24 + 12;

/// The changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    /// The version that it starts from.
    pub from: DatasetVersion,
    /// The version that it leads to.
    pub to: DatasetVersion,
    classes: u16,
    normalisation: Normalisation,
    deleted: Vec<SampleHash>,
    relabelled: Vec<(SampleHash, u16)>,
    added: Vec<(u16, Box<Image>)>,
}

/// Why a delta does not lead to its version.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// Not a delta.
    #[error("not a dataset delta of version {VERSION}: {0}")]
    Foreign(&'static str),
    /// Made for another version.
    #[error("the delta starts from {expected:.12}, the set is {found:.12}")]
    Base {
        /// What it starts from.
        expected: DatasetVersion,
        /// What it was applied to.
        found: DatasetVersion,
    },
    /// It names a sample that is not there.
    #[error("the delta deletes or relabels the sample {0:?}, which the set does not have")]
    NoSuchSample(SampleHash),
    /// It does not lead where it says.
    #[error("the delta gives {found:.12}, not {expected:.12}")]
    Result {
        /// Where it should lead.
        expected: DatasetVersion,
        /// Where it leads.
        found: DatasetVersion,
    },
    /// What it gives is no dataset, or a file cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The newer version cannot be stored.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// The same samples by class and hash, each once.
///
/// # Errors
/// When one image has two labels.
pub fn canonical(set: &ImageSet) -> Result<ImageSet, DataError> {
    let mut order: BTreeMap<(u16, SampleHash), u32> = BTreeMap::new();
    let mut labels = BTreeMap::new();
    for (index, position) in (0..set.len()).zip(0u32..) {
        let (label, hash) = (set.label(index), set.hash(index));
        if let Some(other) = labels.insert(hash, label).filter(|&other| other != label) {
            return Err(DataError::Split(format!("the image {hash:?} has two labels, {other} and {label}")));
        }
        order.insert((label, hash), position);
    }
    Ok(set.select(&order.into_values().collect::<Vec<_>>()))
}

/// Makes the newer version of a dataset among a twin's blobs, where the older one and the delta lie. Returns the newer
/// version; its blob has the same hash.
///
/// # Errors
/// When one of the two cannot be read, the delta does not lead from one version to the other, or the disk refuses.
pub fn apply_among(blobs: &Blobs, delta: &BlobHash) -> Result<DatasetVersion, DeltaError> {
    let delta = Delta::from_bytes(&read_bounded(&blobs.path(delta))?)?;
    // A dataset's version is the hash of its bytes, and so the name of its blob.
    let old = ImageSet::read(&blobs.path(&BlobHash(delta.from.0)))?;
    blobs.put(&delta.apply(&old)?.to_bytes())?;
    Ok(delta.to)
}

impl Delta {
    /// What leads from an older version to `new`; `None` where one of the two is not in canonical order.
    #[must_use]
    pub fn between(old: &Manifest, new: &ImageSet) -> Option<Self> {
        let target = Manifest::of(new);
        if !old.is_canonical() || !target.is_canonical() {
            return None;
        }
        let before: BTreeMap<SampleHash, u16> = old.samples.iter().map(|&(label, hash)| (hash, label)).collect();
        let after: BTreeSet<SampleHash> = target.samples.iter().map(|&(_, hash)| hash).collect();
        let mut delta = Self {
            from: old.version,
            to: target.version,
            classes: new.classes(),
            normalisation: new.normalisation(),
            deleted: before.keys().copied().filter(|hash| !after.contains(hash)).collect(),
            relabelled: Vec::new(),
            added: Vec::new(),
        };
        for (index, &(label, hash)) in target.samples.iter().enumerate() {
            match before.get(&hash) {
                Some(&earlier) if earlier == label => {}
                Some(_) => delta.relabelled.push((hash, label)),
                None => delta.added.push((label, Box::new(*new.image(index)))),
            }
        }
        Some(delta)
    }

    /// Deletions, relabellings and additions.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.deleted.len(), self.relabelled.len(), self.added.len()]
    }

    /// Makes the newer version of the older one.
    ///
    /// # Errors
    /// When it was made for another version, names samples that are not there, or does not lead where it says.
    /// Nothing is changed then.
    pub fn apply(&self, old: &ImageSet) -> Result<ImageSet, DeltaError> {
        let manifest = Manifest::of(old);
        if manifest.version != self.from {
            return Err(DeltaError::Base { expected: self.from, found: manifest.version });
        }
        let mut samples: BTreeMap<SampleHash, (u16, &Image)> = BTreeMap::new();
        for (index, &(label, hash)) in manifest.samples.iter().enumerate() {
            samples.insert(hash, (label, old.image(index)));
        }
        for hash in &self.deleted {
            samples.remove(hash).ok_or(DeltaError::NoSuchSample(*hash))?;
        }
        for &(hash, label) in &self.relabelled {
            samples.get_mut(&hash).ok_or(DeltaError::NoSuchSample(hash))?.0 = label;
        }
        for (label, image) in &self.added {
            samples.insert(SampleHash::of(image), (*label, image));
        }
        let mut set = ImageSet::new(self.classes, self.normalisation)?;
        for (label, image) in samples.into_values() {
            set.push(label, image)?;
        }
        let set = canonical(&set)?;
        let found = DatasetVersion::of(&set.to_bytes());
        if found == self.to { Ok(set) } else { Err(DeltaError::Result { expected: self.to, found }) }
    }

    /// The blob's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = |items: usize| u32::try_from(items).expect("fewer than 2^32 samples").to_le_bytes();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.added.len() * (2 + IMAGE_BYTES));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.from.0);
        bytes.extend_from_slice(&self.to.0);
        bytes.extend_from_slice(&self.classes.to_le_bytes());
        for number in self.normalisation.mean.iter().chain(&self.normalisation.deviation) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.counts().iter().for_each(|&count| bytes.extend_from_slice(&length(count)));
        self.deleted.iter().for_each(|hash| bytes.extend_from_slice(&hash.0));
        for (hash, label) in &self.relabelled {
            bytes.extend_from_slice(&hash.0);
            bytes.extend_from_slice(&label.to_le_bytes());
        }
        for (label, image) in &self.added {
            bytes.extend_from_slice(&label.to_le_bytes());
            bytes.extend_from_slice(image.as_slice());
        }
        bytes
    }

    /// Reads a blob's bytes.
    ///
    /// # Errors
    /// When they are no delta, cut short or too long.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DeltaError> {
        let mut reader = Reader(bytes);
        if reader.array::<8>()? != *MAGIC {
            return Err(DeltaError::Foreign("it begins otherwise"));
        }
        if u16::from_le_bytes(reader.array()?) != VERSION {
            return Err(DeltaError::Foreign("another version"));
        }
        let (from, to) = (DatasetVersion(reader.array()?), DatasetVersion(reader.array()?));
        let classes = u16::from_le_bytes(reader.array()?);
        let mut numbers = [0f32; 6];
        for number in &mut numbers {
            *number = f32::from_le_bytes(reader.array()?);
        }
        let [a, b, c, d, e, f] = numbers;
        let normalisation = Normalisation { mean: [a, b, c], deviation: [d, e, f] }.checked()?;
        let mut counts = [0usize; 3];
        for count in &mut counts {
            *count = u32::from_le_bytes(reader.array()?) as usize;
        }
        let [deletions, relabellings, additions] = counts;
        let expected = 16 * deletions as u64 + 18 * relabellings as u64 + (2 + IMAGE_BYTES) as u64 * additions as u64;
        if reader.0.len() as u64 != expected {
            return Err(DeltaError::Foreign("its length is not what its header says"));
        }
        let mut delta = Self {
            from,
            to,
            classes,
            normalisation,
            deleted: Vec::with_capacity(deletions),
            relabelled: Vec::with_capacity(relabellings),
            added: Vec::with_capacity(additions),
        };
        for _ in 0..deletions {
            delta.deleted.push(SampleHash(reader.array()?));
        }
        for _ in 0..relabellings {
            delta.relabelled.push((SampleHash(reader.array()?), u16::from_le_bytes(reader.array()?)));
        }
        for _ in 0..additions {
            delta.added.push((u16::from_le_bytes(reader.array()?), Box::new(reader.array()?)));
        }
        Ok(delta)
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DeltaError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DeltaError::Foreign("cut short"))?;
        self.0 = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(classes: u16, samples: &BTreeMap<u8, u16>) -> ImageSet {
        let unit = Normalisation { mean: [0.5; 3], deviation: [0.25; 3] };
        let mut set = ImageSet::new(classes, unit).unwrap();
        for (&value, &label) in samples {
            set.push(label, &[value; IMAGE_BYTES]).unwrap();
        }
        let normalisation = set.pixel_statistics().normalisation();
        canonical(&set.with_normalisation(normalisation).unwrap()).unwrap()
    }

    fn samples() -> impl Strategy<Value = BTreeMap<u8, u16>> {
        prop::collection::btree_map(any::<u8>(), 0u16..4, 1..20)
    }

    proptest! {
        #[test]
        fn the_newer_version_comes_out_to_the_byte(old in samples(), new in samples()) {
            let (old, new) = (set(4, &old), set(5, &new));
            let delta = Delta::between(&Manifest::of(&old), &new).unwrap();
            let read = Delta::from_bytes(&delta.to_bytes()).unwrap();
            prop_assert_eq!(&read, &delta);
            prop_assert_eq!(read.apply(&old).unwrap().to_bytes(), new.to_bytes());
        }

        #[test]
        fn damaged_bytes_are_never_a_panic_nor_another_set(old in samples(), new in samples(), at: usize, bit in 0u8..8) {
            let (old, new) = (set(4, &old), set(4, &new));
            let mut bytes = Delta::between(&Manifest::of(&old), &new).unwrap().to_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(read) = Delta::from_bytes(&bytes)
                && let Ok(made) = read.apply(&old)
            {
                prop_assert_eq!(DatasetVersion::of(&made.to_bytes()), read.to);
            }
        }
    }

    #[test]
    fn two_hundred_new_images_are_two_hundred_images() {
        let old: BTreeMap<u8, u16> = (0..50).map(|value| (value, 0)).collect();
        let new: BTreeMap<u8, u16> = (0..250).map(|value| (value, 0)).collect();
        let delta = Delta::between(&Manifest::of(&set(1, &old)), &set(1, &new)).unwrap();
        assert_eq!(delta.counts(), [0, 0, 200]);
        assert_eq!(delta.to_bytes().len(), HEADER_BYTES + 200 * (2 + IMAGE_BYTES));
    }

    #[test]
    fn a_twin_makes_the_newer_version_beside_the_older_one() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(directory.path()).unwrap();
        let (old, new) = (set(1, &BTreeMap::from([(1, 0)])), set(1, &BTreeMap::from([(1, 0), (2, 0)])));
        let delta = Delta::between(&Manifest::of(&old), &new).unwrap();
        let delta = blobs.put(&delta.to_bytes()).unwrap();
        assert!(matches!(apply_among(&blobs, &delta), Err(DeltaError::Data(DataError::Io { .. }))));
        blobs.put(&old.to_bytes()).unwrap();
        let version = apply_among(&blobs, &delta).unwrap();
        assert_eq!(ImageSet::read(&blobs.path(&BlobHash(version.0))).unwrap(), new);
    }

    #[test]
    fn samples_that_do_not_exist_and_other_bases_are_refused() {
        let (old, new) = (set(2, &BTreeMap::from([(1, 0), (2, 1)])), set(2, &BTreeMap::from([(2, 0), (3, 1)])));
        let delta = Delta::between(&Manifest::of(&old), &new).unwrap();
        assert_eq!(delta.counts(), [1, 1, 1]);
        assert!(matches!(delta.apply(&new), Err(DeltaError::Base { .. })));
        let mut foreign = delta.clone();
        foreign.deleted.push(SampleHash([7; 16]));
        assert!(matches!(foreign.apply(&old), Err(DeltaError::NoSuchSample(_))));
        let mut elsewhere = delta;
        elsewhere.added.clear();
        assert!(matches!(elsewhere.apply(&old), Err(DeltaError::Result { .. })));
    }

    #[test]
    fn a_set_in_another_order_has_no_delta() {
        let ordered = set(2, &BTreeMap::from([(1, 0), (2, 1)]));
        let turned = ordered.select(&[1, 0]);
        assert_eq!(Delta::between(&Manifest::of(&turned), &ordered), None);
        assert_eq!(canonical(&turned).unwrap(), ordered);
        let mut twice = ordered.clone();
        twice.push(1, &[1; IMAGE_BYTES]).unwrap();
        assert!(canonical(&twice).is_err());
    }
}
