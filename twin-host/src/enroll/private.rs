//! Files that nobody but their owner may read: created so, never made so afterwards.

use std::fs::{DirBuilder, OpenOptions};
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

fn at(path: &Path) -> impl Fn(std::io::Error) -> PrivateFileError + '_ {
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

/// Writes a new file, mode 0600, and has it on the disk before it returns. An existing file is an error.
pub(super) fn create(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(at(path))
}
