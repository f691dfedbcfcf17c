//! Files that are there whole or not at all, whenever the power goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Replaces a file: written under another name beside it, flushed, renamed, and the folder flushed.
///
/// # Errors
/// When the disk refuses; the file is as before then.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = file.with_added_extension("new");
    let written = File::create(&temporary).and_then(|mut writer| {
        writer.write_all(bytes)?;
        writer.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, file)) {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    flush(file.parent().unwrap_or(Path::new(".")))
}

/// Flushes a directory's entries.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn flush(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}
