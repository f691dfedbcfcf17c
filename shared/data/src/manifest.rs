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
    }
}
