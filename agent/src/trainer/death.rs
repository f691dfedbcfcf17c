//! Why a trainer ended, as far as the kernel tells.

use std::fmt;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// Why a trainer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// The kernel killed it because memory ran out.
    OutOfMemory,
    /// It held more memory than the configuration allows, bytes, and was ended.
    OverLimit {
        /// What it held.
        held: u64,
        /// What is allowed.
        allowed: u64,
    },
    /// It said nothing for so long and was ended.
    Stalled(Duration),
    /// A signal ended it: a crash, or somebody's order.
    Signal(i32),
    /// It ended by itself with this status.
    Exit(i32),
    /// It said what no trainer of this version says, or could not be heard.
    Pipe(String),
}

impl Death {
    /// What a process's status says, and what the kernel counted of its kills for want of memory before and after.
    pub(super) fn of(status: ExitStatus, before: OomKills, after: OomKills) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit(code),
            (None, Some(SIGKILL)) if after.more_than(before) => Self::OutOfMemory,
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Pipe(status.to_string()),
        }
    }

    /// Whether it says that the student is too much for this board. Someone who ends the trainer by hand, or with the
    /// whole service, says nothing of the student.
    #[must_use]
    pub const fn is_the_students_doing(&self) -> bool {
        match self {
            Self::OutOfMemory | Self::OverLimit { .. } | Self::Stalled(_) | Self::Pipe(_) => true,
            Self::Signal(signal) => !matches!(*signal, SIGHUP | SIGINT | SIGTERM),
            Self::Exit(status) => *status != 0,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("killed by the kernel: memory ran out"),
            Self::OverLimit { held, allowed } => {
                write!(f, "it held {} MiB of memory, {} are allowed", held >> 20, allowed >> 20)
            }
            Self::Stalled(silence) => write!(f, "it said nothing for {} s and was ended", silence.as_secs()),
            Self::Signal(SIGKILL) => {
                f.write_str("killed by signal 9, and the kernel counts no kill for want of memory")
            }
            Self::Signal(signal) => write!(f, "it crashed or was ended: signal {signal}"),
            Self::Exit(status) => write!(f, "it ended with status {status}"),
            Self::Pipe(what) => f.write_str(what),
        }
    }
}

/// Whether a trainer's message is that it got no memory.
#[must_use]
pub fn is_want_of_memory(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("allocate memory") || message.contains("out of memory")
}

/// How many processes the kernel has killed for want of memory, of the machine or of a control group; `None` where it
/// does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OomKills(Option<u64>);

impl OomKills {
    pub(super) fn read() -> Self {
        Self(fs::read_to_string("/proc/vmstat").ok().as_deref().and_then(Self::counted))
    }

    fn counted(vmstat: &str) -> Option<u64> {
        vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    /// Whether there may be more of them now. Where the kernel does not count, memory is what a trainer dies of.
    fn more_than(self, before: Self) -> bool {
        match (before.0, self.0) {
            (Some(before), Some(now)) => now > before,
            (None, _) | (_, None) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: i32 = 9;
    const SEGMENTATION_FAULT_WITH_CORE: i32 = 11 | 0x80;

    fn death(status: i32, before: Option<u64>, after: Option<u64>) -> Death {
        Death::of(ExitStatus::from_raw(status), OomKills(before), OomKills(after))
    }

    #[test]
    fn only_a_counted_kill_is_laid_to_memory() {
        assert_eq!(death(KILLED, Some(3), Some(4)), Death::OutOfMemory);
        assert_eq!(death(KILLED, Some(3), Some(3)), Death::Signal(9));
        assert_eq!(death(KILLED, None, None), Death::OutOfMemory);
        assert_eq!(death(SEGMENTATION_FAULT_WITH_CORE, Some(3), Some(4)), Death::Signal(11));
        assert_eq!(death(2 << 8, Some(3), Some(3)), Death::Exit(2));
    }

    #[test]
    fn an_end_that_was_asked_for_says_nothing_of_the_student() {
        for innocent in [Death::Signal(15), Death::Signal(2), Death::Exit(0)] {
            assert!(!innocent.is_the_students_doing(), "{innocent}");
        }
        let stalled = Death::Stalled(Duration::from_secs(600));
        for guilty in [Death::OutOfMemory, Death::Signal(9), Death::Signal(11), Death::Exit(101), stalled] {
            assert!(guilty.is_the_students_doing(), "{guilty}");
        }
    }

    #[test]
    fn libtorchs_want_of_memory_is_told_from_other_failures() {
        let refused =
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes. Error code 12";
        assert!(is_want_of_memory(refused));
        assert!(is_want_of_memory("CUDA out of memory"));
        assert!(!is_want_of_memory("a tensor is missing: memory.weight"));
    }

    #[test]
    fn the_kernels_count_is_found() {
        assert_eq!(OomKills::counted("pgfault 12\noom_kill 7\noom_kill_disabled 1\n"), Some(7));
        assert_eq!(OomKills::counted("pgfault 12\n"), None);
    }
}
