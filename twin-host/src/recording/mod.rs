//! What a serving host sees, written down as it comes: samples, events and decisions. A run that was recorded can be
//! looked at and replayed by other policies without any board.
//!
//! ```text
//! DIR/telemetry.jsonl   one sample of a board a line
//! DIR/events.jsonl      one event of a job a line, as `job status --watch --format json` tells it
//! DIR/decisions.jsonl   one decision a line: what was asked, as a scenario, and what was answered
//! ```
//!
//! Lines are only ever appended, so a host that is killed costs at most the last one.

mod read;
mod sample;
mod write;

#[cfg(test)]
pub(crate) use read::{Answered, Got, Had};
pub(crate) use read::{Moment, Recording};
pub(crate) use sample::{Figure, RecordedSample};
pub(crate) use write::{Recorder, unix_now};

const TELEMETRY: &str = "telemetry.jsonl";
const EVENTS: &str = "events.jsonl";
const DECISIONS: &str = "decisions.jsonl";
