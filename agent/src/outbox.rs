//! What waits to be published, the most urgent first. PURE and bounded: newer words take the place of older ones.

use std::collections::{BTreeMap, VecDeque};

use twin_shared::id::BlobHash;
use twin_shared::wire::telemetry::Telemetry;
use twin_shared::wire::{BlobAck, BoardState, LogLine, Nonce, Reply, Status, TwinDocument};

use crate::renewal::Request;

/// Replies and log lines that wait at most; beyond, the oldest go.
const REPLIES: usize = 64;
const LINES: usize = 8;

/// Something small to be published.
#[derive(Debug, Clone, PartialEq)]
pub enum Parcel {
    /// Birth or farewell.
    State(Box<BoardState>),
    /// The twin document.
    Reported(TwinDocument),
    /// An answer.
    Reply(Reply),
    /// What is held of a blob.
    Ack(BlobAck),
    /// Asks for the next keys.
    Renewal(Request),
    /// A ping.
    Ping(Nonce),
    /// A sample.
    Telemetry(Box<Telemetry>),
    /// A warning.
    Log(LogLine),
}

/// What waits.
#[derive(Debug, Default)]
pub struct Outbox {
    state: Option<Box<BoardState>>,
    reported: Option<TwinDocument>,
    replies: VecDeque<Reply>,
    acks: BTreeMap<BlobHash, BlobAck>,
    renewal: Option<Request>,
    ping: Option<Nonce>,
    telemetry: Option<Box<Telemetry>>,
    log: VecDeque<LogLine>,
}

impl Outbox {
    /// Puts something in.
    pub fn push(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::State(state) => self.state = Some(state),
            Parcel::Reported(document) => self.reported = Some(document),
            Parcel::Reply(reply) => {
                // Progress that was overtaken is of no use.
                self.replies.retain(|old| {
                    old.command != reply.command || !matches!(old.status, Status::Running { .. } | Status::Accepted)
                });
                push_bounded(&mut self.replies, reply, REPLIES);
            }
            Parcel::Ack(ack) => {
                let (BlobAck::Holding { blob, .. } | BlobAck::Complete { blob } | BlobAck::Refused { blob, .. }) = ack;
                self.acks.insert(blob, ack);
            }
            Parcel::Renewal(request) => self.renewal = Some(request),
            Parcel::Ping(nonce) => self.ping = Some(nonce),
            Parcel::Telemetry(sample) => self.telemetry = Some(sample),
            Parcel::Log(line) => push_bounded(&mut self.log, line, LINES),
        }
    }

    /// Takes the most urgent out.
    pub fn pop(&mut self) -> Option<Parcel> {
        let state = self.state.take().map(Parcel::State);
        let reported = || self.reported.take().map(Parcel::Reported);
        state
            .or_else(reported)
            .or_else(|| self.replies.pop_front().map(Parcel::Reply))
            .or_else(|| self.acks.pop_first().map(|(_, ack)| Parcel::Ack(ack)))
            .or_else(|| self.renewal.take().map(Parcel::Renewal))
            .or_else(|| self.ping.take().map(Parcel::Ping))
            .or_else(|| self.telemetry.take().map(Parcel::Telemetry))
            .or_else(|| self.log.pop_front().map(Parcel::Log))
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.is_none()
            && self.reported.is_none()
            && self.replies.is_empty()
            && self.acks.is_empty()
            && self.renewal.is_none()
            && self.ping.is_none()
            && self.telemetry.is_none()
            && self.log.is_empty()
    }

    /// Forgets everything: the connection is gone, and with a new one all is said anew.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, limit: usize) {
    if queue.len() >= limit {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(command: u64, status: Status) -> Parcel {
        Parcel::Reply(Reply { command, status })
    }

    #[test]
    fn the_urgent_goes_first_and_the_overtaken_not_at_all() {
        let mut outbox = Outbox::default();
        let blob = BlobHash([1; 32]);
        outbox.push(Parcel::Ping(Nonce(1)));
        outbox.push(Parcel::Ack(BlobAck::Holding { blob, base: 1, beyond: 0, credit: 17 }));
        outbox.push(Parcel::Ack(BlobAck::Complete { blob }));
        outbox.push(reply(1, Status::Accepted));
        outbox.push(reply(2, Status::Done));
        outbox.push(reply(1, Status::Running { step: 1, steps: 2 }));
        outbox.push(reply(1, Status::Done));
        outbox.push(Parcel::State(Box::new(BoardState::Offline { sequence: 1 })));
        let order: Vec<Parcel> = std::iter::from_fn(|| outbox.pop()).collect();
        assert_eq!(
            order,
            [
                Parcel::State(Box::new(BoardState::Offline { sequence: 1 })),
                reply(2, Status::Done),
                reply(1, Status::Done),
                Parcel::Ack(BlobAck::Complete { blob }),
                Parcel::Ping(Nonce(1)),
            ]
        );
        assert!(outbox.is_empty());
    }

    #[test]
    fn it_never_grows_without_bound() {
        let mut outbox = Outbox::default();
        (0..1000).for_each(|id| outbox.push(reply(id, Status::Done)));
        assert_eq!(std::iter::from_fn(|| outbox.pop()).count(), REPLIES);
    }
}
