//! The board's dataset, in the one form that trainer and twin read.

use std::path::Path;

use twin_data::blobs::{BlobError, Blobs};
use twin_data::cifar::{self, CifarFormat};
use twin_data::{DataError, ImageSet, digits};
use twin_shared::id::{BlobHash, DatasetVersion};
use twin_shared::wire::DatasetOffer;

use crate::config::{Dataset, DatasetFormat};

/// Why there is no dataset.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The files are not what the configuration says.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The disk refuses.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Nothing reads this format.
    #[error("dataset.format = \"folder\" cannot be read by this version: give a \"twinset\" file")]
    Folder,
}

/// Reads the dataset and puts it among the blobs as an image set. A file that is one already goes as it is.
///
/// # Errors
/// When the files are broken or the disk refuses.
pub fn load(dataset: &Dataset, blobs: &Blobs) -> Result<(DatasetOffer, BlobHash), DatasetError> {
    let set = read(dataset)?;
    let bytes = set.to_bytes();
    let blob = blobs.put(&bytes)?;
    let samples = u32::try_from(set.len()).unwrap_or(u32::MAX);
    Ok((DatasetOffer { version: DatasetVersion(blob.0), bytes: bytes.len() as u64, samples }, blob))
}

/// Reads the dataset.
///
/// # Errors
/// When the files are broken.
pub fn read(dataset: &Dataset) -> Result<ImageSet, DatasetError> {
    let path: &Path = &dataset.path;
    Ok(match dataset.format {
        DatasetFormat::Twinset => ImageSet::read(path)?,
        DatasetFormat::Digits => digits::read(path)?,
        DatasetFormat::Cifar10 => cifar::read_directory(path, CifarFormat::Cifar10)?.train,
        DatasetFormat::Cifar100 => cifar::read_directory(path, CifarFormat::Cifar100)?.train,
        DatasetFormat::Folder => return Err(DatasetError::Folder),
    })
}
