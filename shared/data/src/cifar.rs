//! The binary formats of CIFAR-100 (coarse label, fine label, planes) and CIFAR-10 (label, planes).

use std::path::Path;

use crate::error::DataError;
use crate::image_set::{IMAGE_BYTES, Image, ImageSet, read_bounded};
use crate::normalisation::Normalisation;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CifarFormat {
    /// `train.bin`, `test.bin`: coarse label (unused here), fine label, 3,072 bytes.
    Cifar100,
    /// `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin`: label, 3,072 bytes.
    Cifar10,
}

impl CifarFormat {
    const fn label_bytes(self) -> usize {
        match self {
            Self::Cifar100 => 2,
            Self::Cifar10 => 1,
        }
    }

    const fn most_classes(self) -> u16 {
        match self {
            Self::Cifar100 => 100,
            Self::Cifar10 => 10,
        }
    }
}

/// A training and a test set with the training set's normalisation.
#[derive(Debug)]
pub struct TrainAndTest {
    /// For training and validation.
    pub train: ImageSet,
    /// Never looked at before the end.
    pub test: ImageSet,
}

/// Reads a directory. The number of classes is the number of lines in `fine_label_names.txt` where CIFAR-100's
/// format has one (other data in the same format may have fewer than 100), else 100 or 10.
///
/// # Errors
/// When a file is missing, cut short or has a label out of range, or a class has no samples.
pub fn read_directory(directory: &Path, format: CifarFormat) -> Result<TrainAndTest, DataError> {
    let (train_files, test_file): (Vec<String>, _) = match format {
        CifarFormat::Cifar100 => (vec!["train.bin".into()], "test.bin"),
        CifarFormat::Cifar10 => ((1..=5).map(|n| format!("data_batch_{n}.bin")).collect(), "test_batch.bin"),
    };
    let classes = class_count(directory, format)?;
    let mut train = blank(classes)?;
    for name in train_files {
        let path = directory.join(name);
        append(&mut train, format, &read_bounded(&path)?, &path.display().to_string())?;
    }
    let mut test = blank(classes)?;
    let path = directory.join(test_file);
    append(&mut test, format, &read_bounded(&path)?, &path.display().to_string())?;
    train.require_every_class()?;
    test.require_every_class()?;
    let normalisation = train.pixel_statistics().normalisation();
    Ok(TrainAndTest { train: train.with_normalisation(normalisation)?, test: test.with_normalisation(normalisation)? })
}

fn blank(classes: u16) -> Result<ImageSet, DataError> {
    // Replaced by the training set's own once that is read.
    let unit = Normalisation { mean: [0.0; 3], deviation: [1.0; 3] };
    ImageSet::new(classes, unit)
}

fn class_count(directory: &Path, format: CifarFormat) -> Result<u16, DataError> {
    let names = directory.join("fine_label_names.txt");
    if format == CifarFormat::Cifar10 || !names.exists() {
        return Ok(format.most_classes());
    }
    let text = read_bounded(&names)?;
    let lines = String::from_utf8_lossy(&text).lines().filter(|line| !line.trim().is_empty()).count();
    match u16::try_from(lines) {
        Ok(classes @ 1..=256) => Ok(classes),
        Ok(_) | Err(_) => Err(DataError::Line {
            what: "fine_label_names.txt",
            line: lines,
            problem: "a label of one byte allows 1 to 256 classes".into(),
        }),
    }
}

/// Adds every record of a file's bytes to a set.
///
/// # Errors
/// When they are no whole number of records or none, or a label is out of range.
pub fn append(set: &mut ImageSet, format: CifarFormat, bytes: &[u8], what: &str) -> Result<(), DataError> {
    let labels = format.label_bytes();
    let record = labels + IMAGE_BYTES;
    if bytes.is_empty() {
        return Err(DataError::Empty(what.to_owned()));
    }
    if !bytes.len().is_multiple_of(record) {
        return Err(DataError::Length {
            what: what.to_owned(),
            expected: bytes.len().next_multiple_of(record) as u64,
            actual: bytes.len() as u64,
        });
    }
    for record in bytes.chunks_exact(record) {
        let (label, image) = record.split_at(labels);
        let image: &Image = image.try_into().expect("a record holds an image");
        set.push(label[labels - 1].into(), image)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn records(labels: &[u8]) -> Vec<u8> {
        labels
            .iter()
            .flat_map(|&label| [0, label].into_iter().chain(std::iter::repeat_n(label * 10, IMAGE_BYTES)))
            .collect()
    }

    fn directory(train: &[u8], test: &[u8], names: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("train.bin"), train).unwrap();
        fs::write(dir.path().join("test.bin"), test).unwrap();
        fs::write(dir.path().join("fine_label_names.txt"), names).unwrap();
        dir
    }

    #[test]
    fn a_directory_is_read() {
        let dir = directory(&records(&[0, 1, 2, 1]), &records(&[2, 1, 0]), "a\nb\nc\n");
        let both = read_directory(dir.path(), CifarFormat::Cifar100).unwrap();
        assert_eq!(both.train.label_counts(), [1, 2, 1]);
        assert_eq!(both.test.len(), 3);
        assert_eq!(both.train.image(2)[0], 20);
        assert_eq!(both.train.normalisation(), both.test.normalisation());
        assert!((both.train.normalisation().mean[0] - 10.0 / 255.0).abs() < 1e-6);
    }

    #[test]
    fn bad_files_are_named() {
        let good = records(&[0, 1]);
        let cut = directory(&good[..good.len() - 1], &good, "a\nb\n");
        let error = read_directory(cut.path(), CifarFormat::Cifar100).unwrap_err();
        assert!(matches!(error, DataError::Length { .. }) && error.to_string().contains("train.bin"), "{error}");
        let label = directory(&records(&[0, 7]), &good, "a\nb\n");
        assert!(matches!(
            read_directory(label.path(), CifarFormat::Cifar100),
            Err(DataError::LabelOutOfRange { index: 1, label: 7, classes: 2 })
        ));
        let empty_class = directory(&good, &good, "a\nb\nc\n");
        assert!(matches!(
            read_directory(empty_class.path(), CifarFormat::Cifar100),
            Err(DataError::EmptyClass { class: 2 })
        ));
        let none = directory(&[], &good, "a\nb\n");
        assert!(matches!(read_directory(none.path(), CifarFormat::Cifar100), Err(DataError::Empty(_))));
        assert!(matches!(read_directory(none.path(), CifarFormat::Cifar10), Err(DataError::Io { .. })));
    }
}
