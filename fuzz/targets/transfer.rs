//! Two exchanges and a network between them that does what the input says: loses, repeats, reorders, forges, restarts
//! either side, closes and opens the receiver. Nothing panics, nothing is written outside of the blob, never is more
//! than a window under way; and once the network works again the blob arrives whole.
#![no_main]

use core::time::Duration;
use std::collections::VecDeque;

use libfuzzer_sys::fuzz_target;
use twin_shared::id::{BlobHash, DatasetVersion};
use twin_shared::transfer::{Exchange, OnDisk, Output, WINDOW};
use twin_shared::wire::{BlobAck, Manifest, Purpose, Refusal, codec};

enum Message {
    Offer(Manifest),
    Chunk(u32, Vec<u8>),
    Ack(BlobAck),
}

struct World {
    blob: Vec<u8>,
    manifest: Manifest,
    sender: Exchange,
    receiver: Exchange,
    partial: Vec<u8>,
    gap: Option<usize>,
    whole: Option<Vec<u8>>,
    network: VecDeque<Message>,
    now: Duration,
    done: bool,
}

impl World {
    fn new(length: usize) -> Self {
        let blob: Vec<u8> = (0..length).map(|k| (k * 31 % 251) as u8).collect();
        let purpose = Purpose::Dataset(DatasetVersion([0; 32]));
        let manifest = Manifest { blob: BlobHash::of(&blob), size: length as u64, chunk: 1 << 10, purpose };
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
            network: VecDeque::new(),
            now: Duration::ZERO,
            done: false,
        }
    }

    fn send(&mut self) {
        for _ in 0..=WINDOW {
            match self.sender.poll(self.now) {
                Some(Output::Offer(manifest)) => self.network.push_back(Message::Offer(manifest)),
                Some(Output::Chunk { index, offset, length, .. }) => {
                    let bytes = self.blob[offset as usize..offset as usize + length as usize].to_vec();
                    self.network.push_back(Message::Chunk(index, bytes));
                }
                Some(other) => panic!("{other:?} from poll"),
                None => return,
            }
        }
    }

    fn deliver(&mut self, message: Message) {
        let output = match message {
            Message::Offer(manifest) => {
                let on_disk = match (&self.whole, self.gap.unwrap_or(self.partial.len())) {
                    (Some(_), _) => OnDisk::Whole,
                    (None, 0) => OnDisk::Nothing,
                    (None, length) => OnDisk::Partial(length as u64),
                };
                Some(self.receiver.on_manifest(manifest, Ok(1 << 20), on_disk))
            }
            Message::Chunk(index, bytes) => match self.receiver.place(&self.manifest.blob, index, bytes.len()) {
                None => self.receiver.holding(&self.manifest.blob),
                Some((manifest, offset)) => {
                    let end = offset as usize + bytes.len();
                    assert!(end as u64 <= manifest.size);
                    if offset as usize > self.partial.len() {
                        self.gap.get_or_insert(self.partial.len());
                    }
                    self.partial.resize(self.partial.len().max(end), 0);
                    self.partial[offset as usize..end].copy_from_slice(&bytes);
                    let output = self.receiver.wrote(&manifest.blob, index);
                    if let Some(Output::Ack(BlobAck::Holding { base, .. })) = output
                        && u64::from(base) * u64::from(manifest.chunk) >= self.partial.len() as u64
                    {
                        self.gap = None;
                    }
                    output
                }
            },
            Message::Ack(ack) => self.sender.on_ack(&ack, self.now),
        };
        match output {
            Some(Output::Ack(ack)) => self.network.push_back(Message::Ack(ack)),
            Some(Output::Verify(manifest)) => {
                let file = core::mem::take(&mut self.partial);
                self.gap = None;
                let right = BlobHash::of(&file) == manifest.blob;
                if right {
                    self.whole = Some(file);
                }
                let verdict = if right { Ok(()) } else { Err(Refusal::Hash) };
                if let Output::Ack(ack) = self.receiver.verified(&manifest.blob, verdict) {
                    self.network.push_back(Message::Ack(ack));
                }
            }
            Some(Output::Sent(_)) => self.done = true,
            // Only a forged acknowledgement can refuse it here: the user sends it again.
            Some(Output::Refused(manifest, _)) => self.sender.send(manifest),
            Some(Output::Offer(_) | Output::Chunk { .. }) | None => {}
        }
    }

    fn play(&mut self, step: &[u8; 2], rest: &[u8]) {
        let [what, which] = *step;
        let at = usize::from(which) % self.network.len().max(1);
        match what % 12 {
            0..=3 => {
                if let Some(message) = self.network.pop_front() {
                    self.deliver(message);
                }
            }
            4 => drop(self.network.remove(at)),
            5 => {
                if let Some(message) = self.network.remove(at) {
                    self.deliver(message);
                }
            }
            6 => self.now += Duration::from_millis(u64::from(which) * 20),
            7 => self.receiver = Exchange::default(),
            8 => {
                self.sender = Exchange::default();
                if !self.done {
                    self.sender.send(self.manifest);
                }
            }
            9 => self.sender.reconnect(),
            10 => {
                // Whatever somebody with the key may say of what is held. That all is held would be believed.
                if let Ok(ack @ BlobAck::Holding { .. }) = codec::decode::<BlobAck>(&rest[..rest.len().min(64)]) {
                    self.deliver(Message::Ack(ack));
                }
                let lie = BlobAck::Holding {
                    blob: self.manifest.blob,
                    base: u32::from(which),
                    beyond: u64::from(what),
                    credit: u32::from(which) + 40,
                };
                // A lie about what is held loses the blob for this sender; a restart mends it.
                let mut deceived = core::mem::take(&mut self.sender);
                deceived.on_ack(&lie, self.now);
                for _ in 0..100 {
                    if let Some(Output::Chunk { offset, length, .. }) = deceived.poll(self.now) {
                        assert!(offset + u64::from(length) <= self.manifest.size);
                    }
                }
                if !self.done {
                    self.sender.send(self.manifest);
                }
            }
            _ => {
                self.receiver
                    .open(which % 2 == 0)
                    .into_iter()
                    .for_each(|ack| self.network.push_back(Message::Ack(ack)));
            }
        }
        self.send();
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((head, steps)) = input.split_first_chunk::<2>() else { return };
    let mut world = World::new(1 + usize::from(u16::from_le_bytes(*head) % 40_000));
    world.send();
    for (k, step) in steps.as_chunks::<2>().0.iter().enumerate().take(400) {
        world.play(step, &steps[2 * k..]);
    }
    // A network that works, from here on.
    world.receiver.open(true).into_iter().for_each(|ack| world.network.push_back(Message::Ack(ack)));
    if world.whole.is_some() && world.sender.unsent() == 0 {
        return;
    }
    for _ in 0..20_000 {
        world.send();
        match world.network.pop_front() {
            Some(message) => world.deliver(message),
            None => match world.sender.wake_at() {
                Some(at) => world.now = world.now.max(at),
                None => break,
            },
        }
    }
    assert_eq!(world.whole.as_ref(), Some(&world.blob), "the blob arrives");
});
