//! Telemetry that waits for a connection: bounded in memory, oldest first out, nothing lost unseen.
//!
//! PURE: it answers with bytes to send or to store, and takes the clock as an argument. Samples lie here as they will
//! be sent, so an hour at one every five seconds takes about 50 KiB.
//!
//! Only what is on disk is sent. So a board that loses power after the host took a batch, and before its own disk
//! knew, offers the same samples under the same numbers, and the host tells them from new ones.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use twin_shared::wire::codec;
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::telemetry::batch::{Batch, Header, MAX_HEADER_BYTES, MAX_KEPT_BYTES};

/// Storage is written at most once in this time: memory cards wear.
const FLUSH_EVERY: Duration = Duration::from_secs(60);

/// The board's two clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// Since the agent's start.
    pub elapsed: Duration,
    /// Milliseconds since 1970, years wrong perhaps, and set right at any moment.
    pub unix_ms: u64,
}

/// The queue.
#[derive(Debug, Clone)]
pub struct Backlog {
    samples: VecDeque<Waiting>,
    bytes: usize,
    limit: usize,
    queue: u64,
    /// The number of the oldest sample here.
    first: u64,
    disk: Disk,
    /// When the disk was written last.
    written: Option<Instant>,
}

/// A sample as it will be sent, without its time.
#[derive(Debug, Clone)]
struct Waiting {
    taken: Taken,
    bytes: Box<[u8]>,
}

#[derive(Debug, Clone, Copy)]
enum Taken {
    /// So long after the agent's start.
    Now(Duration),
    /// In an earlier life, by the clock of then, milliseconds since 1970.
    Before(u64),
}

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// Nothing of use: the next flush writes it anew.
    Stale,
    /// The samples before this number, so far as they still wait, in so many bytes; more can be added.
    Holds { until: u64, bytes: usize },
}

/// What to write to storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flush {
    /// The whole file.
    Replace(Vec<u8>),
    /// To its end.
    Append(Vec<u8>),
}

/// Samples to be sent as one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The batch, as the host reads it.
    pub bytes: Vec<u8>,
    first: u64,
    /// The number after its last sample.
    next: u64,
}

impl Outgoing {
    /// How many samples it holds.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.next - self.first
    }

    /// Whether it holds none; none is ever made so.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.next == self.first
    }
}

impl Backlog {
    /// An empty queue that holds at most this many bytes of samples; at least the largest one fits. `queue` is a
    /// random number that tells it from every other.
    #[must_use]
    pub fn new(limit: usize, queue: u64) -> Self {
        let limit = limit.max(MAX_KEPT_BYTES);
        Self { samples: VecDeque::new(), bytes: 0, limit, queue, first: 0, disk: Disk::Stale, written: None }
    }

    /// The queue that an earlier life of the agent stored, or a new one. A file cut short gives the samples before the
    /// cut.
    #[must_use]
    pub fn restore(limit: usize, new_queue: u64, stored: &[u8]) -> Self {
        let Ok(mut batch) = Batch::open(stored) else { return Self::new(limit, new_queue) };
        let header = batch.header();
        let mut backlog = Self { first: header.first, ..Self::new(limit, header.queue) };
        let mut until = header.first;
        let whole = batch.all(|kept| {
            let Ok(kept) = kept else { return false };
            until += 1;
            backlog.keep(Taken::Before(kept.time_ms), &kept.sample);
            true
        });
        if whole {
            backlog.disk = Disk::Holds { until, bytes: stored.len() };
        }
        backlog
    }

    /// Keeps a sample, taken so long after the agent's start; the oldest ones make room for it.
    pub fn push(&mut self, elapsed: Duration, sample: &Telemetry) {
        self.keep(Taken::Now(elapsed), sample);
    }

    fn keep(&mut self, taken: Taken, sample: &Telemetry) {
        let bytes = encoded(sample);
        self.bytes += bytes.len();
        self.samples.push_back(Waiting { taken, bytes });
        while self.bytes > self.limit {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.samples.pop_front() {
            self.bytes -= oldest.bytes.len();
            self.first += 1;
        }
    }

    /// Samples that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The number after the newest sample.
    fn next(&self) -> u64 {
        self.first + self.samples.len() as u64
    }

    /// The oldest samples that are stored and fit into this many bytes, to be sent; they stay here until
    /// [`Self::arrived`]. `None` if there are none.
    #[must_use]
    pub fn batch(&self, max_bytes: usize, clocks: Clocks) -> Option<Outgoing> {
        let Disk::Holds { until, .. } = self.disk else { return None };
        let mut bytes = self.header(clocks);
        let mut next = self.first;
        for sample in self.samples.iter().take(usize::try_from(until.saturating_sub(self.first)).ok()?) {
            if bytes.len() + sample.bytes.len() + 10 > max_bytes {
                break;
            }
            sample.write(clocks, &mut bytes);
            next += 1;
        }
        (next > self.first).then_some(Outgoing { bytes, first: self.first, next })
    }

    /// The host has this batch: its samples go.
    pub fn arrived(&mut self, batch: &Outgoing) {
        while self.first < batch.next && !self.is_empty() {
            self.forget_oldest();
        }
        self.disk = Disk::Stale;
    }

    /// What to store now, if what is stored lacks anything and the last time was long enough ago. Together, what was
    /// written is what [`Self::restore`] reads.
    pub fn flush(&mut self, now: Instant, clocks: Clocks) -> Option<Flush> {
        let next = self.next();
        let due = match self.disk {
            // A queue that never held anything needs no file.
            Disk::Stale => next > 0,
            Disk::Holds { until, .. } => until < next,
        };
        let rested = self.written.is_none_or(|written| now.saturating_duration_since(written) >= FLUSH_EVERY);
        if !due || !rested {
            return None;
        }
        self.written = Some(now);
        let flush = match self.disk {
            // What was dropped meanwhile lies in the file still, until that is twice as long as it needs to be.
            Disk::Holds { until, bytes } if bytes <= 2 * self.limit && until >= self.first => {
                let mut added = Vec::new();
                let stored = usize::try_from(until - self.first).unwrap_or(usize::MAX);
                self.samples.iter().skip(stored).for_each(|sample| sample.write(clocks, &mut added));
                self.disk = Disk::Holds { until: next, bytes: bytes + added.len() };
                Flush::Append(added)
            }
            Disk::Holds { .. } | Disk::Stale => {
                let mut whole = self.header(clocks);
                self.samples.iter().for_each(|sample| sample.write(clocks, &mut whole));
                self.disk = Disk::Holds { until: next, bytes: whole.len() };
                Flush::Replace(whole)
            }
        };
        Some(flush)
    }

    /// The disk refused what [`Self::flush`] gave.
    pub fn not_flushed(&mut self) {
        self.disk = Disk::Stale;
    }

    fn header(&self, clocks: Clocks) -> Vec<u8> {
        let mut buffer = [0; MAX_HEADER_BYTES];
        let header = Header { queue: self.queue, first: self.first, clock_ms: clocks.unix_ms };
        written(&header, &mut buffer).to_vec()
    }
}

impl Waiting {
    fn write(&self, clocks: Clocks, out: &mut Vec<u8>) {
        let time_ms = match self.taken {
            Taken::Before(time_ms) => time_ms,
            Taken::Now(elapsed) => {
                let ago = clocks.elapsed.saturating_sub(elapsed).as_millis();
                clocks.unix_ms.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX))
            }
        };
        out.extend_from_slice(written(&time_ms, &mut [0; 10]));
        out.extend_from_slice(&self.bytes);
    }
}

/// A sample as it is sent.
fn encoded(sample: &Telemetry) -> Box<[u8]> {
    let mut buffer = [0; MAX_KEPT_BYTES];
    let bytes: &[u8] = written(sample, &mut buffer);
    bytes.into()
}

fn written<'b, T: Serialize>(value: &T, buffer: &'b mut [u8]) -> &'b [u8] {
    codec::encode(value, buffer).expect("the largest has room: a test holds the figures against it")
}

#[cfg(test)]
mod tests;
