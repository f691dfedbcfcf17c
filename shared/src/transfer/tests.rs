//! Blobs over a network that loses, repeats, reorders and restarts.

#![allow(clippy::wildcard_enum_match_arm, reason = "an output that cannot come is a failure of the test")]

use core::time::Duration;
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::{BlobHash, DatasetVersion};
use crate::wire::{BlobAck, Manifest, Purpose, Refusal};

fn manifest(bytes: &[u8], chunk: u32) -> Manifest {
    let purpose = Purpose::Dataset(DatasetVersion([0; 32]));
    Manifest { blob: BlobHash::of(bytes), size: bytes.len() as u64, chunk, purpose }
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|k| (k * 31 % 251) as u8).collect()
}

/// What the network does to a message.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Deliver,
    Drop,
    Twice,
    /// Overtaken by this many milliseconds of later messages.
    Late(u64),
    /// The receiver restarts after this message: it keeps its partial file and forgets the rest.
    ReceiverRestarts,
    SenderRestarts,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Deliver),
        2 => Just(Fate::Drop),
        1 => Just(Fate::Twice),
        2 => (1u64..3000).prop_map(Fate::Late),
        1 => Just(Fate::ReceiverRestarts),
        1 => Just(Fate::SenderRestarts),
    ]
}

#[derive(Debug, Clone)]
enum Message {
    Offer(Manifest),
    Chunk(u32, Vec<u8>),
    Ack(BlobAck),
}

/// Sender, receiver and the network between them, on a simulated clock.
struct World {
    blob: Vec<u8>,
    manifest: Manifest,
    sender: Exchange,
    receiver: Exchange,
    /// The receiver's partial file; taken away once verified.
    partial: Vec<u8>,
    /// Where its first gap was when it got one.
    gap: Option<usize>,
    whole: Option<Vec<u8>>,
    applied: u32,
    network: BTreeMap<(Duration, u64), Message>,
    fates: Vec<Fate>,
    sent: u64,
    now: Duration,
    chunk_sends: u32,
    /// Files that were all there and not the blob.
    spoilt: u32,
}

impl World {
    fn new(length: usize, chunk: u32, fates: Vec<Fate>) -> Self {
        let blob = content(length);
        let manifest = manifest(&blob, chunk);
        let mut sender = Exchange::default();
        sender.send(manifest);
        Self {
            blob,
            manifest,
            sender,
            receiver: Exchange::default(),
            partial: Vec::new(),
            gap: None,
            whole: None,
            applied: 0,
            network: BTreeMap::new(),
            fates,
            sent: 0,
            now: Duration::ZERO,
            chunk_sends: 0,
            spoilt: 0,
        }
    }

    fn post(&mut self, message: Message) {
        // Fates run out, so that every run ends in a network that works.
        let fate = self.fates.pop().unwrap_or(Fate::Deliver);
        let arrival = self.now + Duration::from_millis(5);
        self.sent += 1;
        match fate {
            Fate::Drop => return,
            Fate::Twice => {
                self.network.insert((arrival + Duration::from_millis(7), self.sent + (1 << 40)), message.clone());
            }
            Fate::Late(late) => {
                self.network.insert((arrival + Duration::from_millis(late), self.sent), message);
                return;
            }
            Fate::ReceiverRestarts => self.receiver = Exchange::default(),
            Fate::SenderRestarts => {
                self.sender = Exchange::default();
                self.sender.send(self.manifest);
            }
            Fate::Deliver => {}
        }
        self.network.insert((arrival, self.sent), message);
    }

    fn on_disk(&self) -> OnDisk {
        match (&self.whole, self.gap.unwrap_or(self.partial.len())) {
            (Some(_), _) => OnDisk::Whole,
            (None, 0) => OnDisk::Nothing,
            (None, length) => OnDisk::Partial(length as u64),
        }
    }

    fn receive(&mut self, message: Message) -> Option<Output> {
        match message {
            Message::Offer(manifest) => Some(self.receiver.on_manifest(manifest, Ok(1 << 20), self.on_disk())),
            Message::Chunk(index, bytes) => {
                let Some((_, offset)) = self.receiver.place(&self.manifest.blob, index, bytes.len()) else {
                    return self.receiver.holding(&self.manifest.blob);
                };
                let end = offset as usize + bytes.len();
                if offset as usize > self.partial.len() {
                    self.gap.get_or_insert(self.partial.len());
                }
                self.partial.resize(self.partial.len().max(end), 0);
                self.partial[offset as usize..end].copy_from_slice(&bytes);
                let mut output = self.receiver.wrote(&self.manifest.blob, index)?;
                if let Output::Ack(BlobAck::Holding { base, .. }) = output
                    && base as usize * self.manifest.chunk as usize >= self.partial.len()
                {
                    self.gap = None;
                }
                if let Output::Verify(manifest) = output {
                    let whole = BlobHash::of(&self.partial) == manifest.blob;
                    let file = core::mem::take(&mut self.partial);
                    self.gap = None;
                    self.spoilt += u32::from(!whole);
                    if whole {
                        self.whole = Some(file);
                        self.applied += 1;
                    }
                    let verdict = if whole { Ok(()) } else { Err(Refusal::Hash) };
                    output = self.receiver.verified(&manifest.blob, verdict);
                }
                Some(output)
            }
            Message::Ack(ack) => self.sender.on_ack(&ack, self.now),
        }
    }

    /// Runs until the sender knows that the blob arrived.
    fn run(&mut self) {
        for _ in 0..200_000 {
            while let Some(output) = self.sender.poll(self.now) {
                match output {
                    Output::Offer(manifest) => self.post(Message::Offer(manifest)),
                    Output::Chunk { index, offset, length, .. } => {
                        self.chunk_sends += 1;
                        let bytes = self.blob[offset as usize..offset as usize + length as usize].to_vec();
                        self.post(Message::Chunk(index, bytes));
                    }
                    other => panic!("{other:?} from poll"),
                }
            }
            if let Some(((arrival, _), message)) = self.network.pop_first() {
                self.now = self.now.max(arrival);
                match self.receive(message) {
                    Some(Output::Ack(ack)) => self.post(Message::Ack(ack)),
                    Some(Output::Sent(_)) => return,
                    Some(other) => panic!("{other:?} from a message"),
                    None => {}
                }
            } else {
                let wake = self.sender.wake_at().expect("something is being sent");
                assert!(wake > self.now, "nothing to do now and nothing to wait for");
                self.now = wake;
            }
        }
        panic!("the blob never arrived");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_blob_arrives_whole_and_is_applied_once(
        length in 1usize..200_000,
        chunk in 1u32..9,
        fates in proptest::collection::vec(fate(), 0..150),
    ) {
        let mut world = World::new(length, chunk << 10, fates);
        world.run();
        prop_assert_eq!(world.whole.as_ref(), Some(&world.blob));
        prop_assert_eq!(world.applied, 1);
        prop_assert_eq!(world.spoilt, 0, "what an earlier life left was trusted too far");
    }

    #[test]
    fn a_clean_network_carries_every_chunk_once(length in 1usize..500_000) {
        let mut world = World::new(length, 4096, Vec::new());
        world.run();
        prop_assert_eq!(u64::from(world.chunk_sends), world.manifest.chunks());
    }

    /// Whatever the receiver is told, it asks for no more than a window and never writes outside of the blob.
    #[test]
    fn a_foreign_sender_stays_within_the_window(
        size in any::<u64>(),
        chunk in any::<u32>(),
        partial in any::<u64>(),
        chunks in proptest::collection::vec((any::<u32>(), 0usize..300_000), 0..50),
    ) {
        let purpose = Purpose::Dataset(DatasetVersion([0; 32]));
        let manifest = Manifest { blob: BlobHash([1; 32]), size, chunk, purpose };
        if let Ok(mut receiver) = Receiver::new(manifest, 1 << 30, OnDisk::Partial(partial)) {
            for (index, length) in chunks {
                if let Some(offset) = receiver.place(index, length) {
                    prop_assert!(offset + length as u64 <= size);
                    receiver.wrote(index);
                }
                let BlobAck::Holding { base, credit, .. } = receiver.ack() else { unreachable!() };
                prop_assert!(credit - base <= WINDOW && (credit - base) * chunk <= WINDOW_BYTES);
            }
        }
    }

    /// Whatever the sender is told, it sends only chunks of the blob.
    #[test]
    fn a_foreign_receiver_gets_only_the_blob(
        acks in proptest::collection::vec((any::<u32>(), any::<u64>(), any::<u32>()), 1..30),
    ) {
        let blob = content(100_000);
        let manifest = manifest(&blob, 4096);
        let mut exchange = Exchange::default();
        exchange.send(manifest);
        let mut now = Duration::ZERO;
        for (base, beyond, credit) in acks {
            exchange.on_ack(&BlobAck::Holding { blob: manifest.blob, base, beyond, credit }, now);
            for _ in 0..100 {
                now += Duration::from_millis(1);
                match exchange.poll(now) {
                    Some(Output::Chunk { offset, length, .. }) => {
                        prop_assert!(offset + u64::from(length) <= manifest.size);
                    }
                    Some(Output::Offer(_)) | None => {}
                    Some(other) => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}

#[test]
fn a_restarted_receiver_asks_for_what_is_missing_and_the_last_chunk() {
    let bytes = content(100 << 10);
    let offer = manifest(&bytes, 1 << 10);
    for held in 0..=100u64 {
        let receiver = Receiver::new(offer, 1 << 20, OnDisk::Partial(held << 10)).expect("in bounds");
        let BlobAck::Holding { base, .. } = receiver.ack() else { unreachable!() };
        assert_eq!(u64::from(base), held.min(99));
    }
}

/// A chunk that was overtaken is sent again at once, not when patience ends: `wake_at` says so.
#[test]
fn an_overtaken_chunk_is_due_at_once() {
    let mut world = World::new(10 << 10, 1 << 10, Vec::new());
    let (blob, now) = (world.manifest.blob, Duration::from_secs(1));
    world.sender.poll(now);
    world.sender.on_ack(&BlobAck::Holding { blob, base: 0, beyond: 0, credit: 16 }, now);
    let sent = std::iter::from_fn(|| world.sender.poll(now)).count();
    assert_eq!(sent, 10);
    // All but the first came.
    world.sender.on_ack(&BlobAck::Holding { blob, base: 0, beyond: 0x3fe, credit: 16 }, now);
    assert!(world.sender.wake_at() <= Some(now));
    assert!(matches!(world.sender.poll(now), Some(Output::Chunk { index: 0, .. })));
    assert_eq!(world.sender.poll(now), None);
}

/// On a link so slow that a window takes a minute nothing is sent twice as long as the receiver speaks.
#[test]
fn a_slow_link_carries_every_chunk_once() {
    let (blob, mut now) = (content(16 << 10), Duration::ZERO);
    let manifest = manifest(&blob, 1 << 10);
    let mut sender = Exchange::default();
    sender.send(manifest);
    sender.poll(now);
    sender.on_ack(&BlobAck::Holding { blob: manifest.blob, base: 0, beyond: 0, credit: 16 }, now);
    let mut sent = std::iter::from_fn(|| sender.poll(now)).count();
    for base in 1..=16 {
        // One chunk in four seconds, and the sender is asked all the time.
        for _ in 0..40 {
            now += Duration::from_millis(100);
            sent += usize::from(sender.poll(now).is_some());
        }
        sender.on_ack(&BlobAck::Holding { blob: manifest.blob, base, beyond: 0, credit: base + 16 }, now);
    }
    assert_eq!(sent, 16);
}

/// Held back, nothing new is sent either way; let go again, the blob arrives.
#[test]
fn a_closed_exchange_spends_no_more_than_the_window_that_was_promised() {
    let mut world = World::new(100 << 10, 1 << 10, Vec::new());
    let now = Duration::ZERO;
    let Some(Output::Offer(offer)) = world.sender.poll(now) else { panic!("an offer comes first") };
    let Output::Ack(ack) = world.receiver.on_manifest(offer, Ok(1 << 20), OnDisk::Nothing) else { panic!("wanted") };
    world.sender.on_ack(&ack, now);
    let told = world.receiver.open(false);
    assert!(matches!(told[..], [BlobAck::Holding { base: 0, credit: 0, .. }]), "{told:?}");
    world.sender.on_ack(&told[0], now);
    assert_eq!(world.sender.poll(now), None, "without credit nothing is sent");
    assert!(world.sender.open(false).is_empty());
    assert_eq!((world.sender.poll(now), world.sender.wake_at()), (None, None));
    world.sender.open(true);
    let told = world.receiver.open(true);
    world.sender.on_ack(&told[0], now);
    world.run();
    assert_eq!(world.whole.as_ref(), Some(&world.blob));
}

#[test]
fn a_second_offer_of_a_whole_blob_is_complete_at_once() {
    let offer = manifest(&content(10), 1 << 10);
    let mut exchange = Exchange::default();
    let answer = exchange.on_manifest(offer, Err(Refusal::Unexpected), OnDisk::Whole);
    assert_eq!(answer, Output::Ack(BlobAck::Complete { blob: offer.blob }));
}

#[test]
fn chunks_fit_the_link() {
    assert_eq!(chunk_for(64_000), 16 << 10);
    assert_eq!(chunk_for(2_000_000), 64 << 10);
    assert_eq!(chunk_for(1_000_000_000), 256 << 10);
    assert!(CHUNK_BYTES.contains(&chunk_for(0)));
}
