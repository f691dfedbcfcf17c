//! What the broker turned away, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections_refused: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    pub(super) clients_refused: AtomicU64,
    pub(super) wills_refused: AtomicU64,
    pub(super) publications_refused: AtomicU64,
    pub(super) filters_refused: AtomicU64,
}

/// A reading of the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sockets closed for want of a place.
    pub connections_refused: u64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: u64,
    /// CONNECTs refused: unknown, revoked, wrong password, name and certificate apart.
    pub clients_refused: u64,
    /// CONNECTs refused because of their last will.
    pub wills_refused: u64,
    /// Publications refused: a foreign topic, or too long for their channel.
    pub publications_refused: u64,
    /// Filters refused.
    pub filters_refused: u64,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            connections_refused: read(&self.connections_refused),
            handshakes_failed: read(&self.handshakes_failed),
            clients_refused: read(&self.clients_refused),
            wills_refused: read(&self.wills_refused),
            publications_refused: read(&self.publications_refused),
            filters_refused: read(&self.filters_refused),
        }
    }
}
