//! What a dataset consists of, without its images: enough to see what changed between two versions.

use std::collections::BTreeSet;

use twin_shared::id::DatasetVersion;

use crate::image_set::{ImageSet, SampleHash};

/// A version of a dataset and the identities of its samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The hash of the whole file.
    pub version: DatasetVersion,
    /// Number of classes.
    pub classes: u16,
    /// Label and identity of every sample, in the file's order.
    pub samples: Vec<(u16, SampleHash)>,
}

impl Manifest {
    /// Of a set.
    #[must_use]
    pub fn of(set: &ImageSet) -> Self {
        Self {
            version: DatasetVersion::of(&set.to_bytes()),
            classes: set.classes(),
            samples: (0..set.len()).map(|i| (set.label(i), set.hash(i))).collect(),
        }
    }

    /// Whether samples are in order of class and hash, none of them twice: what a delta stands on.
    #[must_use]
    pub fn is_canonical(&self) -> bool {
        let hashes: BTreeSet<_> = self.samples.iter().map(|(_, hash)| hash).collect();
        hashes.len() == self.samples.len() && self.samples.is_sorted()
    }

    /// The list as it lies on disk: classes (u16), then label (u16) and hash of each sample, little endian. The
    /// version is the file's name.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.classes.to_le_bytes().to_vec();
        for (label, hash) in &self.samples {
            bytes.extend_from_slice(&label.to_le_bytes());
            bytes.extend_from_slice(&hash.0);
        }
        bytes
    }

    /// Reads a list; `None` where it is none.
    #[must_use]
    pub fn from_bytes(version: DatasetVersion, bytes: &[u8]) -> Option<Self> {
        let (classes, rest) = bytes.split_first_chunk::<2>()?;
        let (records, left) = rest.as_chunks::<18>();
        let samples = records.iter().map(|record| {
            let (label, hash) = record.split_first_chunk::<2>().expect("18 bytes");
            (u16::from_le_bytes(*label), SampleHash(hash.try_into().expect("16 bytes")))
        });
        let samples = samples.collect();
        left.is_empty().then_some(Self { version, classes: u16::from_le_bytes(*classes), samples })
    }

    /// Positions of samples that `earlier` does not have, or has under another label.
    #[must_use]
    pub fn added_since(&self, earlier: &Self) -> Vec<usize> {
        let known: BTreeSet<_> = earlier.samples.iter().collect();
        (0..self.samples.len()).filter(|&i| !known.contains(&self.samples[i])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_set::IMAGE_BYTES;
    use crate::normalisation::Normalisation;

    #[test]
    fn only_what_is_new_or_relabelled_is_added() {
        let unit = Normalisation { mean: [0.0; 3], deviation: [1.0; 3] };
        let mut old = ImageSet::new(3, unit).unwrap();
        for value in 0..3u8 {
            old.push(value.into(), &[value; IMAGE_BYTES]).unwrap();
        }
        let mut new = old.select(&[2, 0]);
        new.push(0, &[1; IMAGE_BYTES]).unwrap();
        new.push(1, &[9; IMAGE_BYTES]).unwrap();
        let (old, new) = (Manifest::of(&old), Manifest::of(&new));
        assert_eq!(new.added_since(&old), [2, 3]);
        assert_ne!(new.version, old.version);
        assert_eq!(Manifest::from_bytes(new.version, &new.to_bytes()), Some(new.clone()));
        assert_eq!(Manifest::from_bytes(new.version, &new.to_bytes()[1..]), None);
    }
}
