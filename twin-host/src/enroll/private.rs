//! Files that nobody but their owner may read: created so, never made so afterwards.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub struct PrivateFileError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the system says.
    pub source: std::io::Error,
}

pub(super) fn at(path: &Path) -> impl Fn(std::io::Error) -> PrivateFileError + '_ {
    move |source| PrivateFileError { path: path.to_owned(), source }
}

/// The file's text, wiped when dropped; None if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, PrivateFileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// Makes the directory and its parents, mode 0700 where new.
pub(super) fn create_directory(path: &Path) -> Result<(), PrivateFileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))
}

/// Makes the directory, mode 0700, and its parents. One that is there is an error.
pub(super) fn create_new_directory(path: &Path) -> Result<(), PrivateFileError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directory(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path).map_err(at(path))
}

/// Writes a new file, mode 0600, and has it on the disk before it returns. An existing file is an error.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    write(path, content, OpenOptions::new().write(true).create_new(true)).map_err(at(path))
}

/// Puts the file in place whole or not at all, mode 0600, over an earlier one.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    let temporary = path.with_added_extension("new");
    // A leftover of an interrupted earlier attempt may have any content and mode.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&temporary)(error)),
        Ok(()) | Err(_) => {}
    }
    create(&temporary, content)?;
    std::fs::rename(&temporary, path).map_err(at(path))?;
    flush_directory_of(path)
}

/// Makes sure that a file's being there, or not, outlives the power.
pub(super) fn flush_directory_of(path: &Path) -> Result<(), PrivateFileError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

/// Copies a file of any size to a new one, mode 0600, and has it on the disk before it returns.
pub(super) fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut source = File::open(from)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    std::io::copy(&mut source, &mut file)?;
    file.sync_all()
}

fn write(path: &Path, content: &[u8], options: &mut OpenOptions) -> std::io::Result<()> {
    let mut file = options.mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
