//! Samples taken while no broker was in reach, sent later as one blob.
//!
//! A batch is the number of samples that were dropped before its first one, as a varint, then the samples one after
//! another, oldest first, to the end of the bytes.

use serde::{Deserialize, Serialize};

use super::{MAX_BYTES, Telemetry};

/// Bytes of the largest [`KeptSample`]: a ten-byte varint and the sample.
pub const MAX_KEPT_BYTES: usize = 10 + MAX_BYTES;

/// A sample with the time at which it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSample {
    /// The board's clock in milliseconds, the one that its envelopes carry.
    pub time_ms: u64,
    /// The sample.
    pub sample: Telemetry,
}

/// A batch being read.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    dropped: u64,
    rest: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Starts to read a batch.
    ///
    /// # Errors
    /// Bytes that do not begin with a count.
    pub fn open(bytes: &'a [u8]) -> Result<Self, postcard::Error> {
        let (dropped, rest) = postcard::take_from_bytes(bytes)?;
        Ok(Self { dropped, rest })
    }

    /// Samples that were dropped for want of room since the last batch.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The samples; after a broken one, nothing more.
impl Iterator for Batch<'_> {
    type Item = Result<KeptSample, postcard::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(self.rest) {
            Ok((sample, rest)) => {
                self.rest = rest;
                Some(Ok(sample))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}
