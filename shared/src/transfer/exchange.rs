//! Both directions of blobs with one peer.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::{OnDisk, Receiver, Sender, Transmit};
use crate::id::BlobHash;
use crate::wire::{BlobAck, Manifest, Refusal};

/// Blobs that a peer may be sending at once. Our own sender sends one at a time; a blob that was given up for
/// another and came back makes two.
const MAX_INCOMING: usize = 4;

/// What the shell does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Publish the manifest.
    Offer(Manifest),
    /// Read this piece of the blob's file and publish it.
    Chunk {
        /// The blob.
        blob: BlobHash,
        /// The piece.
        index: u32,
        /// Where it starts in the file, bytes.
        offset: u64,
        /// Its length, bytes.
        length: u32,
    },
    /// Publish the acknowledgement.
    Ack(BlobAck),
    /// All chunks are on disk: hash the file, and say so by [`Exchange::verified`].
    Verify(Manifest),
    /// The peer holds the blob for good.
    Sent(Manifest),
    /// The peer will not take the blob.
    Refused(Manifest, Refusal),
}

/// The state of both directions with one peer.
#[derive(Debug, Default)]
pub struct Exchange {
    sending: Option<Sender>,
    waiting: VecDeque<Manifest>,
    receiving: BTreeMap<BlobHash, Receiver>,
    retransmissions: u64,
    closed: bool,
}

impl Exchange {
    /// Queues a blob. One that is queued or on its way already is not queued twice.
    pub fn send(&mut self, manifest: Manifest) {
        let known = self.sending.iter().map(Sender::manifest).chain(&self.waiting).any(|known| *known == manifest);
        if !known {
            self.waiting.push_back(manifest);
        }
    }

    /// Gives up blobs that are no longer wanted.
    pub fn cancel(&mut self, unwanted: impl Fn(&Manifest) -> bool) {
        self.waiting.retain(|manifest| !unwanted(manifest));
        if self.sending.as_ref().is_some_and(|sender| unwanted(sender.manifest())) {
            self.finish_sending();
        }
        self.receiving.retain(|_, receiver| !unwanted(receiver.manifest()));
    }

    /// Blobs that are not yet held by the peer.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.waiting.len() + usize::from(self.sending.is_some())
    }

    /// Of the blob on its way, chunks that the peer holds, and all.
    #[must_use]
    pub fn progress(&self) -> Option<(Manifest, u32, u32)> {
        self.sending.as_ref().map(|sender| {
            let (held, all) = sender.progress();
            (*sender.manifest(), held, all)
        })
    }

    /// Manifests and chunks sent beyond the one time that each needs.
    #[must_use]
    pub const fn retransmissions(&self) -> u64 {
        self.retransmissions
    }

    /// Lets blobs pass, or holds them back both ways: nothing is sent, and the peer gets no credit. Returns what the
    /// peer is to be told. What it had credit for comes all the same and is taken.
    pub fn open(&mut self, open: bool) -> Vec<BlobAck> {
        if self.closed != open {
            return Vec::new();
        }
        self.closed = !open;
        self.receiving.values_mut().for_each(|receiver| receiver.open(open));
        self.receiving.values().map(Receiver::ack).collect()
    }

    /// The connection is new: what was on its way may be lost.
    pub fn reconnect(&mut self) {
        if let Some(sender) = &mut self.sending {
            sender.reconnect();
        }
    }

    /// What to put on the wire next, if anything is due; it counts as sent at `now`. Call until `None`, as far as
    /// pacing allows.
    pub fn poll(&mut self, now: Duration) -> Option<Output> {
        if self.closed {
            return None;
        }
        if self.sending.is_none() {
            self.sending = self.waiting.pop_front().map(Sender::new);
        }
        let sender = self.sending.as_mut()?;
        let manifest = *sender.manifest();
        match sender.poll(now)? {
            Transmit::Manifest => Some(Output::Offer(manifest)),
            Transmit::Chunk(index) => Some(Output::Chunk {
                blob: manifest.blob,
                index,
                offset: u64::from(index) * u64::from(manifest.chunk),
                length: manifest.chunk_length(index).expect("the sender stays within the blob"),
            }),
        }
    }

    /// When [`poll`](Self::poll) can have something new without a message coming; `None` is never.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        match &self.sending {
            _ if self.closed => None,
            Some(sender) => Some(sender.wake_at()),
            None => (!self.waiting.is_empty()).then_some(Duration::ZERO),
        }
    }

    /// Takes an acknowledgement. One of a blob that is not being sent says nothing.
    pub fn on_ack(&mut self, ack: &BlobAck, now: Duration) -> Option<Output> {
        let (BlobAck::Holding { blob, .. } | BlobAck::Complete { blob } | BlobAck::Refused { blob, .. }) = *ack;
        let sender = self.sending.as_mut().filter(|sender| sender.manifest().blob == blob)?;
        let manifest = *sender.manifest();
        match *ack {
            BlobAck::Holding { .. } => {
                sender.on_holding(ack, now);
                None
            }
            BlobAck::Complete { .. } => {
                self.finish_sending();
                Some(Output::Sent(manifest))
            }
            // All chunks came and were not the blob: what is on the receiver's disk is thrown away, so once more.
            BlobAck::Refused { why: Refusal::Hash, .. } => {
                sender.reconnect();
                None
            }
            BlobAck::Refused { why, .. } => {
                self.finish_sending();
                Some(Output::Refused(manifest, why))
            }
        }
    }

    /// Takes an offer. `limit` is the longest blob of its purpose, or why none is wanted.
    pub fn on_manifest(&mut self, manifest: Manifest, limit: Result<u64, Refusal>, on_disk: OnDisk) -> Output {
        let blob = manifest.blob;
        if on_disk == OnDisk::Whole {
            self.receiving.remove(&blob);
            return Output::Ack(BlobAck::Complete { blob });
        }
        let receiver = match limit.and_then(|limit| Receiver::new(manifest, limit, on_disk)) {
            Ok(mut receiver) => {
                receiver.open(!self.closed);
                receiver
            }
            Err(why) => return Output::Ack(BlobAck::Refused { blob, why }),
        };
        if let Some(known) = self.receiving.get(&blob).filter(|known| *known.manifest() == manifest) {
            return Output::Ack(known.ack());
        }
        if !self.receiving.contains_key(&blob) && self.receiving.len() >= MAX_INCOMING {
            self.receiving.pop_first();
        }
        let ack = receiver.ack();
        self.receiving.insert(blob, receiver);
        Output::Ack(ack)
    }

    /// Where to write a chunk that came, and into which blob; `None` where it is not wanted. After writing, say so
    /// by [`wrote`](Self::wrote).
    #[must_use]
    pub fn place(&self, blob: &BlobHash, index: u32, length: usize) -> Option<(Manifest, u64)> {
        let receiver = self.receiving.get(blob)?;
        Some((*receiver.manifest(), receiver.place(index, length)?))
    }

    /// What was offered of a blob that comes.
    #[must_use]
    pub fn receiving(&self, blob: &BlobHash) -> Option<Manifest> {
        self.receiving.get(blob).map(|receiver| *receiver.manifest())
    }

    /// What a chunk that is not wanted is answered by: the sender has not heard what is held.
    #[must_use]
    pub fn holding(&self, blob: &BlobHash) -> Option<Output> {
        self.receiving.get(blob).map(|receiver| Output::Ack(receiver.ack()))
    }

    /// A chunk is on disk.
    pub fn wrote(&mut self, blob: &BlobHash, index: u32) -> Option<Output> {
        let receiver = self.receiving.get_mut(blob)?;
        let whole = receiver.wrote(index);
        Some(if whole { Output::Verify(*receiver.manifest()) } else { Output::Ack(receiver.ack()) })
    }

    /// The whole file was hashed: `Ok` where the hash is the blob's name and the file is in its final place.
    pub fn verified(&mut self, blob: &BlobHash, verdict: Result<(), Refusal>) -> Output {
        self.receiving.remove(blob);
        Output::Ack(match verdict {
            Ok(()) => BlobAck::Complete { blob: *blob },
            Err(why) => BlobAck::Refused { blob: *blob, why },
        })
    }

    fn finish_sending(&mut self) {
        if let Some(sender) = self.sending.take() {
            let needed = 1 + sender.manifest().chunks();
            self.retransmissions += sender.transmissions().saturating_sub(needed);
        }
    }
}
