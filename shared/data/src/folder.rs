//! A folder of pictures: one sub-folder a class, and `incoming/` for pictures that wait for a label.
//!
//! Beside them lies `manifest.json`, the list of what belongs to the dataset: it, and not what happens to lie in the
//! folder, says what a version consists of. A picture that was removed by hand is a fault until the manifest is
//! brought up to date ([`Folder::update`]), so that a card that was not mounted never empties a twin.

mod manifest;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

pub use manifest::{Entry, FolderManifest, MANIFEST};

use crate::classes::{ClassError, ClassList, INCOMING, check_names};
use crate::delta::canonical;
use crate::error::DataError;
use crate::image_set::{Image, ImageSet, SampleHash};
use crate::normalisation::Normalisation;
use crate::picture::{self, PictureError};

/// A folder of pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    root: PathBuf,
}

/// A picture that lies in the folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// Its class.
    pub class: String,
    /// Its file's name.
    pub file: String,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Change {
    /// Pictures that were taken in.
    pub added: usize,
    /// Pictures that are gone.
    pub deleted: usize,
    /// Pictures that moved to another class.
    pub relabelled: usize,
}

/// What is wrong with a folder of pictures.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A class's name is none, is there twice, or is not the host's.
    #[error("{}: {error}", path.display())]
    Class {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        error: ClassError,
    },
    /// A picture is none.
    #[error("{}: {error}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: PictureError,
    },
    /// Several faults at once.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<FolderError>),
    /// One picture under two classes.
    #[error("{} and {} are the same picture under two classes: keep one of them", first.display(), second.display())]
    TwoClasses {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The manifest names what is not there.
    #[error("{} names {count} pictures that are not there, {first} first: put them back, or take note with `twin-agent data add`", path.display())]
    Missing {
        /// The manifest.
        path: PathBuf,
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// The manifest is no manifest.
    #[error("{} is no manifest: {problem}; remove it and run `twin-agent data add`", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Nothing to learn from.
    #[error("{} has no pictures in class folders", .0.display())]
    Empty(PathBuf),
    /// What it gives is no image set.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl FolderError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }

    fn of_several(mut errors: Vec<Self>) -> Option<Self> {
        match errors.len() {
            0 => None,
            1 => errors.pop(),
            _ => Some(Self::Several(errors)),
        }
    }
}

/// Reads a folder without a manifest: every picture of every class, the classes in order of their names.
///
/// # Errors
/// When a picture or a class's name is none, or there are none at all; each fault is named.
pub fn read(root: &Path) -> Result<(ImageSet, Vec<String>), FolderError> {
    let folder = Folder::new(root);
    let found = folder.found()?;
    let names: BTreeSet<String> = found.iter().map(|found| found.class.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let classes =
        ClassList::new(0, names.clone()).map_err(|error| FolderError::Class { path: root.to_owned(), error })?;
    let manifest = folder.manifest_of(&found, None)?;
    Ok((folder.image_set(&manifest, &classes, None)?, names))
}

impl Folder {
    /// A folder at this place.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The place.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where pictures wait for a label.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.root.join(INCOMING)
    }

    /// Every picture in a class's folder, in order of class and name.
    ///
    /// # Errors
    /// When the folder cannot be read, or a class's name is none or has two spellings.
    pub fn found(&self) -> Result<Vec<Found>, FolderError> {
        let mut found = Vec::new();
        let mut classes = Vec::new();
        for (name, path) in entries(&self.root)? {
            if path.is_dir() && name != INCOMING {
                for (file, path) in entries(&path)? {
                    if path.is_file() && picture::is_named_so(&path) {
                        found.push(Found { class: name.clone(), file });
                    }
                }
                classes.push(name);
            }
        }
        check_names(classes.iter().map(String::as_str))
            .map_err(|error| FolderError::Class { path: self.root.clone(), error })?;
        found.sort_unstable();
        Ok(found)
    }

    /// Pictures that wait for a label, by name.
    ///
    /// # Errors
    /// When the folder cannot be read; one that is not there holds none.
    pub fn waiting(&self) -> Result<Vec<String>, FolderError> {
        let incoming = self.incoming();
        if !incoming.is_dir() {
            return Ok(Vec::new());
        }
        let pictures = entries(&incoming)?.into_iter().filter(|(_, path)| path.is_file() && picture::is_named_so(path));
        let mut names: Vec<String> = pictures.map(|(name, _)| name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// The manifest, where there is one.
    ///
    /// # Errors
    /// When it cannot be read or is none.
    pub fn manifest(&self) -> Result<Option<FolderManifest>, FolderError> {
        FolderManifest::read(&self.root.join(MANIFEST))
    }

    /// What the manifest of these pictures would be. Files that `known` lists with the same length and time are not
    /// decoded again.
    ///
    /// # Errors
    /// Every picture that is none, and every pair of one picture in two classes.
    pub fn manifest_of(&self, found: &[Found], known: Option<&FolderManifest>) -> Result<FolderManifest, FolderError> {
        let known: BTreeMap<(&str, &str), &Entry> = known
            .iter()
            .flat_map(|manifest| &manifest.pictures)
            .map(|entry| ((entry.class.as_str(), entry.file.as_str()), entry))
            .collect();
        let (mut pictures, mut faults): (Vec<Entry>, Vec<FolderError>) = (Vec::new(), Vec::new());
        let mut seen: BTreeMap<SampleHash, usize> = BTreeMap::new();
        for Found { class, file } in found {
            let path = self.path(class, file);
            let entry = stamp(&path).and_then(|(bytes, modified)| {
                if let Some(entry) = known.get(&(class.as_str(), file.as_str()))
                    && (entry.bytes, entry.modified) == (bytes, modified)
                {
                    return Ok((*entry).clone());
                }
                let sample = SampleHash::of(&*decode(&path)?);
                Ok(Entry { class: class.clone(), file: file.clone(), bytes, modified, sample })
            });
            match entry {
                Err(fault) => faults.push(fault),
                Ok(entry) => match seen.get(&entry.sample).map(|&at| &pictures[at]) {
                    None => {
                        seen.insert(entry.sample, pictures.len());
                        pictures.push(entry);
                    }
                    Some(first) if first.class == entry.class => pictures.push(entry),
                    Some(first) => {
                        let first = self.path(&first.class, &first.file);
                        faults.push(FolderError::TwoClasses { first, second: path });
                    }
                },
            }
        }
        match FolderError::of_several(faults) {
            None => Ok(FolderManifest { pictures }),
            Some(fault) => Err(fault),
        }
    }

    /// Brings the manifest up to date with what lies in the folder, and says what changed.
    ///
    /// # Errors
    /// When anything in the folder is wrong; the manifest is as before then.
    pub fn update(&self) -> Result<(FolderManifest, Change), FolderError> {
        let before = self.manifest()?;
        let after = self.manifest_of(&self.found()?, before.as_ref())?;
        let change = before.unwrap_or_default().change_to(&after);
        after.write(&self.root.join(MANIFEST))?;
        Ok((after, change))
    }

    /// Nothing, if every picture that the manifest names is there.
    ///
    /// # Errors
    /// [`FolderError::Missing`].
    pub fn require_all(&self, manifest: &FolderManifest) -> Result<(), FolderError> {
        let mut missing = manifest.pictures.iter().filter(|entry| !self.path(&entry.class, &entry.file).is_file());
        match missing.next() {
            None => Ok(()),
            Some(first) => Err(FolderError::Missing {
                path: self.root.join(MANIFEST),
                count: 1 + missing.count(),
                first: format!("{}/{}", first.class, first.file),
            }),
        }
    }

    /// The image set of a manifest, in canonical order, normalised by its own training part. Images that `known` has
    /// are taken from there, and their files are not opened.
    ///
    /// # Errors
    /// When a class is not in the list, a picture is missing or has become another, or there are none.
    pub fn image_set(
        &self,
        manifest: &FolderManifest,
        classes: &ClassList,
        known: Option<&ImageSet>,
    ) -> Result<ImageSet, FolderError> {
        let labels = manifest.labels(classes).map_err(|error| FolderError::Class { path: self.root.clone(), error })?;
        if manifest.pictures.is_empty() {
            return Err(FolderError::Empty(self.root.clone()));
        }
        let held: BTreeMap<SampleHash, usize> =
            known.into_iter().flat_map(|set| (0..set.len()).map(|index| (set.hash(index), index))).collect();
        let unit = Normalisation { mean: [0.0; 3], deviation: [1.0; 3] };
        let mut set = ImageSet::new(classes.count(), unit)?;
        let mut faults = Vec::new();
        for entry in &manifest.pictures {
            let label = labels[entry.class.as_str()];
            match (held.get(&entry.sample), known) {
                (Some(&index), Some(known)) => set.push(label, known.image(index))?,
                _ => match self.image(entry) {
                    Ok(image) => set.push(label, &image)?,
                    Err(fault) => faults.push(fault),
                },
            }
        }
        if let Some(fault) = FolderError::of_several(faults) {
            return Err(fault);
        }
        let set = canonical(&set)?;
        let train = set.indices(crate::Part::Train);
        let shown = if train.is_empty() { set.clone() } else { set.select(&train) };
        Ok(set.with_normalisation(shown.pixel_statistics().normalisation())?)
    }

    fn image(&self, entry: &Entry) -> Result<Box<Image>, FolderError> {
        let path = self.path(&entry.class, &entry.file);
        let image = decode(&path)?;
        if SampleHash::of(&image) == entry.sample {
            return Ok(image);
        }
        let problem = format!("{} has changed since", path.display());
        Err(FolderError::Manifest { path: self.root.join(MANIFEST), problem })
    }

    /// Puts a picture into a class's folder (or among the waiting) under a name that its content gives, whole or not
    /// at all. A picture that is there already stays as it is.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, class: &str, sample: SampleHash, source: &Path) -> Result<bool, FolderError> {
        let folder = self.root.join(class);
        fs::create_dir_all(&folder).map_err(FolderError::io(&folder))?;
        let ending = source.extension().and_then(|ending| ending.to_str()).unwrap_or("png").to_ascii_lowercase();
        let place = folder.join(format!("{sample}.{ending}"));
        if place.is_file() {
            return Ok(false);
        }
        let bytes = fs::read(source).map_err(FolderError::io(source))?;
        replace(&place, &bytes)?;
        Ok(true)
    }

    /// Gives a waiting picture its label.
    ///
    /// # Errors
    /// When it is not waiting (any more), or the disk refuses.
    pub fn label(&self, waiting: &str, class: &str) -> Result<(), FolderError> {
        let source = self.incoming().join(waiting);
        let sample = SampleHash::of(&*decode(&source)?);
        self.put(class, sample, &source)?;
        fs::remove_file(&source).map_err(FolderError::io(&source))
    }

    /// Where a picture lies.
    #[must_use]
    pub fn path(&self, class: &str, file: &str) -> PathBuf {
        self.root.join(class).join(file)
    }
}

fn decode(path: &Path) -> Result<Box<Image>, FolderError> {
    picture::read(path).map_err(|error| FolderError::Picture { path: path.to_owned(), error })
}

/// Length and time of a file: what tells that it is still the same.
fn stamp(path: &Path) -> Result<(u64, u64), FolderError> {
    let data = fs::metadata(path).map_err(FolderError::io(path))?;
    let modified = data.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok((data.len(), u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX)))
}

/// Names and places of what lies in a folder, hidden files left out.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, FolderError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(FolderError::io(folder))? {
        let path = entry.map_err(FolderError::io(folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with('.') {
            entries.push((name, path));
        }
    }
    Ok(entries)
}

/// Writes a file under another name beside its place, flushed, and then gives it its name.
fn replace(place: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let name = place.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = place.with_file_name(format!(".{name}.new"));
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, place))
        .and_then(|()| File::open(place.parent().unwrap_or(Path::new(".")))?.sync_all());
    written.map_err(FolderError::io(place))
}

#[cfg(test)]
mod tests;
