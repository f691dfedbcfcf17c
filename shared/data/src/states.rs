//! What a blob that came means: of student states, what travelled as a difference becomes the state again.

use std::fs::{self, File};
use std::io::Read;

use twin_shared::compress::{self, About, CompressError};
use twin_shared::id::BlobHash;
use twin_shared::wire::{Manifest, Purpose, Refusal};

use crate::blobs::{BlobError, Blobs};
use crate::delta::{self, DeltaError};

/// A delta is never so much longer than its base: it would have been sent whole.
const LONGER: u64 = 64 << 10;

/// Bytes in which a delta says what it is.
const HEAD: usize = 256;

/// Why a blob that came is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The disk.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A difference to a state that is not here.
    #[error("it is a difference to state {0:.12}, which is not here")]
    NoBase(BlobHash),
    /// A damaged difference, or one to something else.
    #[error(transparent)]
    Delta(#[from] CompressError),
    /// What changed in a dataset does not lead to the version that was said.
    #[error(transparent)]
    Dataset(#[from] DeltaError),
}

impl ReceiveError {
    /// What the sender is told.
    #[must_use]
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::Blob(BlobError::Hash { .. }) => Refusal::Hash,
            Self::Blob(BlobError::Io { .. }) => Refusal::Storage,
            Self::NoBase(_) | Self::Delta(_) | Self::Dataset(_) => Refusal::Base,
        }
    }
}

impl Blobs {
    /// Takes a blob whose chunks are all here, or that was here before, and says what it is: of a student state that
    /// travelled as a difference, the state.
    ///
    /// # Errors
    /// When it is not the blob that was offered, or not of its purpose; see [`ReceiveError::refusal`].
    pub fn receive(&self, manifest: &Manifest) -> Result<BlobHash, ReceiveError> {
        if !self.renew(&manifest.blob)? {
            self.finish(manifest)?;
        }
        match manifest.purpose {
            Purpose::Student { .. } => self.take_state(&manifest.blob),
            Purpose::DatasetDelta { to, .. } => match delta::apply_among(self, &manifest.blob)? {
                version if version == to => Ok(BlobHash(to.0)),
                found => Err(DeltaError::Result { expected: to, found }.into()),
            },
            Purpose::Dataset(_)
            | Purpose::Base { .. }
            | Purpose::Labels { .. }
            | Purpose::Classes { .. }
            | Purpose::Model { .. }
            | Purpose::Telemetry
            | Purpose::Waiting
            | Purpose::WaitingLabels
            | Purpose::Probe(_) => Ok(manifest.blob),
        }
    }

    /// The state that a blob is: its own name where it is whole, and where it is a delta the state decoded over its
    /// base and taken in.
    ///
    /// # Errors
    /// When the delta is damaged or its base is not here, or the disk refuses.
    fn take_state(&self, blob: &BlobHash) -> Result<BlobHash, ReceiveError> {
        let path = self.path(blob);
        let io = |error| BlobError::Io { path: path.clone(), error };
        let mut head = Vec::with_capacity(HEAD);
        let file = File::open(&path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        file.take(HEAD as u64).read_to_end(&mut head).map_err(io)?;
        if !compress::is_delta(&head) {
            return Ok(*blob);
        }
        let (about, _) = About::read(&head)?;
        if self.renew(&about.state)? {
            return Ok(about.state);
        }
        let base = self.path(&about.base);
        if !base.is_file() {
            return Err(ReceiveError::NoBase(about.base));
        }
        if length > self.size(&about.base)? + LONGER {
            return Err(CompressError::NotDelta("it is longer than its base").into());
        }
        let base = fs::read(&base).map_err(|error| BlobError::Io { path: base, error })?;
        let state = compress::decode(&base, &fs::read(&path).map_err(io)?)?;
        Ok(self.put(&state)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::compress::Compression;

    /// A state of one 1 × 2 matrix.
    fn state(values: [f32; 2]) -> Vec<u8> {
        let header = br#"{"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        file
    }

    #[test]
    fn a_delta_becomes_its_state_and_a_state_stays_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path()).expect("made");
        let base = state([1.0, 2.0]);
        let encoded =
            compress::encode(Compression::Int8, &base, &state([1.5, 0.0]), None).expect("two states of one network");
        let delta = blobs.put(&encoded.delta).expect("put");
        assert!(
            matches!(blobs.take_state(&delta), Err(ReceiveError::NoBase(missing)) if missing == BlobHash::of(&base))
        );
        let base = blobs.put(&base).expect("put");
        assert_eq!(blobs.take_state(&base).expect("whole"), base);
        // As often as it is asked for: an offer may come twice.
        for _ in 0..2 {
            let state = blobs.take_state(&delta).expect("decodes");
            assert_eq!(blobs.rehash(&state).expect("there"), BlobHash::of(&encoded.state));
        }
    }
}
