//! Memory, from /proc/meminfo.

use twin_shared::wire::telemetry::Reading;
use twin_shared::wire::telemetry::quantity::Kibibytes;

use super::tree::Tree;

pub(super) struct Memory {
    pub(super) total: Reading<Kibibytes>,
    pub(super) available: Reading<Kibibytes>,
}

pub(super) fn read(tree: &Tree) -> Memory {
    let text = tree.text("proc/meminfo").unwrap_or_default();
    let entry = |name: &str| {
        let kibibytes = text.lines().find_map(|line| {
            let rest = line.strip_prefix(name)?.strip_prefix(':')?;
            rest.trim().strip_suffix(" kB")?.parse().ok()
        });
        Reading::measured_or_unknown(kibibytes.map(Kibibytes))
    };
    // Kernels before 3.14 have no MemAvailable; MemFree would understate it by all the file cache.
    Memory { total: entry("MemTotal"), available: entry("MemAvailable") }
}
