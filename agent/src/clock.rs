//! The time by which certificates are judged. Many boards have no clock of their own and wake up in 1970: it is never
//! earlier than the program's build, nor than a time at which this board was once connected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use tokio_rustls::rustls;

use crate::durable;

/// The time is written down this often at most: a card wears.
const SAVED_EVERY: u64 = 12 * 3600;

/// Where the agent writes the time down, in its data folder.
#[must_use]
pub fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("clock")
}

/// A clock that does not run backwards over restarts.
#[derive(Debug)]
pub struct Clock {
    file: PathBuf,
    saved: u64,
    /// The latest time that is known to have passed, seconds since 1970.
    floor: Arc<AtomicU64>,
}

impl Clock {
    /// Goes on from the time that an earlier life wrote down, if any; what cannot be read counts for nothing.
    #[must_use]
    pub fn open(file: PathBuf) -> Self {
        let text = durable::read(&file).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let saved = text.and_then(|text| text.trim_end().parse().ok()).unwrap_or(0);
        Self { file, saved, floor: Arc::new(AtomicU64::new(built().max(saved))) }
    }

    /// For checking certificates, now and in connections to come.
    #[must_use]
    pub fn provider(&self) -> Arc<dyn TimeProvider> {
        Arc::new(NoEarlierThan(Arc::clone(&self.floor)))
    }

    /// The board is connected, and its host's certificate holds at this clock's time: so it cannot be wrong by more
    /// than that certificate's life, and is worth remembering. Writes at most once in twelve hours.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn confirm(&mut self) -> std::io::Result<()> {
        let now = seconds(SystemTime::now()).max(self.floor.load(Ordering::Relaxed));
        self.floor.store(now, Ordering::Relaxed);
        if now < self.saved.saturating_add(SAVED_EVERY) {
            return Ok(());
        }
        self.saved = now;
        durable::replace(&self.file, format!("{now}\n").as_bytes())
    }
}

/// When this program was built, seconds since 1970.
fn built() -> u64 {
    env!("TWIN_BUILT").parse().unwrap_or(0)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[derive(Debug)]
struct NoEarlierThan(Arc<AtomicU64>);

impl TimeProvider for NoEarlierThan {
    fn current_time(&self) -> Option<UnixTime> {
        let now = seconds(SystemTime::now()).max(self.0.load(Ordering::Relaxed));
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_time_is_the_latest_of_clock_build_and_what_was_saved() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("clock");
        let told = |clock: &Clock| clock.provider().current_time().expect("a time").as_secs();
        let now = seconds(SystemTime::now());
        let fresh = Clock::open(file.clone());
        assert!(built() > 1_750_000_000 && fresh.floor.load(Ordering::Relaxed) == built());
        assert!((now..now + 60).contains(&told(&fresh)), "the system's clock is right");
        for (saved, expected) in [("5", now), ("9999999999", 9_999_999_999), ("nonsense", now), ("-1", now)] {
            fs::write(&file, saved).expect("written");
            let clock = Clock::open(file.clone());
            assert!((expected..expected + 60).contains(&told(&clock)), "{saved}");
        }
    }

    #[test]
    fn it_is_written_down_twice_a_day_at_most() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("clock");
        let mut clock = Clock::open(file.clone());
        clock.confirm().expect("written");
        let written = fs::metadata(&file).and_then(|data| data.modified()).expect("it is there");
        for _ in 0..3 {
            clock.confirm().expect("nothing to write");
        }
        assert_eq!(fs::metadata(&file).and_then(|data| data.modified()).expect("still there"), written);
        assert!(Clock::open(file).saved >= seconds(SystemTime::now()) - 60);
    }
}
