//! The rows of `accuracy.csv`, kept a file a cell until the end.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use twin_shared::pipe::{Evaluation, Score};

use super::cell::Cell;
use super::work::replace;

/// One scoring of one student for one device. Percentages; empty where there was nothing to count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) method: String,
    pub(crate) student: String,
    pub(crate) split: String,
    pub(crate) device: u16,
    /// Epochs done.
    pub(crate) epoch: u32,
    pub(crate) private_top1: Option<f64>,
    pub(crate) private_top5: Option<f64>,
    pub(crate) private_top1_personal: Option<f64>,
    pub(crate) unseen_top1: Option<f64>,
    pub(crate) full_top1: Option<f64>,
    pub(crate) full_top5: Option<f64>,
    pub(crate) train_top1: Option<f64>,
    /// Wall time of training since the cell began.
    pub(crate) seconds: f64,
}

/// What a row is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) method: &'a str,
    pub(crate) student: &'a str,
    pub(crate) split: &'a str,
    pub(crate) device: u16,
    pub(crate) epoch: u32,
    pub(crate) seconds: f64,
}

impl Row {
    /// Of the scores on the test set, `at` their place among its devices, and on the device's training samples.
    pub(crate) fn of(about: About<'_>, test: &Evaluation, at: usize, train: Score) -> Self {
        let percent = |score: Score| score.fraction().map(|fraction| 100.0 * fraction);
        let device = test.devices.get(at).copied().unwrap_or_default();
        Self {
            method: about.method.to_owned(),
            student: about.student.to_owned(),
            split: about.split.to_owned(),
            device: about.device,
            epoch: about.epoch,
            private_top1: percent(device.private_top1),
            private_top5: percent(device.private_top5),
            private_top1_personal: percent(device.private_personal),
            unseen_top1: percent(device.unseen_top1),
            full_top1: percent(test.full_top1),
            full_top5: percent(test.full_top5),
            train_top1: percent(train),
            seconds: about.seconds,
        }
    }
}

/// The rows of a file; none where there is no file. A row that a crash cut off is dropped, as its epoch is run again.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Row>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).from_path(path).with_context(|| path.display().to_string())?;
    Ok(reader.deserialize().map_while(Result::ok).collect())
}

/// Replaces a file's rows, whole or not at all.
pub(crate) fn write(path: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    replace(path, &writer.into_inner().context("rows in memory")?)
}

/// Gathers all cells' rows into `accuracy.csv`.
pub(crate) fn gather(out: &Path, cells: &[Cell]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for cell in cells {
        rows.extend(read(&out.join("cells").join(format!("{}.csv", cell.name())))?);
    }
    write(&out.join("accuracy.csv"), &rows)?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::pipe::DeviceScores;

    #[test]
    fn rows_read_back_and_a_cut_one_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        let score = |correct, total| Score { correct, total };
        let evaluation = Evaluation {
            full_top1: score(3, 4),
            full_top5: score(4, 4),
            devices: vec![DeviceScores { private_top1: score(1, 2), ..DeviceScores::default() }],
        };
        let about = About { method: "kd", student: "vgg8", split: "iid", device: 1, epoch: 2, seconds: 0.5 };
        let row = Row::of(about, &evaluation, 0, Score::default());
        assert_eq!((row.full_top1, row.private_top1, row.unseen_top1), (Some(75.0), Some(50.0), None));
        let rows = vec![row.clone(), Row { epoch: 3, ..row }];
        write(&path, &rows).unwrap();
        assert_eq!(read(&path).unwrap(), rows);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 12]).unwrap();
        assert_eq!(read(&path).unwrap(), rows[..1]);
        assert_eq!(read(&folder.path().join("none")).unwrap(), []);
    }
}
