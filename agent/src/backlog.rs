//! Telemetry that waits for a connection: bounded in memory, oldest first out, nothing lost unseen.
//!
//! PURE: it answers with bytes to send or to store, and takes the clock as an argument. Samples lie here as they will
//! be sent, so an hour at one every five seconds takes about 50 KiB.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use twin_shared::wire::codec;
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::telemetry::batch::{Batch, KeptSample, MAX_KEPT_BYTES};

/// Storage is written at most once in this time: memory cards wear.
const FLUSH_EVERY: Duration = Duration::from_secs(60);

/// The queue.
#[derive(Debug, Clone)]
pub struct Backlog {
    samples: VecDeque<Box<[u8]>>,
    bytes: usize,
    limit: usize,
    /// The number of the oldest sample here, counted from the queue's first one.
    first: u64,
    /// Samples dropped that no batch has reported.
    dropped: u64,
    storage: Storage,
}

#[derive(Debug, Clone, Copy)]
enum Storage {
    /// What is stored is what is here, and was written then.
    Same(Option<Instant>),
    /// It differs, and was last written then.
    Stale(Option<Instant>),
}

/// Samples to be sent as one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The batch, as the host reads it.
    pub bytes: Vec<u8>,
    first: u64,
    next: u64,
    dropped: u64,
}

impl Backlog {
    /// An empty queue that holds at most this many bytes of samples; at least the largest one fits.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(MAX_KEPT_BYTES);
        Self { samples: VecDeque::new(), bytes: 0, limit, first: 0, dropped: 0, storage: Storage::Same(None) }
    }

    /// The queue that an earlier life of the agent stored. A file cut short gives the samples before the cut.
    #[must_use]
    pub fn restore(limit: usize, stored: &[u8]) -> Self {
        let mut backlog = Self::new(limit);
        if let Ok(batch) = Batch::open(stored) {
            backlog.dropped = batch.dropped();
            batch.map_while(Result::ok).for_each(|kept| backlog.keep(&kept));
        }
        backlog
    }

    /// Keeps a sample, taken at this time of the board's clock; the oldest ones make room for it.
    pub fn push(&mut self, time_ms: u64, sample: &Telemetry) {
        self.keep(&KeptSample { time_ms, sample: sample.clone() });
        self.changed();
    }

    fn keep(&mut self, kept: &KeptSample) {
        let bytes = encoded(kept);
        self.bytes += bytes.len();
        self.samples.push_back(bytes);
        while self.bytes > self.limit {
            self.forget_oldest();
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.samples.pop_front() {
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }

    fn changed(&mut self) {
        let (Storage::Same(written) | Storage::Stale(written)) = self.storage;
        self.storage = Storage::Stale(written);
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

    /// Samples dropped for want of room since the last batch that arrived.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The oldest samples that fit into this many bytes, to be sent; they stay here until [`Self::arrived`]. `None`
    /// if nothing waits and nothing was dropped.
    #[must_use]
    pub fn batch(&self, max_bytes: usize) -> Option<Outgoing> {
        if self.is_empty() && self.dropped == 0 {
            return None;
        }
        let mut bytes = encoded(&self.dropped).into_vec();
        let mut next = self.first;
        for sample in &self.samples {
            if bytes.len() + sample.len() > max_bytes {
                break;
            }
            bytes.extend_from_slice(sample);
            next += 1;
        }
        Some(Outgoing { bytes, first: self.first, next, dropped: self.dropped })
    }

    /// The host has this batch: its samples go, and the dropped ones that it told of are told. To be called before the
    /// next batch is taken, or not at all.
    pub fn arrived(&mut self, batch: &Outgoing) {
        // What was in the batch and made room here meanwhile was counted as dropped, but is not lost.
        let spared = self.first.min(batch.next).saturating_sub(batch.first);
        self.dropped = self.dropped.saturating_sub(batch.dropped).saturating_sub(spared);
        while self.first < batch.next && !self.is_empty() {
            self.forget_oldest();
        }
        self.changed();
    }

    /// What to store now, if it differs from what is stored and the last time was long enough ago. The bytes are
    /// what [`Self::restore`] reads.
    pub fn flush(&mut self, now: Instant) -> Option<Vec<u8>> {
        match self.storage {
            Storage::Same(_) => None,
            Storage::Stale(Some(written)) if now.saturating_duration_since(written) < FLUSH_EVERY => None,
            Storage::Stale(_) => {
                self.storage = Storage::Same(Some(now));
                Some(self.batch(usize::MAX).map_or_else(Vec::new, |batch| batch.bytes))
            }
        }
    }
}

/// A value of at most a kept sample's size, as it is sent.
fn encoded<T: serde::Serialize>(value: &T) -> Box<[u8]> {
    let mut buffer = [0; MAX_KEPT_BYTES];
    let bytes: &[u8] = codec::encode(value, &mut buffer).expect("MAX_KEPT_BYTES is proven to hold any sample");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use twin_shared::wire::telemetry::Reading;

    /// A sample of about 28 bytes that can be told from others by its time.
    fn sample() -> Telemetry {
        let mut sample = Telemetry::default();
        sample.cpu.cores = Reading::measured(4);
        sample
    }

    fn times(bytes: &[u8]) -> (u64, Vec<u64>) {
        let batch = Batch::open(bytes).expect("a batch");
        (batch.dropped(), batch.map(|kept| kept.expect("whole").time_ms).collect())
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push,
        Take(usize),
        Arrive,
        GiveUp,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Push),
            2 => (40..400_usize).prop_map(Step::Take),
            2 => Just(Step::Arrive),
            1 => Just(Step::GiveUp),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        /// Whatever happens, every sample is at the host, or waits, or is counted as dropped; never two of these, and
        /// the host's are in order.
        #[test]
        fn every_sample_is_accounted_for(steps in proptest::collection::vec(step(), 1..200)) {
            let (mut backlog, mut pushed) = (Backlog::new(500), 0_u64);
            let (mut flying, mut host, mut told): (Option<Outgoing>, Vec<u64>, u64) = (None, Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Push => {
                        backlog.push(pushed, &sample());
                        pushed += 1;
                    }
                    Step::Take(room) => flying = backlog.batch(room),
                    Step::Arrive => if let Some(batch) = flying.take() {
                        let (dropped, samples) = times(&batch.bytes);
                        told += dropped;
                        host.extend(samples);
                        backlog.arrived(&batch);
                    },
                    Step::GiveUp => flying = None,
                    Step::Restart => {
                        flying = None;
                        let stored = backlog.batch(usize::MAX).map_or_else(Vec::new, |all| all.bytes);
                        backlog = Backlog::restore(500, &stored);
                    }
                }
                prop_assert!(backlog.bytes <= 500);
                prop_assert_eq!(host.len() as u64 + told + backlog.dropped() + backlog.len() as u64, pushed);
                prop_assert!(host.is_sorted_by(|a, b| a < b), "{:?}", host);
            }
        }
    }

    #[test]
    fn storage_is_written_at_most_once_a_minute_and_only_if_something_changed() {
        let (start, mut backlog) = (Instant::now(), Backlog::new(1_000));
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(backlog.flush(start), None, "nothing to store");
        backlog.push(1, &sample());
        assert_eq!(times(&backlog.flush(start).expect("new")), (0, vec![1]));
        backlog.push(2, &sample());
        assert_eq!(backlog.flush(after(59)), None);
        assert_eq!(times(&backlog.flush(after(60)).expect("due")), (0, vec![1, 2]));
        assert_eq!(backlog.flush(after(600)), None, "nothing new");
        let all = backlog.batch(1_000).expect("two");
        backlog.arrived(&all);
        assert_eq!(backlog.flush(after(600)), Some(Vec::new()), "an empty queue is stored as nothing");
    }

    #[test]
    fn a_stored_file_cut_short_gives_what_is_before_the_cut() {
        let mut backlog = Backlog::new(1_000);
        (0..5).for_each(|time| backlog.push(time, &sample()));
        let stored = backlog.flush(Instant::now()).expect("new");
        for end in 0..stored.len() {
            let part = Backlog::restore(1_000, &stored[..end]);
            let kept = part.batch(1_000).map_or_else(Vec::new, |all| times(&all.bytes).1);
            assert!(kept.len() < 5 && kept.iter().copied().eq(0..kept.len() as u64), "{end}: {kept:?}");
        }
    }
}
