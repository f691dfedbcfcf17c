//! Free space where the agent keeps its data.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sysinfo::{Disk, DiskRefreshKind, Disks};
use twin_shared::wire::telemetry::Reading;
use twin_shared::wire::telemetry::quantity::Mebibytes;

/// The file system of a folder.
#[derive(Debug)]
pub(super) struct FreeSpace(Option<Disk>);

impl FreeSpace {
    pub(super) const fn unknown() -> Self {
        Self(None)
    }

    /// The file system of this folder, or of the nearest one above it that is there. A file system that sysinfo leaves
    /// out (in memory, over a network) stays unknown: another's space would be a wrong answer.
    pub(super) fn around(folder: &Path) -> Self {
        let Some(device) = folder.ancestors().find_map(|path| path.metadata().ok()).map(|found| found.dev()) else {
            return Self(None);
        };
        let kind = DiskRefreshKind::nothing().with_storage();
        let Ok(disks) = Disks::new_with_refreshed_list_specifics(kind) else {
            return Self(None);
        };
        let same = |disk: &Disk| disk.mount_point().metadata().is_ok_and(|found| found.dev() == device);
        Self(Vec::from(disks).into_iter().find(same))
    }

    pub(super) fn read(&mut self) -> Reading<Mebibytes> {
        let free = self.0.as_mut().and_then(|disk| {
            let refreshed = disk.refresh_specifics(DiskRefreshKind::nothing().with_storage());
            refreshed.then(|| u32::try_from(disk.available_space() >> 20).unwrap_or(u32::MAX))
        });
        Reading::measured_or_unknown(free.map(Mebibytes))
    }
}
