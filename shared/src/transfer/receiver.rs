//! The receiving side of one blob.

use crate::id::BlobHash;
use crate::wire::{BlobAck, Manifest, Refusal};

use super::{CHUNK_BYTES, window};

/// What the receiver's disk has of a blob when its manifest comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisk {
    /// Nothing.
    Nothing,
    /// A partial file, left by an earlier life, that has no gap up to this length.
    Partial(u64),
    /// All of it, checked.
    Whole,
}

/// Receives one blob.
#[derive(Debug)]
pub struct Receiver {
    manifest: Manifest,
    chunks: u32,
    window: u32,
    base: u32,
    beyond: u64,
    open: bool,
}

impl Receiver {
    /// A receiver for a blob of at most `limit` bytes.
    ///
    /// Of a partial file every whole chunk up to its first gap is trusted, but for the blob's last: that one has the
    /// whole checked when it comes. The hash says at the end whether the trust was right.
    ///
    /// # Errors
    /// [`Refusal::Size`] where blob or chunks are too large, too small or too many.
    pub fn new(manifest: Manifest, limit: u64, on_disk: OnDisk) -> Result<Self, Refusal> {
        let chunks = u32::try_from(manifest.chunks()).map_err(|_| Refusal::Size)?;
        if manifest.size == 0 || manifest.size > limit || !CHUNK_BYTES.contains(&manifest.chunk) {
            return Err(Refusal::Size);
        }
        let window = window(manifest.chunk);
        let base = match on_disk {
            OnDisk::Nothing => 0,
            OnDisk::Partial(bytes) => {
                let whole = u32::try_from(bytes / u64::from(manifest.chunk)).unwrap_or(u32::MAX);
                whole.min(chunks.saturating_sub(1))
            }
            OnDisk::Whole => chunks,
        };
        Ok(Self { manifest, chunks, window, base, beyond: 0, open: true })
    }

    /// The blob.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where a chunk that came belongs, bytes from the start; `None` where it is not wanted: held already, beyond
    /// the credit, or of a wrong length.
    #[must_use]
    pub fn place(&self, index: u32, length: usize) -> Option<u64> {
        let right = self.manifest.chunk_length(index)? as usize == length;
        let ahead = index.checked_sub(self.base)?;
        let fresh = ahead < self.window && self.beyond >> ahead & 1 == 0;
        (right && fresh).then(|| u64::from(index) * u64::from(self.manifest.chunk))
    }

    /// The chunk is on disk now. Returns whether the blob is whole.
    pub fn wrote(&mut self, index: u32) -> bool {
        if let Some(ahead) = index.checked_sub(self.base).filter(|&ahead| ahead < self.window) {
            self.beyond |= 1 << ahead;
            let contiguous = self.beyond.trailing_ones();
            self.base += contiguous;
            self.beyond = self.beyond.checked_shr(contiguous).unwrap_or(0);
        }
        self.base >= self.chunks
    }

    /// Gives credit, or none: a sender without credit waits, and what it has sent already is still taken.
    pub fn open(&mut self, open: bool) {
        self.open = open;
    }

    /// What to tell the sender.
    #[must_use]
    pub fn ack(&self) -> BlobAck {
        BlobAck::Holding {
            blob: self.blob(),
            base: self.base,
            beyond: self.beyond,
            credit: self.base.saturating_add(if self.open { self.window } else { 0 }),
        }
    }

    fn blob(&self) -> BlobHash {
        self.manifest.blob
    }
}
