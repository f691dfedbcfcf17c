//! From a dataset's folder to a file a device and one to test with.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use twin_data::cifar::{CifarFormat, TrainAndTest, read_directory};
use twin_data::partition::Partition;
use twin_data::{ImageSet, Part, digits};

use super::Plan;

/// Of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Cifar100,
    Cifar10,
    Digits,
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cifar100" => Ok(Self::Cifar100),
            "cifar10" => Ok(Self::Cifar10),
            "digits" => Ok(Self::Digits),
            other => Err(format!("unknown dataset `{other}`; known: cifar100, cifar10, digits")),
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
        Format::Digits => split_digits(&digits::read(&plan.data.join("digits.csv.gz"))?),
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

/// Every fourth digit is for testing: the file has no split of its own.
fn split_digits(all: &ImageSet) -> TrainAndTest {
    let (test, train): (Vec<u32>, Vec<u32>) = all.indices(Part::All).into_iter().partition(|index| index % 4 == 3);
    TrainAndTest { train: all.select(&train), test: all.select(&test) }
}
