//! The cells of an experiment and how each is run, or gone on with.

mod choice;
mod fedavg;
mod student;
mod teacher;

use std::path::{Path, PathBuf};

use anyhow::Context;
use twin_shared::model::Architecture;
use twin_shared::pipe::Part;
use twin_shared::plan::Augmentation;

use super::data::Data;
use super::row::{About, Row};
use super::work::{Work, text};
use super::{Format, Method, Plan};

/// A part of the experiment with a file of rows of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell {
    /// The teacher over all twins.
    Teacher,
    /// One device's student by distillation or alone.
    Student { method: Method, student: Architecture, device: u16 },
    /// FedAvg over all twins.
    FedAvg { student: Architecture },
}

impl Cell {
    /// Names its files.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Teacher => "teacher".into(),
            Self::Student { method, student, device } => format!("{}-{student}-{device}", method.name()),
            Self::FedAvg { student } => format!("fl-{student}"),
        }
    }
}

/// All cells of a plan, in the order in which they are run.
pub(crate) fn all(plan: &Plan) -> Vec<Cell> {
    let taught = |method: &Method| matches!(method, Method::Kd | Method::Teacher);
    let mut cells: Vec<Cell> = plan.methods.iter().any(taught).then_some(Cell::Teacher).into_iter().collect();
    for &student in &plan.students {
        for &method in &plan.methods {
            match method {
                Method::Teacher => {}
                Method::Fl => cells.push(Cell::FedAvg { student }),
                Method::Kd | Method::Stu => {
                    cells.extend((0..plan.devices).map(|device| Cell::Student { method, student, device }));
                }
            }
        }
    }
    cells
}

/// What all cells of an experiment share.
struct Scene<'a> {
    plan: &'a Plan,
    data: &'a Data,
    counts: &'a [Vec<u32>],
    teacher: PathBuf,
}

impl Scene<'_> {
    /// Digits are not mirrored, and moved less: they fill their images.
    fn augmentation(&self) -> Augmentation {
        match self.plan.format {
            Format::Cifar100 | Format::Cifar10 | Format::Folder => Augmentation { crop_padding: 4, flip: true },
            Format::Digits => Augmentation { crop_padding: 2, flip: false },
        }
    }

    fn scored(&self, done: u32) -> bool {
        done.is_multiple_of(self.plan.score_every.max(1)) || done == self.plan.epochs
    }

    fn twins(&self) -> Vec<String> {
        self.data.devices.iter().map(|path| text(path)).collect()
    }

    /// Rows of one network for every device.
    async fn score_for_all(
        &self,
        work: &mut Work,
        method: &str,
        student: Architecture,
        weights: &Path,
        epoch: u32,
        seconds: f64,
    ) -> anyhow::Result<Vec<Row>> {
        let test = work.score(weights, None, &self.data.test, Part::All, self.counts.to_vec()).await?;
        let mut rows = Vec::new();
        for (at, dataset) in self.data.devices.iter().enumerate() {
            let train = work.score(weights, None, dataset, Part::Train, Vec::new()).await?.full_top1;
            let device = u16::try_from(at).expect("as many devices as the plan says");
            let (student, split) = (student.name(), self.plan.split.as_str());
            let about = About { method, student, split, device, epoch, seconds };
            rows.push(Row::of(about, &test, at, train));
        }
        Ok(rows)
    }
}

/// Runs a cell, unless it is finished already.
pub(crate) async fn run(
    cell: &Cell,
    plan: &Plan,
    data: &Data,
    counts: &[Vec<u32>],
    work: &mut Work,
    step: &mut dyn FnMut(f64),
) -> anyhow::Result<()> {
    let teacher = plan.teacher_weights.clone().unwrap_or_else(|| work.path("teacher.safetensors"));
    let scene = Scene { plan, data, counts, teacher };
    match *cell {
        Cell::Teacher => teacher::teach(&scene, work, step).await,
        Cell::Student { method, student, device } => student::learn(&scene, method, student, device, work, step).await,
        Cell::FedAvg { student } => fedavg::average(&scene, student, work, step).await,
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| text(path)),
        Ok(()) | Err(_) => Ok(()),
    }
}
