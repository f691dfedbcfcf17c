//! Parts of a core for boards that this machine plays: control groups where the kernel gives them, of either version;
//! else the agent's own duty cycle, which holds back its trainer alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use twin_shared::id::DeviceId;

/// The kernel counts a quota anew after so many microseconds.
const PERIOD_US: f64 = 100_000.0;

/// How boards get their parts of a core.
#[derive(Debug)]
pub(super) enum Quotas {
    /// A folder of control groups.
    Groups { folder: PathBuf, version: Version },
    /// By the agent's configuration.
    DutyCycle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Quotas {
    /// What is to be had here.
    pub(super) fn find() -> Self {
        let places = [("/sys/fs/cgroup", Version::Two), ("/sys/fs/cgroup/cpu", Version::One)];
        for (place, version) in places.into_iter().filter(|(place, version)| offers(Path::new(place), *version)) {
            let folder = Path::new(place).join(format!("twin-field-{}", std::process::id()));
            match try_out(&folder, version) {
                Ok(()) => return Self::Groups { folder, version },
                // A group that can be made and not used is no use; it is empty, and whether it goes matters little.
                Err(_) => drop(fs::remove_dir(folder.join("trial")).and_then(|()| fs::remove_dir(&folder))),
            }
        }
        Self::DutyCycle
    }

    /// For people.
    pub(super) const fn described(&self) -> &'static str {
        match self {
            Self::Groups { version: Version::Two, .. } => "control groups, version 2 (cpu.max)",
            Self::Groups { version: Version::One, .. } => "control groups, version 1 (cpu.cfs_quota_us)",
            Self::DutyCycle => {
                "the agents' emulated duty cycle (this machine gives no control group for the processor): it holds back \
                 the trainers alone, and a change of it takes a restart of the agent"
            }
        }
    }

    /// Whether the agent itself must hold back.
    pub(super) const fn is_duty_cycle(&self) -> bool {
        matches!(self, Self::DutyCycle)
    }

    /// A board's part of a core from now on. What runs in its group is held to it at once.
    pub(super) fn set(&self, board: &DeviceId, share: f64) -> io::Result<()> {
        match self {
            Self::Groups { folder, version } => set(&folder.join(board.as_str()), *version, share),
            Self::DutyCycle => Ok(()),
        }
    }

    /// What starts a program in the board's group: the shell enters it and becomes the program.
    pub(super) fn entering(&self, board: &DeviceId) -> Vec<String> {
        match self {
            Self::Groups { folder, .. } => {
                let members = folder.join(board.as_str()).join("cgroup.procs").display().to_string();
                vec!["sh".into(), "-c".into(), "echo $$ > \"$0\" && exec \"$@\"".into(), members]
            }
            Self::DutyCycle => Vec::new(),
        }
    }
}

impl Drop for Quotas {
    fn drop(&mut self) {
        let Self::Groups { folder, .. } = self else { return };
        for group in fs::read_dir(&*folder).into_iter().flatten().flatten() {
            // The kernel's own files are no folders, and stay until theirs goes.
            let _ = fs::remove_dir(group.path());
        }
        let _ = fs::remove_dir(&*folder);
    }
}

/// Whether this is a control group, and of the processor. Nothing is written where it is not.
fn offers(place: &Path, version: Version) -> bool {
    let has = |name: &str| fs::read_to_string(place.join(name));
    let controls = match version {
        Version::One => has("cpu.shares").is_ok(),
        Version::Two => has("cgroup.controllers").is_ok_and(|all| all.split_whitespace().any(|name| name == "cpu")),
    };
    controls && has("cgroup.procs").is_ok()
}

/// Makes a group and gives it a quota; version 2 wants the controller handed down first.
fn try_out(folder: &Path, version: Version) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    if version == Version::Two {
        let above = folder.parent().unwrap_or(folder);
        for place in [above, folder] {
            write(&place.join("cgroup.subtree_control"), "+cpu")?;
        }
    }
    let trial = folder.join("trial");
    set(&trial, version, 0.5)?;
    fs::remove_dir(trial)
}

fn set(group: &Path, version: Version, share: f64) -> io::Result<()> {
    fs::create_dir_all(group)?;
    let quota = format!("{:.0}", share * PERIOD_US);
    match version {
        Version::Two => write(&group.join("cpu.max"), &format!("{quota} {PERIOD_US:.0}")),
        Version::One => {
            write(&group.join("cpu.cfs_period_us"), &format!("{PERIOD_US:.0}"))?;
            write(&group.join("cpu.cfs_quota_us"), &quota)
        }
    }
}

/// Writes to a file that the kernel has put there, and makes none.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(file)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
