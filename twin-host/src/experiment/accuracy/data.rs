//! From a dataset's folder to a file a device and one to test with.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use twin_data::cifar::{CifarFormat, TrainAndTest, read_directory};
use twin_data::partition::Partition;
use twin_data::{ImageSet, Part, digits, folder};

use super::Plan;

/// Of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Cifar100,
    Cifar10,
    Digits,
    Folder,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cifar100" => Ok(Self::Cifar100),
            "cifar10" => Ok(Self::Cifar10),
            "digits" => Ok(Self::Digits),
            "folder" => Ok(Self::Folder),
            other => Err(format!("unknown dataset `{other}`; known: cifar100, cifar10, digits, folder")),
        }
    }
}

/// Files of an experiment's split.
#[derive(Debug, Clone)]
pub(crate) struct Data {
    pub(crate) devices: Vec<PathBuf>,
    pub(crate) test: PathBuf,
    pub(crate) classes: u16,
}

/// Writes the split, or finds it written.
pub(crate) fn prepare(plan: &Plan, folder: &Path) -> anyhow::Result<Data> {
    let TrainAndTest { train, test } = read(plan)?;
    let data = Data {
        devices: (0..plan.devices).map(|device| folder.join(format!("device{device}.twinset"))).collect(),
        test: folder.join("test.twinset"),
        classes: train.classes(),
    };
    if data.test.exists() {
        return Ok(data);
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let partition: Partition = plan.split.parse()?;
    let labels: Vec<u16> = (0..train.len()).map(|index| train.label(index)).collect();
    let parts = partition.split(&labels, train.classes(), plan.devices.into(), plan.seed)?;
    for (path, part) in data.devices.iter().zip(parts) {
        train.select(&part).write(path)?;
    }
    // Written last: its presence says that all the others are there.
    test.write(&data.test)?;
    Ok(data)
}

fn read(plan: &Plan) -> anyhow::Result<TrainAndTest> {
    let both = match plan.format {
        Format::Cifar100 => read_directory(&plan.data, CifarFormat::Cifar100)?,
        Format::Cifar10 => read_directory(&plan.data, CifarFormat::Cifar10)?,
        Format::Digits => every_fourth(&digits::read(&plan.data.join("digits.csv.gz"))?),
        Format::Folder => read_folder(&plan.data)?,
    };
    let Some((from, to)) = plan.classes else { return Ok(both) };
    let train = both.train.class_range(from, to).context("training images")?;
    let normalisation = train.pixel_statistics().normalisation();
    let test = both.test.class_range(from, to).context("test images")?;
    if train.is_empty() || test.is_empty() {
        bail!("classes {from}..{to} leave nothing to train or test on");
    }
    Ok(TrainAndTest { train: train.with_normalisation(normalisation)?, test: test.with_normalisation(normalisation)? })
}

/// Folders of pictures a class: below `train/` and `test/` where there are both, else all in one place.
fn read_folder(root: &Path) -> anyhow::Result<TrainAndTest> {
    let (train, test) = (root.join("train"), root.join("test"));
    let both = if train.is_dir() && test.is_dir() {
        let (set, classes) = folder::read(&train)?;
        let (test_set, test_classes) = folder::read(&test)?;
        let one_sided = classes.iter().find(|name| !test_classes.contains(name));
        if let Some(name) = one_sided.or_else(|| test_classes.iter().find(|name| !classes.contains(name))) {
            bail!("{}: class `{name}` is in one of train/ and test/ only", root.display());
        }
        TrainAndTest { train: set, test: test_set }
    } else {
        every_fourth(&folder::read(root)?.0)
    };
    let normalisation = both.train.pixel_statistics().normalisation();
    Ok(TrainAndTest {
        train: both.train.with_normalisation(normalisation)?,
        test: both.test.with_normalisation(normalisation)?,
    })
}

/// Every fourth image is for testing, where a dataset has no split of its own.
fn every_fourth(all: &ImageSet) -> TrainAndTest {
    let (test, train): (Vec<u32>, Vec<u32>) = all.indices(Part::All).into_iter().partition(|index| index % 4 == 3);
    TrainAndTest { train: all.select(&train), test: all.select(&test) }
}

#[cfg(test)]
mod tests {
    use twin_data::picture;

    use super::*;

    /// So many pictures of a class below a folder, each another.
    fn paint(folder: &Path, class: &str, pictures: u8) {
        std::fs::create_dir_all(folder.join(class)).unwrap();
        for k in 0..pictures {
            let mut image = [0; twin_data::IMAGE_BYTES];
            for (at, byte) in image.iter_mut().enumerate() {
                *byte = (at as u8).wrapping_mul(k + 1) ^ class.as_bytes()[0];
            }
            std::fs::write(folder.join(class).join(format!("{k}.png")), picture::to_png(&image).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_folder_without_a_split_tests_with_a_fourth() {
        let root = tempfile::tempdir().unwrap();
        paint(root.path(), "cat", 9);
        paint(root.path(), "dog", 11);
        let TrainAndTest { train, test } = read_folder(root.path()).unwrap();
        assert_eq!((train.len(), test.len(), train.classes(), test.classes()), (15, 5, 2, 2));
        assert_eq!(train.normalisation(), test.normalisation());
        assert!((0..test.len()).all(|k| (0..train.len()).all(|j| train.hash(j) != test.hash(k))));
    }

    #[test]
    fn a_folder_with_a_split_keeps_it_and_its_classes() {
        let root = tempfile::tempdir().unwrap();
        for (part, pictures) in [("train", 6), ("test", 2)] {
            paint(&root.path().join(part), "cat", pictures);
            paint(&root.path().join(part), "dog", pictures);
        }
        let TrainAndTest { train, test } = read_folder(root.path()).unwrap();
        assert_eq!((train.len(), test.len(), train.classes()), (12, 4, 2));
        paint(&root.path().join("test"), "emu", 1);
        let error = read_folder(root.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains("`emu`"), "{error}");
    }
}
