//! A directory of blobs named by their BLAKE3 hash, with partial files beside them. A blob is there whole or not at
//! all: it is written under another name, flushed, checked, and then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use twin_shared::id::BlobHash;
use twin_shared::transfer::{Exchange, OnDisk, Output};
use twin_shared::wire::{BlobAck, Manifest};

/// A clock before 2025 was never set: many boards wake up in 1970.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_735_689_600);

/// A directory of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    directory: PathBuf,
}

/// Why a blob could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system refused.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// All bytes came, and they are not the blob.
    #[error("{path}: the hash of the content is {found:.12}…, expected {expected:.12}…")]
    Hash {
        /// The file.
        path: PathBuf,
        /// The content's hash.
        found: BlobHash,
        /// The name.
        expected: BlobHash,
    },
}

impl Blobs {
    /// Opens a directory, making it where it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let directory = directory.into();
        fs::create_dir_all(&directory).map_err(at(&directory))?;
        Ok(Self { directory })
    }

    /// Where a blob lies, or would.
    #[must_use]
    pub fn path(&self, blob: &BlobHash) -> PathBuf {
        self.directory.join(blob.to_string())
    }

    /// Whether a blob is here.
    #[must_use]
    pub fn contains(&self, blob: &BlobHash) -> bool {
        self.path(blob).is_file()
    }

    /// What is here of a blob that a manifest offers.
    #[must_use]
    pub fn on_disk(&self, manifest: &Manifest) -> OnDisk {
        if self.contains(&manifest.blob) {
            return OnDisk::Whole;
        }
        match fs::metadata(self.partial(manifest)) {
            Ok(partial) => OnDisk::Partial(self.before_gap(manifest).unwrap_or(u64::MAX).min(partial.len())),
            Err(_) => OnDisk::Nothing,
        }
    }

    /// Writes a chunk into the partial file. One that comes before its predecessors leaves a gap, which is written down
    /// first: whoever goes on with the file trusts it up to there.
    ///
    /// # Errors
    /// When the disk refuses, full perhaps.
    pub fn write_chunk(&self, manifest: &Manifest, offset: u64, bytes: &[u8]) -> Result<(), BlobError> {
        let path = self.partial(manifest);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(at(&path))?;
        let length = file.metadata().map_err(at(&path))?.len();
        if offset > length && self.before_gap(manifest).is_none() {
            let gap = self.gap(manifest);
            fs::write(&gap, length.to_string()).map_err(at(&gap))?;
        }
        file.write_all_at(bytes, offset).map_err(at(&path))
    }

    /// Writes a chunk that an exchange has found a place for, tells the exchange, and keeps up with how far it holds the
    /// blob without a gap. What the exchange says then.
    ///
    /// # Errors
    /// When the disk refuses, full perhaps.
    pub fn take_chunk(
        &self,
        exchange: &mut Exchange,
        manifest: &Manifest,
        (index, offset): (u32, u64),
        bytes: &[u8],
    ) -> Result<Option<Output>, BlobError> {
        self.write_chunk(manifest, offset, bytes)?;
        let next = exchange.wrote(&manifest.blob, index);
        if let Some(Output::Ack(BlobAck::Holding { base, .. })) = next {
            self.settle(manifest, u64::from(base) * u64::from(manifest.chunk))?;
        }
        Ok(next)
    }

    /// The partial file is there up to `held` bytes: past all that was written, it has no gap any more.
    fn settle(&self, manifest: &Manifest, held: u64) -> Result<(), BlobError> {
        if self.before_gap(manifest).is_none() {
            return Ok(());
        }
        let path = self.partial(manifest);
        let length = fs::metadata(&path).map_err(at(&path))?.len();
        if held >= length { self.close_gap(manifest) } else { Ok(()) }
    }

    /// Where the partial file's first gap was when it got one; `None` without a gap. What cannot be read is trusted in
    /// nothing.
    fn before_gap(&self, manifest: &Manifest) -> Option<u64> {
        match fs::read_to_string(self.gap(manifest)) {
            Ok(text) => Some(text.parse().unwrap_or(0)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(0),
        }
    }

    fn close_gap(&self, manifest: &Manifest) -> Result<(), BlobError> {
        let path = self.gap(manifest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn gap(&self, manifest: &Manifest) -> PathBuf {
        self.partial(manifest).with_added_extension("gap")
    }

    /// Checks the partial file against its name and puts it in its place, flushed. A file with a wrong hash is
    /// removed.
    ///
    /// # Errors
    /// When the hash is wrong or the disk refuses.
    pub fn finish(&self, manifest: &Manifest) -> Result<(), BlobError> {
        let partial = self.partial(manifest);
        let mut file = OpenOptions::new().read(true).write(true).open(&partial).map_err(at(&partial))?;
        file.set_len(manifest.size).map_err(at(&partial))?;
        let found = hash(&mut file).map_err(at(&partial))?;
        if found != manifest.blob {
            fs::remove_file(&partial).map_err(at(&partial))?;
            self.close_gap(manifest)?;
            return Err(BlobError::Hash { path: partial, found, expected: manifest.blob });
        }
        file.sync_all().map_err(at(&partial))?;
        self.place(&partial, &found)?;
        self.close_gap(manifest)
    }

    /// A blob that is here and wanted again counts as written now; see [`Self::retain_settled`]. Whether it is here.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn renew(&self, blob: &BlobHash) -> Result<bool, BlobError> {
        let path = self.path(blob);
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file.set_modified(SystemTime::now()).map(|()| true).map_err(at(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// Takes bytes in.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobHash, BlobError> {
        let blob = BlobHash::of(bytes);
        if !self.renew(&blob)? {
            let temporary = self.directory.join(format!("{blob}.new"));
            let mut file = File::create(&temporary).map_err(at(&temporary))?;
            file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(&temporary))?;
            self.place(&temporary, &blob)?;
        }
        Ok(blob)
    }

    /// Takes in a file that another program has written into the same file system: hashes, flushes and moves it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn adopt(&self, path: &Path) -> Result<(BlobHash, u64), BlobError> {
        let mut file = File::open(path).map_err(at(path))?;
        let blob = hash(&mut file).map_err(at(path))?;
        let bytes = file.metadata().map_err(at(path))?.len();
        file.sync_all().map_err(at(path))?;
        self.place(path, &blob)?;
        Ok((blob, bytes))
    }

    /// Reads a piece of a blob.
    ///
    /// # Errors
    /// When it is not here, is shorter, or the disk refuses.
    pub fn read_chunk(&self, blob: &BlobHash, offset: u64, length: u32) -> Result<Vec<u8>, BlobError> {
        let path = self.path(blob);
        let mut file = File::open(&path).map_err(at(&path))?;
        file.seek(SeekFrom::Start(offset)).map_err(at(&path))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes).map_err(at(&path))?;
        Ok(bytes)
    }

    /// Hashes what lies on disk under a blob's name: what a twin's equality is judged by.
    ///
    /// # Errors
    /// When it is not here or the disk refuses.
    pub fn rehash(&self, blob: &BlobHash) -> Result<BlobHash, BlobError> {
        let path = self.path(blob);
        File::open(&path).and_then(|mut file| hash(&mut file)).map_err(at(&path))
    }

    /// The length of a blob, bytes.
    ///
    /// # Errors
    /// When it is not here.
    pub fn size(&self, blob: &BlobHash) -> Result<u64, BlobError> {
        let path = self.path(blob);
        fs::metadata(&path).map(|data| data.len()).map_err(at(&path))
    }

    /// Removes a blob; one that is not here is no error.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove(&self, blob: &BlobHash) -> Result<(), BlobError> {
        let path = self.path(blob);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes every blob but these, and partial files not written to for `patience`. Returns how many went. A file
    /// that was written before the clock was set is of unknown age, and ages from now on.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn retain(&self, keep: impl Fn(&BlobHash) -> bool, patience: Duration) -> Result<usize, BlobError> {
        self.sweep(|path, blob| match blob {
            Some(blob) => Ok(!keep(&blob)),
            None => is_older(path, patience),
        })
    }

    /// As [`Self::retain`], where others write: what was written, or wanted again, within `patience` stays as well,
    /// for it may not have been named yet.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn retain_settled(&self, keep: impl Fn(&BlobHash) -> bool, patience: Duration) -> Result<usize, BlobError> {
        self.sweep(|path, blob| {
            let kept = blob.is_some_and(|blob| keep(&blob));
            Ok(!kept && is_older(path, patience)?)
        })
    }

    fn sweep(&self, unwanted: impl Fn(&Path, Option<BlobHash>) -> io::Result<bool>) -> Result<usize, BlobError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.directory).map_err(at(&self.directory))? {
            let path = entry.map_err(at(&self.directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match unwanted(&path, BlobHash::from_hex(name))
                .and_then(|gone| if gone { fs::remove_file(&path).map(|()| 1) } else { Ok(0) })
            {
                Ok(gone) => removed += gone,
                // Whoever wrote it has moved or removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(at(&path)(error)),
            }
        }
        Ok(removed)
    }

    /// Renames and flushes the directory, so that the blob is there after a power cut too.
    fn place(&self, from: &Path, blob: &BlobHash) -> Result<(), BlobError> {
        let path = self.path(blob);
        fs::rename(from, &path).map_err(at(&path))?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(at(&self.directory))
    }

    /// Size and chunk length are part of the name: another division of the same blob starts anew.
    fn partial(&self, manifest: &Manifest) -> PathBuf {
        self.directory.join(format!("{}.{}.{}.part", manifest.blob, manifest.size, manifest.chunk))
    }
}

/// Whether a file was not written to for so long.
fn is_older(path: &Path, patience: Duration) -> io::Result<bool> {
    let now = SystemTime::now();
    let written = fs::metadata(path)?.modified()?;
    if written < SystemTime::UNIX_EPOCH + CLOCK_IS_SET && now >= SystemTime::UNIX_EPOCH + CLOCK_IS_SET {
        OpenOptions::new().write(true).open(path)?.set_modified(now)?;
        return Ok(false);
    }
    Ok(now.duration_since(written).is_ok_and(|age| age > patience))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |error| BlobError::Io { path, error }
}

fn hash(file: &mut File) -> io::Result<BlobHash> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = blake3::Hasher::new();
    io::copy(file, &mut hasher)?;
    Ok(BlobHash(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::id::DatasetVersion;
    use twin_shared::wire::Purpose;

    fn manifest(bytes: &[u8]) -> Manifest {
        let purpose = Purpose::Dataset(DatasetVersion([0; 32]));
        Manifest { blob: BlobHash::of(bytes), size: bytes.len() as u64, chunk: 4, purpose }
    }

    #[test]
    fn chunks_in_any_order_become_the_blob() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path().join("blobs")).expect("made");
        let offer = manifest(b"0123456789");
        assert_eq!(blobs.on_disk(&offer), OnDisk::Nothing);
        blobs.write_chunk(&offer, 8, b"89").expect("written");
        assert_eq!(blobs.on_disk(&offer), OnDisk::Partial(0), "all of it lies behind a gap");
        blobs.write_chunk(&offer, 0, b"0123").expect("written");
        blobs.settle(&offer, 4).expect("settled");
        assert_eq!(blobs.on_disk(&offer), OnDisk::Partial(0), "there is a gap still");
        blobs.write_chunk(&offer, 4, b"4567").expect("written");
        blobs.settle(&offer, 12).expect("settled");
        assert_eq!(blobs.on_disk(&offer), OnDisk::Partial(10));
        blobs.finish(&offer).expect("whole");
        assert_eq!(blobs.on_disk(&offer), OnDisk::Whole);
        assert_eq!(blobs.read_chunk(&offer.blob, 4, 4).expect("there"), b"4567");
        assert_eq!(blobs.rehash(&offer.blob).expect("there"), offer.blob);
        assert_eq!(fs::read_dir(&blobs.directory).expect("there").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_wrong_whole_is_named_and_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path()).expect("made");
        let offer = manifest(b"0123");
        blobs.write_chunk(&offer, 0, b"0124").expect("written");
        assert!(matches!(blobs.finish(&offer), Err(BlobError::Hash { .. })));
        assert_eq!(blobs.on_disk(&offer), OnDisk::Nothing);
    }

    #[test]
    fn only_what_is_kept_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path()).expect("made");
        let (first, second) = (blobs.put(b"first").expect("put"), blobs.put(b"second").expect("put"));
        assert_eq!(blobs.retain(|blob| *blob == first, Duration::MAX).expect("retained"), 1);
        assert!(blobs.contains(&first) && !blobs.contains(&second));
    }

    #[test]
    fn what_was_wanted_lately_stays_though_nobody_names_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path()).expect("made");
        let names = [b"named", b"young", b"again", b"taken", b"stale"];
        let [named, young, again, taken, stale] = names.map(|bytes| blobs.put(bytes).expect("put"));
        let day = Duration::from_secs(24 * 3600);
        for old in [named, again, taken, stale] {
            let file = File::options().write(true).open(blobs.path(&old)).expect("there");
            file.set_modified(SystemTime::now() - 2 * day).expect("set");
        }
        assert!(blobs.renew(&again).expect("renewed") && !blobs.renew(&BlobHash([0; 32])).expect("looked for"));
        blobs.put(b"taken").expect("put again");
        assert_eq!(blobs.retain_settled(|blob| *blob == named, day).expect("retained"), 1);
        assert!([named, young, again, taken].iter().all(|blob| blobs.contains(blob)) && !blobs.contains(&stale));
    }

    #[test]
    fn a_part_that_came_before_the_clock_was_set_is_not_taken_for_old() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path()).expect("made");
        let offer = manifest(b"0123456789");
        blobs.write_chunk(&offer, 0, b"0123").expect("written");
        let part = blobs.partial(&offer);
        let set = |at: SystemTime| File::options().write(true).open(&part).and_then(|file| file.set_modified(at));
        set(SystemTime::UNIX_EPOCH + Duration::from_secs(600)).expect("set");
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(blobs.retain(|_| true, day).expect("retained"), 0);
        assert_eq!(blobs.retain(|_| true, day).expect("retained"), 0, "it ages from the first look on");
        set(SystemTime::now() - 2 * day).expect("set");
        assert_eq!(blobs.retain(|_| true, day).expect("retained"), 1);
    }

    #[test]
    fn a_file_is_adopted_by_its_content() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path().join("blobs")).expect("made");
        let file = directory.path().join("state");
        fs::write(&file, b"weights").expect("written");
        assert_eq!(blobs.adopt(&file).expect("adopted"), (BlobHash::of(b"weights"), 7));
        assert!(!file.exists());
    }
}
