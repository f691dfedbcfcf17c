//! A Linux board, read from /sys and /proc, or from a recording of them.

mod cpu;
mod disk;
mod firmware;
mod memory;
mod nl80211;
mod route;
mod thermal;
mod tree;
mod wifi;
mod wired;

use std::path::{Path, PathBuf};
use std::time::Instant;

use twin_shared::wire::telemetry::{Cpu, Link, Room, Telemetry};

use self::cpu::LoadMeter;
use self::disk::FreeSpace;
use self::firmware::Firmware;
use self::nl80211::Radio;
use self::tree::Tree;
use super::Sampler;

/// Which board is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// This machine. Storage is what is free where this folder is or would be.
    Live {
        /// Where the agent keeps its data.
        data_dir: PathBuf,
    },
    /// A folder that stands in for `/`, with `sys/` and `proc/`; what has no file there is asked of recordings in
    /// `nl80211/INTERFACE.json` (see [`Station`](wifi::Station)) and `firmware/get_throttled`.
    Recorded(PathBuf),
}

/// Samples a Linux board.
#[derive(Debug)]
pub struct LinuxSampler {
    tree: Tree,
    interface: Option<String>,
    load: LoadMeter,
    radio: Radio,
    firmware: Firmware,
    disk: FreeSpace,
}

impl LinuxSampler {
    /// A sampler of this board, whose link is this interface, or else the one with the default route.
    #[must_use]
    pub fn new(root: Root, interface: Option<String>) -> Self {
        let (path, radio, firmware, disk) = match root {
            Root::Live { data_dir } => {
                (Path::new("/").to_owned(), Radio::kernel(), Firmware::live(), FreeSpace::around(&data_dir))
            }
            Root::Recorded(path) => {
                let (radio, firmware) = (Radio::Recorded(path.clone()), Firmware::recorded(&path));
                (path, radio, firmware, FreeSpace::unknown())
            }
        };
        Self { tree: Tree::new(path), interface, load: LoadMeter::default(), radio, firmware, disk }
    }

    fn link(&mut self) -> Link {
        let Some(interface) = self.interface.clone().or_else(|| route::interface_to_host(&self.tree)) else {
            return Link::Unknown;
        };
        if wifi::is_wifi(&self.tree, &interface) {
            Link::Wifi(wifi::read(&self.tree, &mut self.radio, &interface))
        } else {
            wired::read(&self.tree, &interface).map_or(Link::Unknown, Link::Wired)
        }
    }
}

impl Sampler for LinuxSampler {
    fn sample(&mut self, now: Instant) -> Telemetry {
        let tree = &self.tree;
        let frequencies = cpu::frequencies(tree);
        let memory = memory::read(tree);
        Telemetry {
            cpu: Cpu {
                cores: cpu::cores(tree),
                current: frequencies.current,
                maximum: frequencies.maximum,
                load: self.load.read(tree, now),
            },
            health: thermal::read(tree, &mut self.firmware, now),
            room: Room { memory_total: memory.total, memory_available: memory.available, disk_free: self.disk.read() },
            link: self.link(),
            ..Telemetry::default()
        }
    }
}

#[cfg(test)]
mod tests;
