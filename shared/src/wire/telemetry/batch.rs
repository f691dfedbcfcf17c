//! Samples taken while no broker was in reach, sent later as one blob.
//!
//! A batch is a [`Header`], then the samples one after another, oldest first, to the end of the bytes. Samples are
//! numbered, so that one that comes twice is known, and one that never comes was dropped on the board for want of room.
//! Boards may not know the time: a sample's time is by the clock that the header shows, and only the distance of the
//! two is to be trusted.

use serde::{Deserialize, Serialize};

use super::{MAX_BYTES, Telemetry};

/// Bytes of the largest [`Header`]: three ten-byte varints.
pub const MAX_HEADER_BYTES: usize = 30;

/// Bytes of the largest [`KeptSample`]: a ten-byte varint and the sample.
pub const MAX_KEPT_BYTES: usize = 10 + MAX_BYTES;

/// What a batch begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The board's queue, a random number: another one counts from 0 again.
    pub queue: u64,
    /// The number of the first sample in its queue.
    pub first: u64,
    /// The board's clock when it made the batch, milliseconds since 1970, years wrong perhaps.
    pub clock_ms: u64,
}

/// A sample with the time at which it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSample {
    /// By the clock of [`Header::clock_ms`]; of a sample from before the board's last start, by the clock of then.
    pub time_ms: u64,
    /// The sample.
    pub sample: Telemetry,
}

/// A batch being read.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    header: Header,
    rest: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Starts to read a batch.
    ///
    /// # Errors
    /// Bytes that do not begin with a header.
    pub fn open(bytes: &'a [u8]) -> Result<Self, postcard::Error> {
        let (header, rest) = postcard::take_from_bytes(bytes)?;
        Ok(Self { header, rest })
    }

    /// What it begins with.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
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
