//! How well students learn: distillation, students alone and FedAvg on one split of one dataset, epoch by epoch.
//! Tables 1 and 2 and Figures 4 to 10.
//!
//! The work is a list of cells (a teacher, a student by a method on a device, a FedAvg). A finished cell is not run
//! again, and one that was interrupted goes on after its last whole epoch.

mod cell;
mod curves;
mod data;
mod machine;
mod page;
mod row;
mod tables;
pub(crate) mod work;

use std::path::PathBuf;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use twin_shared::model::Architecture;
use twin_shared::plan::{LabelKind, LabelPrecision};

use crate::train::TrainerConfig;

pub(crate) use data::Format;

/// How a student learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Method {
    /// SimKD from the teacher.
    Kd,
    /// FedAvg.
    Fl,
    /// Alone.
    Stu,
    /// The teacher alone: distils nothing.
    Teacher,
}

/// FedAvg's network after fine-tuning on each device, in rows and tables.
const TUNED: &str = "fl-tuned";

impl Method {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kd => "kd",
            Self::Fl => "fl",
            Self::Stu => "stu",
            Self::Teacher => "teacher",
        }
    }
}

impl std::str::FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Kd, Self::Fl, Self::Stu, Self::Teacher]
            .into_iter()
            .find(|method| method.name() == text)
            .ok_or_else(|| format!("unknown method `{text}`; known: kd, fl, stu, teacher"))
    }
}

/// Everything that decides the outcome; kept in the output folder, and compared before going on there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The dataset's folder.
    pub(crate) data: PathBuf,
    /// Its format.
    pub(crate) format: Format,
    /// First class and the one after the last, where not all are used.
    pub(crate) classes: Option<(u16, u16)>,
    /// How samples are spread, as on the command line.
    pub(crate) split: String,
    pub(crate) devices: u16,
    pub(crate) students: Vec<Architecture>,
    pub(crate) methods: Vec<Method>,
    /// Epochs of students; rounds of FedAvg times its local epochs.
    pub(crate) epochs: u32,
    pub(crate) batch: u32,
    pub(crate) labels: LabelKind,
    /// The number format in which labels come from files, as they do to a board; none is straight from the teacher.
    pub(crate) label_precision: Option<LabelPrecision>,
    pub(crate) teacher: Architecture,
    pub(crate) teacher_epochs: u32,
    /// Samples a twin and step; 0 is all.
    pub(crate) teacher_batch: u32,
    pub(crate) teacher_rate: f64,
    pub(crate) teacher_weights: Option<PathBuf>,
    /// Learning rates of distillation to choose from, by the twins' held-out samples.
    pub(crate) kd_rates: Vec<f64>,
    /// Those of students alone.
    pub(crate) stu_rates: Vec<f64>,
    /// FedAvg's learning rates to choose from, by the twins' held-out samples.
    pub(crate) fl_rates: Vec<f64>,
    /// And its numbers of local epochs.
    pub(crate) fl_local_epochs: Vec<u32>,
    /// Whether FedAvg's students are normalised by groups.
    pub(crate) fl_group_norm: bool,
    /// Epochs that each device tunes FedAvg's network on its own samples; 0 is none.
    pub(crate) fl_fine_tune: u32,
    /// Epochs between two scorings; the last one is always scored.
    pub(crate) score_every: u32,
    pub(crate) seed: u64,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) plan: Plan,
    pub(crate) out: PathBuf,
    pub(crate) trainer: TrainerConfig,
}

/// Runs what is left to run, and writes CSV, tables, curves and page. Gives the tables as text.
pub(crate) async fn run(request: &Request, progress: &mut dyn FnMut(&str, f64)) -> anyhow::Result<String> {
    let Request { plan, out, trainer } = request;
    let trainer = &machine::as_begun(out, trainer)?;
    std::fs::create_dir_all(out.join("cells")).with_context(|| out.display().to_string())?;
    same_plan(plan, out)?;
    let data = data::prepare(plan, &out.join("data"))?;
    let mut work = work::Work::start(trainer, out).await?;
    let machines = machine::record(out, &work.info)?;
    let counts = work.count(&data).await?;
    let cells = cell::all(plan);
    for (done, cell) in cells.iter().enumerate() {
        let mut step = |part: f64| progress(&cell.name(), (done as f64 + part) / cells.len() as f64);
        cell::run(cell, plan, &data, &counts, &mut work, &mut step).await.with_context(|| cell.name())?;
    }
    let rows = row::gather(out, &cells)?;
    let text = tables::tables(plan, &rows);
    std::fs::write(out.join("tables.txt"), &text).context("tables.txt")?;
    let drawn = curves::draw(plan, &rows, out)?;
    page::write(plan, &machines, &text, &drawn, &out.join("accuracy.html"))?;
    Ok(text)
}

/// Refuses to mix two experiments in one folder.
fn same_plan(plan: &Plan, out: &std::path::Path) -> anyhow::Result<()> {
    let path = out.join("plan.json");
    let ours = serde_json::to_string_pretty(plan)?;
    match std::fs::read_to_string(&path) {
        Ok(theirs) if serde_json::from_str::<Plan>(&theirs).ok().as_ref() == Some(plan) => Ok(()),
        Ok(_) => bail!("{} belongs to another experiment; name another --out", out.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => work::replace(&path, ours.as_bytes()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}
