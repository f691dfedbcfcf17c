//! What boards and host say to each other, in bytes, by what it is for and by day: for those who pay by the megabyte.
//!
//! Counted is each published packet as MQTT makes it: its header, topic, properties and sealed payload. TCP's and TLS's
//! own bytes are not: they are some 3 % of blobs and about half of small messages.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use twin_shared::id::DeviceId;
use twin_shared::wire::{Direction, Purpose, Topic};

/// What bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    /// A board's dataset.
    Dataset,
    /// Student states, whole or as differences.
    Student,
    /// Teacher labels.
    Labels,
    /// Samples of boards' states.
    Telemetry,
    /// Orders, answers, acknowledgements, documents and pings.
    Control,
}

impl Use {
    /// Every use.
    pub const ALL: [Self; 5] = [Self::Dataset, Self::Student, Self::Labels, Self::Telemetry, Self::Control];

    /// Its name in records and output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dataset => "dataset",
            Self::Student => "student",
            Self::Labels => "labels",
            Self::Telemetry => "telemetry",
            Self::Control => "control",
        }
    }
}

impl From<Purpose> for Use {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Dataset(_) | Purpose::DatasetDelta { .. } | Purpose::Waiting => Self::Dataset,
            Purpose::Student { .. } | Purpose::Base { .. } | Purpose::Model { .. } => Self::Student,
            Purpose::Labels { .. } => Self::Labels,
            Purpose::Telemetry => Self::Telemetry,
            Purpose::Probe(_) | Purpose::Classes { .. } | Purpose::WaitingLabels => Self::Control,
        }
    }
}

/// Bytes both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// From the board.
    pub up: u64,
    /// To the board.
    pub down: u64,
}

/// A day, counted from 1970-01-01, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(pub u32);

impl Day {
    /// The day of this moment. A clock before 1970 is at its first day.
    #[must_use]
    pub fn of(now: SystemTime) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self(u32::try_from(since.as_secs() / 86_400).unwrap_or(u32::MAX))
    }
}

/// A line of the ledger.
pub type Entry = ((DeviceId, Day, Use), Carried);

/// What was carried, shared by all links.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    /// Not stored yet.
    fresh: BTreeMap<(DeviceId, Day, Use), Carried>,
    /// Of each device its last day and what it spent on it.
    spent: BTreeMap<DeviceId, (Day, u64)>,
}

impl Ledger {
    /// A ledger that goes on from what devices have spent today.
    #[must_use]
    pub fn resumed(day: Day, spent: impl IntoIterator<Item = (DeviceId, u64)>) -> Self {
        let spent = spent.into_iter().map(|(device, bytes)| (device, (day, bytes))).collect();
        Self(Mutex::new(Pages { fresh: BTreeMap::new(), spent }))
    }

    /// So many bytes were carried.
    pub fn count(&self, device: &DeviceId, day: Day, used: Use, way: Direction, bytes: usize) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = bytes as u64;
        let carried = pages.fresh.entry((device.clone(), day, used)).or_default();
        match way {
            Direction::Up => carried.up += bytes,
            Direction::Down => carried.down += bytes,
        }
        let (last, spent) = pages.spent.entry(device.clone()).or_insert((day, 0));
        if *last != day {
            (*last, *spent) = (day, 0);
        }
        *spent += bytes;
    }

    /// What a device has spent on this day, both ways.
    #[must_use]
    pub fn spent(&self, device: &DeviceId, day: Day) -> u64 {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.spent.get(device).filter(|(last, _)| *last == day).map_or(0, |(_, spent)| *spent)
    }

    /// Takes what is not stored yet.
    #[must_use]
    pub fn take(&self) -> Vec<Entry> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut pages.fresh).into_iter().collect()
    }
}

/// The length of a published packet, bytes.
#[must_use]
pub fn packet(topic: &Topic, payload: usize) -> usize {
    let delivery = topic.channel.delivery();
    let expiry = if delivery.expiry.is_some() { 5 } else { 0 };
    let identifier = if delivery.at_least_once { 2 } else { 0 };
    let rest = 2 + topic.to_string().len() + identifier + 1 + expiry + payload;
    let length = match rest {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    };
    1 + length + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::wire::Channel;

    #[test]
    fn a_day_begins_at_nothing() {
        let device: DeviceId = "board1".parse().expect("a name");
        let (today, tomorrow) = (Day(20_000), Day(20_001));
        let ledger = Ledger::resumed(today, [(device.clone(), 100)]);
        ledger.count(&device, today, Use::Labels, Direction::Down, 10);
        ledger.count(&device, today, Use::Labels, Direction::Up, 1);
        assert_eq!((ledger.spent(&device, today), ledger.spent(&device, tomorrow)), (111, 0));
        ledger.count(&device, tomorrow, Use::Student, Direction::Up, 7);
        assert_eq!(ledger.spent(&device, tomorrow), 7);
        let entries = ledger.take();
        assert_eq!(entries[0], ((device.clone(), today, Use::Labels), Carried { up: 1, down: 10 }));
        assert_eq!((entries.len(), ledger.take().len(), ledger.spent(&device, tomorrow)), (2, 0, 7));
    }

    /// Against bytes written by hand from the standard: a QoS 0 publish with an expiry, and one of QoS 1.
    #[test]
    fn a_packet_is_as_long_as_the_standard_says() {
        let topic = |channel| Topic { device: "b1".parse().expect("a name"), channel };
        // 0x30, length, 00 1a "twin/v1/b1/up/telemetry"(23), properties 05 02 …(4), payload.
        assert_eq!(packet(&topic(Channel::UpTelemetry), 50), 1 + 1 + 2 + 23 + 1 + 5 + 50);
        assert_eq!(packet(&topic(Channel::UpState), 200), 1 + 2 + 2 + 19 + 2 + 1 + 200);
    }

    #[test]
    fn time_before_1970_is_its_first_day() {
        assert_eq!(Day::of(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), Day(0));
        assert_eq!(Day::of(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 3 + 7)), Day(3));
    }
}
