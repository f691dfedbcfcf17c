//! The board's dataset, in the one form that trainer and twin read, and the versions of it that are remembered.

mod shelf;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use twin_data::blobs::{BlobError, Blobs};
use twin_data::cifar::{self, CifarFormat};
use twin_data::classes::{ClassError, ClassList};
use twin_data::delta::{Delta, MAX_BYTES as MAX_DELTA};
use twin_data::folder::{self, Folder, FolderError, MANIFEST};
use twin_data::manifest::Manifest;
use twin_data::{DataError, ImageSet, digits};
use twin_shared::id::{BlobHash, DatasetVersion};
use twin_shared::wire::DatasetOffer;

use crate::config::{Dataset, DatasetFormat};
use crate::durable;
use shelf::{Record, Shelf};

/// Why there is no dataset.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The files are not what the configuration says.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The folder of pictures is not in order.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The disk refuses.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A file of ours cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        error: io::Error,
    },
    /// The list of classes is none.
    #[error("{}: {error}", path.display())]
    Classes {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ClassError,
    },
    /// Folders' names say nothing yet.
    #[error("the host's list of classes has not come yet; twin-host classes add NAME makes one")]
    NoClasses,
}

/// A version of the dataset that is ready to be offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// What the birth says.
    pub offer: DatasetOffer,
    /// The blob that holds it.
    pub blob: BlobHash,
    /// Versions before it whose blobs are still here.
    pub earlier: Vec<DatasetVersion>,
}

/// Where a board's dataset comes from, and where its versions are remembered.
#[derive(Debug, Clone)]
pub struct Source {
    dataset: Dataset,
    blobs: Blobs,
    shelf: Shelf,
    classes: PathBuf,
}

/// The list of classes as the host sent it last; `None` before it did.
///
/// # Errors
/// When it cannot be read or is none.
pub fn classes(data_dir: &Path) -> Result<Option<ClassList>, DatasetError> {
    read_classes(&data_dir.join(CLASSES)).map(|found| found.map(|(list, _)| list))
}

/// Name of the file of the list.
const CLASSES: &str = "classes.json";

fn read_classes(path: &Path) -> Result<Option<(ClassList, Vec<u8>)>, DatasetError> {
    let bytes = durable::read(path).map_err(|error| DatasetError::Io { path: path.to_owned(), error })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let list = ClassList::from_json(&bytes);
    let list = list.map_err(|error| DatasetError::Classes { path: path.to_owned(), error })?;
    Ok(Some((list, bytes)))
}

/// Reads a dataset as it lies there; the classes of a folder in order of their names.
///
/// # Errors
/// When the files are broken.
pub fn read(dataset: &Dataset) -> Result<ImageSet, DatasetError> {
    let path = dataset.path.as_path();
    Ok(match dataset.format {
        DatasetFormat::Twinset => ImageSet::read(path)?,
        DatasetFormat::Digits => digits::read(path)?,
        DatasetFormat::Cifar10 => cifar::read_directory(path, CifarFormat::Cifar10)?.train,
        DatasetFormat::Cifar100 => cifar::read_directory(path, CifarFormat::Cifar100)?.train,
        DatasetFormat::Folder => folder::read(path)?.0,
    })
}

impl Source {
    /// A dataset as the configuration describes it.
    ///
    /// # Errors
    /// When its versions cannot be remembered.
    pub fn open(dataset: Dataset, data_dir: &Path, blobs: Blobs) -> Result<Self, DatasetError> {
        let folder = data_dir.join("datasets");
        let shelf = Shelf::open(folder.clone()).map_err(|error| DatasetError::Io { path: folder, error })?;
        Ok(Self { dataset, blobs, shelf, classes: data_dir.join(CLASSES) })
    }

    /// When a folder's manifest was last written: what tells that the owner changed it.
    #[must_use]
    pub fn changed_at(&self) -> Option<SystemTime> {
        match self.dataset.format {
            DatasetFormat::Folder => {
                fs::metadata(self.dataset.path.join(MANIFEST)).and_then(|data| data.modified()).ok()
            }
            DatasetFormat::Twinset | DatasetFormat::Digits | DatasetFormat::Cifar10 | DatasetFormat::Cifar100 => None,
        }
    }

    /// Whether reading it may take long and go wrong any time, so that it is done beside everything else.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        self.dataset.format == DatasetFormat::Folder
    }

    /// The newest version that was made before, if it is still here.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn newest(&self) -> Result<Option<Ready>, DatasetError> {
        let records = self.records()?;
        Ok(records.last().map(|newest| self.ready(newest, &records)))
    }

    /// Makes the present version, or finds that it was made before.
    ///
    /// # Errors
    /// When the files are not what the configuration says, or the disk refuses. Earlier versions are as before.
    pub fn load(&self) -> Result<Ready, DatasetError> {
        if self.is_folder() { self.load_folder() } else { self.store(&read(&self.dataset)?, String::new()) }
    }

    fn load_folder(&self) -> Result<Ready, DatasetError> {
        let (classes, text) = read_classes(&self.classes)?.ok_or(DatasetError::NoClasses)?;
        let folder = Folder::new(&self.dataset.path);
        let manifest = match folder.manifest()? {
            Some(manifest) => manifest,
            None => folder.update()?.0,
        };
        folder.require_all(&manifest)?;
        let file = folder.root().join(MANIFEST);
        let listed = fs::read(&file).map_err(|error| DatasetError::Io { path: file, error })?;
        let source = blake3::Hasher::new().update(&listed).update(&text).finalize().to_hex().to_string();
        let records = self.records()?;
        if let Some(newest) = records.last().filter(|record| record.source == source) {
            return Ok(self.ready(newest, &records));
        }
        // A version that cannot be read any more only saves no time.
        let known = records.last().and_then(|newest| ImageSet::read(&self.blobs.path(&newest.blob())).ok());
        let set = folder.image_set(&manifest, &classes, known.as_ref())?;
        self.store(&set, source)
    }

    fn store(&self, set: &ImageSet, source: String) -> Result<Ready, DatasetError> {
        let bytes = set.to_bytes();
        let blob = self.blobs.put(&bytes)?;
        let record = Record {
            version: blob.to_string(),
            bytes: bytes.len() as u64,
            samples: u32::try_from(set.len()).unwrap_or(u32::MAX),
            source,
        };
        let io = |error| DatasetError::Io { path: self.shelf.folder().to_owned(), error };
        self.shelf.put(record.clone(), &Manifest::of(set)).map_err(io)?;
        Ok(self.ready(&record, &self.records()?))
    }

    /// What leads from an earlier version to this one, as a blob; `None` where the earlier one is not remembered or
    /// nothing would be saved.
    ///
    /// # Errors
    /// When this version cannot be read, or the disk refuses.
    pub fn delta(&self, from: DatasetVersion, to: DatasetVersion) -> Result<Option<BlobHash>, DatasetError> {
        let Some(old) = self.shelf.manifest(from) else { return Ok(None) };
        // A dataset's version is the hash of its bytes, and so the name of its blob.
        let new = ImageSet::read(&self.blobs.path(&BlobHash(to.0)))?;
        let whole = new.to_bytes().len();
        let fits = |bytes: &Vec<u8>| bytes.len() < whole && bytes.len() as u64 <= MAX_DELTA;
        let delta = Delta::between(&old, &new).map(|delta| delta.to_bytes()).filter(fits);
        delta.map(|bytes| self.blobs.put(&bytes)).transpose().map_err(DatasetError::from)
    }

    fn records(&self) -> Result<Vec<Record>, DatasetError> {
        let records = self.shelf.records();
        let records = records.map_err(|error| DatasetError::Io { path: self.shelf.folder().to_owned(), error })?;
        Ok(records.into_iter().filter(|record| self.blobs.contains(&record.blob())).collect())
    }

    fn ready(&self, record: &Record, records: &[Record]) -> Ready {
        let blob = record.blob();
        let offer = DatasetOffer { version: DatasetVersion(blob.0), bytes: record.bytes, samples: record.samples };
        let earlier = records.iter().rev().map(|record| DatasetVersion(record.blob().0));
        Ready { offer, blob, earlier: earlier.filter(|version| *version != offer.version).take(EARLIER).collect() }
    }
}

/// Versions before the present one whose blobs stay.
const EARLIER: usize = 2;

/// Follows a list of classes that came as a blob; whether it is another than before. An older one is not taken.
///
/// # Errors
/// When it is no list, or the disk refuses.
pub fn follow_classes(data_dir: &Path, blobs: &Blobs, blob: &BlobHash) -> Result<bool, DatasetError> {
    let (path, file) = (data_dir.join(CLASSES), blobs.path(blob));
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| DatasetError::Io { path, error }
    };
    let bytes = fs::read(&file).map_err(at(&file))?;
    let list = ClassList::from_json(&bytes).map_err(|error| DatasetError::Classes { path: file, error })?;
    match read_classes(&path) {
        Ok(Some((known, _))) if known.version() > list.version() => {
            tracing::warn!(came = list.version(), known = known.version(), "an older list of classes is not taken");
            return Ok(false);
        }
        Ok(Some((known, _))) if known == list => return Ok(false),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the list of classes on disk is replaced"),
    }
    durable::replace(&path, &bytes).map_err(at(&path))?;
    Ok(true)
}

#[cfg(test)]
mod tests;
