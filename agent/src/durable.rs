//! Small files that are there whole or not at all, whenever the power goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file: written under another name beside it, flushed, renamed, and the folder flushed.
///
/// # Errors
/// When the disk refuses; the file is as before then.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = file.with_added_extension("new");
    put(file, &temporary, File::create(&temporary)?, bytes)
}

/// The same for a secret: nobody but the owner can read the file at any time.
///
/// # Errors
/// When the disk refuses; the file is as before then.
pub fn replace_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = file.with_added_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // A leftover may have been readable.
        Ok(()) | Err(_) => {}
    }
    let writer = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    put(file, &temporary, writer, bytes)
}

fn put(file: &Path, temporary: &Path, mut writer: File, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes)?;
    writer.sync_all()?;
    fs::rename(temporary, file)?;
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Adds to the end of a file, and flushes it. A power cut may leave any part of what was added.
///
/// # Errors
/// When the disk refuses.
pub fn append(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut writer = File::options().append(true).open(file)?;
    writer.write_all(bytes)?;
    writer.sync_data()
}

/// Reads a file; `None` where there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_a_leftover_does_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("memory");
        assert_eq!(read(&file).expect("readable"), None);
        fs::write(folder.path().join("memory.new"), b"half a").expect("written");
        replace(&file, b"first").expect("written");
        replace(&file, b"second").expect("written");
        assert_eq!(read(&file).expect("readable"), Some(b"second".to_vec()));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
}
