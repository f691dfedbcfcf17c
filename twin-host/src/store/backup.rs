//! Copies of a data directory: made while a host serves, and put back where none does.
//!
//! The records are copied first, as one consistent state; then every file. A file that the records name is there: what
//! a host removes meanwhile (labels and momentum of an epoch that is done) a restored host makes again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use twin_data::blobs::BlobError;
use twin_shared::id::BlobHash;

use super::{Store, StoreError, private};
use crate::durable;

/// What belongs to one host's life alone and is not copied.
const OF_ONE_LIFE: [&str; 4] = ["work", "serve.lock", "collect.lock", "control.sock"];
/// The database, with the files that SQLite keeps beside it.
const DATABASE: [&str; 3] = ["twin.sqlite", "twin.sqlite-wal", "twin.sqlite-shm"];

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The target is in use.
    #[error("{0} is there already: name a folder that is not")]
    Exists(PathBuf),
    /// The source is no copy.
    #[error("{0} is no backup: it has no twin.sqlite")]
    NoBackup(PathBuf),
    /// A blob is not what its name says.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The file system refused.
    #[error("{path}: {error}")]
    Files {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |error| BackupError::Files { path, error }
}

impl Store {
    /// Copies the data directory into a new folder, readable by its owner only: it holds every key and every image.
    /// Returns how many files were copied.
    ///
    /// # Errors
    /// When the folder is there already, or the disk refuses; nothing is left of it then.
    pub fn back_up(&self, out: &Path) -> Result<u64, BackupError> {
        let copied = in_place(out, |partial| {
            // What the snapshot names stays until it is copied.
            let _kept = self.keep_all()?;
            let snapshot = partial.join(DATABASE[0]);
            let text = snapshot.display().to_string();
            self.asked(self.records.execute("VACUUM INTO ?1", [text]))?;
            fs::File::open(&snapshot).and_then(|file| file.sync_all()).map_err(at(&snapshot))?;
            copy(self.root(), partial, &|name| OF_ONE_LIFE.contains(&name) || DATABASE.contains(&name))
        })?;
        Ok(copied + 1)
    }
}

/// Puts a copy back as a data directory, which must not be there. Every blob is checked against its name first.
///
/// # Errors
/// When the copy is none or damaged, the directory is there, or the disk refuses; nothing is left of it then.
pub fn restore(backup: &Path, data_dir: &Path) -> Result<u64, BackupError> {
    if !backup.join(DATABASE[0]).is_file() {
        return Err(BackupError::NoBackup(backup.to_owned()));
    }
    // A directory that was made for the host and is empty yet is as good as none.
    if fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_none()) {
        fs::remove_dir(data_dir).map_err(at(data_dir))?;
    }
    in_place(data_dir, |partial| {
        let copied = copy(backup, partial, &|_| false)?;
        let store = Store::open(partial)?;
        for record in store.devices()? {
            let blobs = store.blobs(&record.device)?;
            let directory = store.twin_directory(&record.device).join("blobs");
            for entry in fs::read_dir(&directory).map_err(at(&directory))? {
                let path = entry.map_err(at(&directory))?.path();
                let name = path.file_name().and_then(|name| name.to_str()).and_then(BlobHash::from_hex);
                if let Some(expected) = name {
                    let found = blobs.rehash(&expected)?;
                    if found != expected {
                        return Err(BlobError::Hash { path, found, expected }.into());
                    }
                }
            }
        }
        Ok(copied)
    })
}

/// Makes a folder whole or not at all: under another name first.
fn in_place(out: &Path, make: impl FnOnce(&Path) -> Result<u64, BackupError>) -> Result<u64, BackupError> {
    if out.exists() {
        return Err(BackupError::Exists(out.to_owned()));
    }
    let partial = out.with_added_extension("partial");
    let made = fs::create_dir_all(&partial).and_then(|()| private(&partial)).map_err(at(&partial));
    let copied = made.and_then(|()| make(&partial)).and_then(|copied| {
        fs::rename(&partial, out).map_err(at(out))?;
        durable::flush(out.parent().unwrap_or(Path::new("."))).map_err(at(out))?;
        Ok(copied)
    });
    if copied.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_dir_all(&partial);
    }
    copied
}

/// Copies a tree, file by file, each flushed; what is gone by the time it is reached is left out.
fn copy(from: &Path, to: &Path, skip: &dyn Fn(&str) -> bool) -> Result<u64, BackupError> {
    let mut copied = 0;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if skip(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let kind = entry.file_type().map_err(at(&source))?;
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(at(&target))?;
            fs::set_permissions(&target, fs::metadata(&source).map_err(at(&source))?.permissions())
                .map_err(at(&target))?;
            copied += copy(&source, &target, &|_| false)?;
        } else if kind.is_file() {
            match fs::copy(&source, &target) {
                Ok(_) => {
                    fs::File::open(&target).and_then(|file| file.sync_all()).map_err(at(&target))?;
                    copied += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !source.exists() => {}
                Err(error) => return Err(at(&target)(error)),
            }
        }
    }
    durable::flush(to).map_err(at(to))?;
    Ok(copied)
}
