//! The twin of one device: what it reported, what is wanted of it, and how fresh that is.

use core::time::Duration;

use twin_shared::id::{BlobHash, DatasetVersion};
use twin_shared::units::Gigahertz;
use twin_shared::wire::telemetry::{Reading, Source, Telemetry};
use twin_shared::wire::{Birth, VersionRange, WIRE_VERSIONS};

use crate::experience::Experience;

/// What is known of the device's connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Presence {
    /// It has not been seen since the host started.
    Unseen,
    /// It is connected.
    Online(Birth),
    /// Its connection ended.
    Offline {
        /// Its last birth.
        last: Birth,
        /// When its end was seen.
        since: Duration,
    },
}

/// The dataset that a twin holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinDataset {
    /// Which.
    pub version: DatasetVersion,
    /// The blob.
    pub blob: BlobHash,
    /// Samples of each class, once counted.
    pub counts: Option<DatasetCounts>,
}

/// What may be known of a private dataset outside of training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetCounts {
    /// Samples that are trained on.
    pub train: u32,
    /// Samples held out.
    pub held: u32,
    /// Training samples of each class.
    pub labels: Vec<u32>,
}

/// What a board's processor can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compute {
    /// The clock that its cores can reach.
    pub clock: Gigahertz,
    /// Its cores.
    pub cores: u16,
    /// Where the clock comes from.
    pub source: Source,
    /// Whether it says that its clock is held down.
    pub throttled: bool,
}

impl Compute {
    /// As a sample tells. What the cores run at now says how idle they are rather than how fast they can be, so their
    /// highest clock is taken, but for cores that are held down.
    #[must_use]
    pub fn of(sample: &Telemetry) -> Option<Self> {
        let throttled = sample.health.throttled.value().copied().unwrap_or(false);
        let (current, maximum) = (sample.cpu.current_mean(), sample.cpu.maximum_mean());
        let reach = if throttled { current } else { maximum };
        let cores = sample.cpu.cores.value().copied().unwrap_or(1).max(1);
        [reach, current, maximum].into_iter().find_map(|reading| match reading {
            Reading::Known { value: clock, source, .. } if clock.is_positive_finite() => {
                Some(Self { clock, cores, source, throttled })
            }
            Reading::Known { .. } | Reading::Unknown => None,
        })
    }
}

/// One device as the host sees it.
#[derive(Debug, Clone)]
pub struct Twin {
    presence: Presence,
    telemetry: Option<(Duration, Telemetry)>,
    dataset: Option<TwinDataset>,
    /// What was learnt by working with it.
    pub experience: Experience,
    /// Counts the twin documents of this device for ever.
    document: u64,
}

/// Why a birth is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BirthError {
    /// Older than one seen before.
    #[error("birth {0} is not newer than {1}")]
    Stale(u64, u64),
    /// No version of the wire in common.
    #[error("the board speaks wire versions {} to {}, the host {} to {}", .0.oldest, .0.newest, WIRE_VERSIONS.oldest, WIRE_VERSIONS.newest)]
    Version(VersionRange),
}

impl Twin {
    /// A twin with what the store knows of it.
    #[must_use]
    pub fn new(dataset: Option<TwinDataset>, document: u64) -> Self {
        Self { presence: Presence::Unseen, telemetry: None, dataset, experience: Experience::default(), document }
    }

    /// What is known of the connection.
    #[must_use]
    pub const fn presence(&self) -> &Presence {
        &self.presence
    }

    /// The birth of the present connection.
    #[must_use]
    pub const fn online(&self) -> Option<&Birth> {
        match &self.presence {
            Presence::Online(birth) => Some(birth),
            Presence::Unseen | Presence::Offline { .. } => None,
        }
    }

    /// The last birth, of a connection that may have ended.
    #[must_use]
    pub const fn birth(&self) -> Option<&Birth> {
        match &self.presence {
            Presence::Online(birth) | Presence::Offline { last: birth, .. } => Some(birth),
            Presence::Unseen => None,
        }
    }

    /// Whether the board speaks this version of the wire.
    #[must_use]
    pub fn speaks(&self, version: u8) -> bool {
        self.birth().is_some_and(|birth| birth.versions.contains(version))
    }

    /// Takes a birth. The same one again (it is retained) changes nothing.
    ///
    /// # Errors
    /// When it is older than one seen, or no version is common.
    pub fn on_birth(&mut self, birth: Birth) -> Result<(), BirthError> {
        if birth.versions.common(WIRE_VERSIONS).is_none() {
            return Err(BirthError::Version(birth.versions));
        }
        let seen = self.birth().map_or(0, |birth| birth.sequence);
        if birth.sequence < seen {
            return Err(BirthError::Stale(birth.sequence, seen));
        }
        self.presence = Presence::Online(birth);
        Ok(())
    }

    /// The device counts its births anew: it has a new card.
    pub fn forget_connection(&mut self) {
        self.presence = Presence::Unseen;
    }

    /// Takes a last will. Returns whether it ended the present connection; the will of an older one is stale.
    pub fn on_will(&mut self, sequence: u64, now: Duration) -> bool {
        match &self.presence {
            Presence::Online(birth) if birth.sequence == sequence => {
                self.presence = Presence::Offline { last: birth.clone(), since: now };
                true
            }
            Presence::Online(_) | Presence::Unseen | Presence::Offline { .. } => false,
        }
    }

    /// How long the device has been away.
    #[must_use]
    pub fn away_for(&self, now: Duration) -> Option<Duration> {
        match &self.presence {
            Presence::Online(_) | Presence::Unseen => None,
            Presence::Offline { since, .. } => Some(now.saturating_sub(*since)),
        }
    }

    /// Takes a sample of telemetry, stamped with its arrival.
    pub fn on_telemetry(&mut self, sample: Telemetry, now: Duration) {
        self.telemetry = Some((now, sample));
    }

    /// The latest sample, and its age.
    #[must_use]
    pub fn telemetry(&self, now: Duration) -> Option<(&Telemetry, Duration)> {
        self.telemetry.as_ref().map(|(at, sample)| (sample, now.saturating_sub(*at)))
    }

    /// The compute that the latest sample tells of.
    #[must_use]
    pub fn compute(&self) -> Option<Compute> {
        self.telemetry.as_ref().and_then(|(_, sample)| Compute::of(sample))
    }

    /// The dataset that the twin holds.
    #[must_use]
    pub const fn dataset(&self) -> Option<&TwinDataset> {
        self.dataset.as_ref()
    }

    /// The dataset's counts, once known.
    #[must_use]
    pub fn counts(&self) -> Option<&DatasetCounts> {
        self.dataset.as_ref()?.counts.as_ref()
    }

    /// The twin holds this dataset from now on.
    pub fn hold_dataset(&mut self, dataset: TwinDataset) {
        self.dataset = Some(dataset);
    }

    /// The version of the latest twin document.
    #[must_use]
    pub const fn document(&self) -> u64 {
        self.document
    }

    /// The version of the next twin document.
    pub const fn next_document(&mut self) -> u64 {
        self.document += 1;
        self.document
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::wire::Capabilities;

    fn birth(sequence: u64) -> Birth {
        let capabilities =
            Capabilities { can_train: true, emulated: false, models: heapless::Vec::new(), memory_mib: 512, cores: 4 };
        let agent = "0.1.0".try_into().expect("short");
        Birth { sequence, versions: WIRE_VERSIONS, agent, capabilities, dataset: None }
    }

    #[test]
    fn a_stale_will_does_not_end_a_newer_connection() {
        let mut twin = Twin::new(None, 0);
        twin.on_birth(birth(1)).expect("new");
        twin.on_birth(birth(2)).expect("newer");
        assert!(!twin.on_will(1, Duration::from_secs(1)));
        assert!(twin.online().is_some());
        assert!(twin.on_will(2, Duration::from_secs(2)));
        assert_eq!(twin.away_for(Duration::from_secs(5)), Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_new_card_counts_its_births_anew() {
        let mut twin = Twin::new(None, 0);
        twin.on_birth(birth(5)).expect("new");
        twin.forget_connection();
        twin.on_birth(birth(1)).expect("the first of the new card");
    }

    #[test]
    fn an_older_birth_and_a_foreign_version_are_refused() {
        let mut twin = Twin::new(None, 0);
        twin.on_birth(birth(5)).expect("new");
        assert_eq!(twin.on_birth(birth(4)), Err(BirthError::Stale(4, 5)));
        twin.on_birth(birth(5)).expect("retained, so it may come again");
        let mut future = birth(6);
        future.versions = VersionRange { oldest: 200, newest: 201 };
        assert!(matches!(twin.on_birth(future), Err(BirthError::Version(_))));
    }
}
