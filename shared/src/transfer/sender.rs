//! The sending side of one blob.

use core::time::Duration;

use crate::wire::{BlobAck, Manifest};

/// Waiting for an answer to an offer, at first; doubled at each repetition.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);
const SHORTEST_PATIENCE: Duration = Duration::from_millis(500);

/// Waiting for the first word of a chunk: on a link that nobody knows yet a window may take that long.
const UNKNOWN_LINK_PATIENCE: Duration = Duration::from_secs(20);

/// What the sender wants on the wire next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transmit {
    /// The manifest.
    Manifest,
    /// This chunk.
    Chunk(u32),
}

/// One chunk's way.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Unsent,
    /// On its way since then, as the sender's `order`-th transmission.
    Sent {
        at: Duration,
        order: u64,
        /// Not for the first time: its acknowledgement may be the first one's, and tells no round trip.
        again: bool,
    },
    Held,
}

#[derive(Debug)]
enum Phase {
    /// The receiver has not answered the manifest since it was last offered.
    Offering { offered: Option<Duration> },
    /// The receiver answers.
    Sending {
        base: u32,
        credit: u32,
        slots: Box<[Slot; 64]>,
        /// When the receiver last spoke.
        heard: Duration,
        /// The latest transmission known to have arrived.
        arrived: u64,
    },
}

/// Sends one blob.
#[derive(Debug)]
pub struct Sender {
    manifest: Manifest,
    chunks: u32,
    phase: Phase,
    patience: Duration,
    /// Smoothed time from a chunk's sending to its acknowledgement.
    round_trip: Option<Duration>,
    transmissions: u64,
}

impl Sender {
    /// A sender that starts by offering the manifest. A blob of more than `u32::MAX` chunks is cut off at that
    /// number and will be refused by its hash; chunk sizes keep real blobs far below.
    #[must_use]
    pub fn new(manifest: Manifest) -> Self {
        Self {
            manifest,
            chunks: u32::try_from(manifest.chunks()).unwrap_or(u32::MAX),
            phase: Phase::Offering { offered: None },
            patience: FIRST_PATIENCE,
            round_trip: None,
            transmissions: 0,
        }
    }

    /// The blob.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How often something was put on the wire, repetitions included.
    #[must_use]
    pub const fn transmissions(&self) -> u64 {
        self.transmissions
    }

    /// The connection was lost: whatever was on its way may be gone, so offer again and learn what is held.
    pub fn reconnect(&mut self) {
        self.phase = Phase::Offering { offered: None };
        self.patience = FIRST_PATIENCE;
    }

    /// The next thing to put on the wire, if any is due. It counts as sent at `now`.
    pub fn poll(&mut self, now: Duration) -> Option<Transmit> {
        let patience = self.patience;
        match &mut self.phase {
            Phase::Offering { offered } => {
                if let Some(offered) = offered {
                    if now < *offered + patience {
                        return None;
                    }
                    self.patience = (patience * 2).min(LONGEST_PATIENCE);
                }
                *offered = Some(now);
                self.transmissions += 1;
                Some(Transmit::Manifest)
            }
            Phase::Sending { base, credit, slots, heard, arrived } => {
                let window = (*credit).min(self.chunks).saturating_sub(*base).min(64);
                let due = (0..window as usize).find(|&k| match slots[k] {
                    Slot::Unsent => true,
                    // A later transmission has arrived and this one has not: the channel keeps order, so it is lost.
                    // As long as the receiver speaks, what was sent later than it speaks of is on its way.
                    Slot::Sent { order, at, .. } => order + 3 <= *arrived || now >= at.max(*heard) + patience,
                    Slot::Held => false,
                });
                if let Some(k) = due {
                    if matches!(slots[k], Slot::Sent { at, .. } if now >= at.max(*heard) + patience) {
                        self.patience = (patience * 2).min(LONGEST_PATIENCE);
                    }
                    self.transmissions += 1;
                    let again = matches!(slots[k], Slot::Sent { .. });
                    slots[k] = Slot::Sent { at: now, order: self.transmissions, again };
                    return Some(Transmit::Chunk(*base + u32::try_from(k).expect("below 64")));
                }
                // Everything that may be sent is held or on its way, and nobody speaks: ask again what is held.
                if now >= *heard + patience * 2 {
                    self.phase = Phase::Offering { offered: Some(now) };
                    self.transmissions += 1;
                    return Some(Transmit::Manifest);
                }
                None
            }
        }
    }

    /// When [`poll`](Self::poll) can have something new without an acknowledgement coming.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        match &self.phase {
            Phase::Offering { offered: None } => Duration::ZERO,
            Phase::Offering { offered: Some(offered) } => *offered + self.patience,
            Phase::Sending { base, credit, slots, heard, arrived } => {
                let window = (*credit).min(self.chunks).saturating_sub(*base).min(64) as usize;
                let chunks = slots[..window].iter().filter_map(|slot| match slot {
                    Slot::Unsent => Some(Duration::ZERO),
                    Slot::Sent { order, .. } if order + 3 <= *arrived => Some(Duration::ZERO),
                    Slot::Sent { at, .. } => Some((*at).max(*heard) + self.patience),
                    Slot::Held => None,
                });
                chunks.chain([*heard + self.patience * 2]).min().unwrap_or_default()
            }
        }
    }

    /// Takes what the receiver says it holds. `base` and `credit` come from outside: anything beyond the blob, or
    /// a credit beyond 64 chunks, is cut to what is possible.
    pub fn on_holding(&mut self, ack: &BlobAck, now: Duration) {
        let BlobAck::Holding { base: held, beyond, credit, .. } = *ack else {
            return;
        };
        let held = held.min(self.chunks);
        let (mut slots, old_base, mut arrived) = match &self.phase {
            Phase::Offering { .. } => (Box::new([Slot::Unsent; 64]), held, 0),
            Phase::Sending { base, slots, arrived, .. } => (slots.clone(), *base, *arrived),
        };
        // An acknowledgement that was overtaken says nothing new.
        if held < old_base {
            return;
        }
        let mut newest_trip = None;
        let mut note = |slot: &Slot| {
            // Of a chunk that was sent twice, the first sending may have arrived: it tells neither how long the way is
            // nor which of the others are lost.
            if let Slot::Sent { at, order, again: false } = slot {
                newest_trip = Some(now.saturating_sub(*at));
                arrived = arrived.max(*order);
            }
        };
        let shift = ((held - old_base) as usize).min(64);
        slots[..shift].iter().for_each(&mut note);
        slots.rotate_left(shift);
        slots[64 - shift..].fill(Slot::Unsent);
        for (k, slot) in slots.iter_mut().enumerate() {
            if beyond >> k & 1 == 1 {
                note(slot);
                *slot = Slot::Held;
            }
        }
        if let Some(trip) = newest_trip {
            let smoothed = self.round_trip.map_or(trip, |old| (old * 7 + trip) / 8);
            self.round_trip = Some(smoothed);
        }
        self.patience =
            self.round_trip.map_or(UNKNOWN_LINK_PATIENCE, |trip| (trip * 4).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE));
        self.phase = Phase::Sending { base: held, credit, slots, heard: now, arrived };
    }

    /// Chunks that the receiver holds, and all.
    #[must_use]
    pub fn progress(&self) -> (u32, u32) {
        match &self.phase {
            Phase::Offering { .. } => (0, self.chunks),
            Phase::Sending { base, .. } => (*base, self.chunks),
        }
    }
}
