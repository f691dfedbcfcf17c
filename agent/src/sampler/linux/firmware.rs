//! What a Raspberry Pi's firmware says about power and heat.
//!
//! Its word left /sys in 2025, and reading /dev/vcio takes an ioctl, so `vcgencmd` is asked where it is installed. That
//! starts a process, so it is asked seldom, and the answer says its age.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(30);
const PROGRAM: &str = "/usr/bin/vcgencmd";

/// The bits of `get_throttled` that say what is so now; those from 16 on say what was so since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Throttling(u32);

impl Throttling {
    /// From `throttled=0x50005`, or the bare number of the former file in /sys.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().trim_start_matches("throttled=").trim_start_matches("0x");
        u32::from_str_radix(digits, 16).ok().map(Self)
    }

    pub(super) const fn under_voltage(self) -> bool {
        self.0 & 1 != 0
    }

    /// Frequency capped, throttled, or at the soft limit of temperature.
    pub(super) const fn throttled(self) -> bool {
        self.0 & 0b1110 != 0
    }
}

/// Whom to ask.
#[derive(Debug)]
pub(super) enum Firmware {
    /// Nobody.
    Silent,
    /// A recording.
    Recorded(Throttling),
    /// The program, which answered so then.
    Program { answer: Option<Throttling>, asked: Option<Instant> },
}

impl Firmware {
    pub(super) fn live() -> Self {
        if Path::new(PROGRAM).exists() { Self::Program { answer: None, asked: None } } else { Self::Silent }
    }

    pub(super) fn recorded(root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join("firmware/get_throttled")).ok();
        text.and_then(|text| Throttling::parse(&text)).map_or(Self::Silent, Self::Recorded)
    }

    /// The last answer and when it was given.
    pub(super) fn throttling(&mut self, now: Instant) -> Option<(Throttling, Instant)> {
        match self {
            Self::Silent => None,
            Self::Recorded(answer) => Some((*answer, now)),
            Self::Program { answer, asked } => {
                if asked.is_none_or(|then| now.saturating_duration_since(then) >= EVERY) {
                    (*answer, *asked) = (ask(), Some(now));
                }
                (*answer).zip(*asked)
            }
        }
    }
}

fn ask() -> Option<Throttling> {
    let output = Command::new(PROGRAM).arg("get_throttled").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout).and_then(|text| Throttling::parse(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_so_now_counts() {
        let bits = |text| Throttling::parse(text).map(|t| (t.under_voltage(), t.throttled()));
        assert_eq!(bits("throttled=0x0\n"), Some((false, false)));
        assert_eq!(bits("throttled=0x50005"), Some((true, true)));
        assert_eq!(bits("throttled=0x50000"), Some((false, false)), "it has occurred, and is over");
        assert_eq!(bits("80008\n"), Some((false, true)), "as /sys had it");
        assert_eq!(bits("error=1"), None);
    }
}
