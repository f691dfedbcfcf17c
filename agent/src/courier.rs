//! Carries blobs between the disk and the wire, and times them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use twin_data::blobs::{BlobError, Blobs};
use twin_shared::id::BlobHash;
use twin_shared::transfer::{Exchange, OnDisk, Output, chunk_for};
use twin_shared::wire::{BlobAck, Manifest, Purpose, Refusal};

use crate::off_loop;
use crate::sampler::PathMeter;

/// Arrivals that are timed at once; a sender has one or two under way.
const TIMED: usize = 8;

/// Both directions of blobs.
#[derive(Debug)]
pub struct Courier {
    exchange: Exchange,
    blobs: Blobs,
    started: Instant,
    /// When the blob under way up was first offered.
    leaving: Option<(BlobHash, Instant)>,
    /// When blobs under way down were first offered.
    arriving: BTreeMap<BlobHash, Instant>,
}

/// What is to go out.
#[derive(Debug)]
pub enum Parcel {
    /// An offer.
    Manifest(Manifest),
    /// A piece.
    Chunk {
        /// The blob.
        blob: BlobHash,
        /// Which piece.
        index: u32,
        /// The piece.
        bytes: Vec<u8>,
    },
}

/// What became of something that came in.
#[derive(Debug, Default)]
pub struct Taken {
    /// What to tell the sender.
    pub ack: Option<BlobAck>,
    /// A blob that is whole now, or was before, by what it is: of a student state that travelled as a difference,
    /// the state.
    pub whole: Option<(BlobHash, Purpose)>,
}

/// What became of a blob of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The host holds it.
    Sent(Manifest),
    /// The host does not take it.
    Refused(Manifest, Refusal),
}

impl Courier {
    /// A courier for these blobs.
    #[must_use]
    pub fn new(blobs: Blobs, started: Instant) -> Self {
        Self { exchange: Exchange::default(), blobs, started, leaving: None, arriving: BTreeMap::new() }
    }

    /// The blobs.
    #[must_use]
    pub const fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Queues a blob, in chunks that fit a link of this rate, bits a second.
    ///
    /// # Errors
    /// When it is not on disk.
    pub fn send(&mut self, blob: BlobHash, purpose: Purpose, rate: u64) -> Result<(), BlobError> {
        let size = self.blobs.size(&blob)?;
        self.exchange.send(Manifest { blob, size, chunk: chunk_for(rate), purpose });
        Ok(())
    }

    /// Gives up what is unwanted, both ways.
    pub fn cancel(&mut self, unwanted: impl Fn(&Manifest) -> bool) {
        self.exchange.cancel(unwanted);
    }

    /// What was on its way may be lost.
    pub fn reconnect(&mut self) {
        self.exchange.reconnect();
    }

    /// Whether something goes up.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.exchange.unsent() > 0
    }

    /// When [`Self::next`] can have something, since the agent's start.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.exchange.wake_at()
    }

    /// What goes out next, if anything is due. A blob that cannot be read any more is given up.
    pub fn next(&mut self, now: Instant) -> Option<Parcel> {
        loop {
            match self.exchange.poll(now.saturating_duration_since(self.started))? {
                Output::Offer(manifest) => {
                    if self.leaving.is_none_or(|(blob, _)| blob != manifest.blob) {
                        self.leaving = Some((manifest.blob, now));
                    }
                    return Some(Parcel::Manifest(manifest));
                }
                Output::Chunk { blob, index, offset, length } => match self.blobs.read_chunk(&blob, offset, length) {
                    Ok(bytes) => return Some(Parcel::Chunk { blob, index, bytes }),
                    Err(error) => {
                        tracing::error!(%error, "a blob cannot be read and is not sent");
                        self.exchange.cancel(|manifest| manifest.blob == blob);
                    }
                },
                Output::Ack(_) | Output::Verify(_) | Output::Sent(_) | Output::Refused(..) => return None,
            }
        }
    }

    /// The host says what it holds.
    pub fn on_ack(&mut self, ack: &BlobAck, now: Instant, path: &mut PathMeter) -> Option<Delivery> {
        match self.exchange.on_ack(ack, now.saturating_duration_since(self.started))? {
            Output::Sent(manifest) => {
                if let Some((_, since)) = self.leaving.take_if(|(blob, _)| *blob == manifest.blob) {
                    let took = now.saturating_duration_since(since);
                    path.sent(now, manifest.size, took);
                    tracing::info!(
                        purpose = ?manifest.purpose,
                        bytes = manifest.size,
                        seconds = took.as_secs_f64(),
                        retransmissions = self.exchange.retransmissions(),
                        "the host has a blob"
                    );
                }
                Some(Delivery::Sent(manifest))
            }
            Output::Refused(manifest, why) => Some(Delivery::Refused(manifest, why)),
            Output::Offer(_) | Output::Chunk { .. } | Output::Ack(_) | Output::Verify(_) => None,
        }
    }

    /// The host offers a blob of at most this length, or one that is not wanted.
    pub async fn on_manifest(&mut self, manifest: Manifest, limit: Result<u64, Refusal>, now: Instant) -> Taken {
        let on_disk = self.blobs.on_disk(&manifest);
        if limit.is_ok() && on_disk != OnDisk::Whole {
            if self.arriving.len() >= TIMED {
                self.arriving.pop_first();
            }
            self.arriving.entry(manifest.blob).or_insert(now);
        }
        if limit.is_ok() && on_disk == OnDisk::Whole {
            return self.receive(manifest).await;
        }
        let answer = self.exchange.on_manifest(manifest, limit, on_disk);
        Taken { ack: acknowledgement(Some(answer)), whole: None }
    }

    /// A piece comes. The last one of a blob has the whole checked, off the event loop.
    pub async fn on_chunk(&mut self, blob: BlobHash, index: u32, bytes: &[u8], path: &mut PathMeter) -> Taken {
        let Some((manifest, offset)) = self.exchange.place(&blob, index, bytes.len()) else {
            return Taken { ack: acknowledgement(self.exchange.holding(&blob)), whole: None };
        };
        let next = self.blobs.take_chunk(&mut self.exchange, &manifest, (index, offset), bytes);
        let next = next.unwrap_or_else(|error| {
            tracing::error!(%error, "a chunk cannot be stored");
            Some(self.exchange.verified(&blob, Err(Refusal::Storage)))
        });
        match next {
            Some(Output::Verify(manifest)) => self.finish(manifest, path).await,
            other => Taken { ack: acknowledgement(other), whole: None },
        }
    }

    async fn finish(&mut self, manifest: Manifest, path: &mut PathMeter) -> Taken {
        let since = self.arriving.remove(&manifest.blob);
        let now = Instant::now();
        if let Some(since) = since {
            path.received(now, manifest.size, now.saturating_duration_since(since));
        }
        self.receive(manifest).await
    }

    /// A blob is all here: checked, understood and acknowledged, in this order.
    async fn receive(&mut self, manifest: Manifest) -> Taken {
        let blobs = self.blobs.clone();
        let verdict = off_loop(move || blobs.receive(&manifest)).await.map_err(|error| {
            tracing::warn!(%error, "a blob that came is not taken");
            error.refusal()
        });
        let whole = verdict.ok().map(|blob| (blob, manifest.purpose));
        Taken { ack: acknowledgement(Some(self.exchange.verified(&manifest.blob, verdict.map(drop)))), whole }
    }
}

fn acknowledgement(output: Option<Output>) -> Option<BlobAck> {
    match output? {
        Output::Ack(ack) => Some(ack),
        Output::Offer(_) | Output::Chunk { .. } | Output::Verify(_) | Output::Sent(_) | Output::Refused(..) => None,
    }
}
