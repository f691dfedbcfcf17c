//! Bytes of student states against accuracy: every compression from the same start, over the same batches, for each of
//! many seeds, so that differences are of the compression alone.

mod report;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use twin_data::digits;
use twin_shared::model::Architecture;
use twin_shared::pipe::{
    CompressPlan, EpochJob, InitStudentJob, Job, LabelSource, Outcome, Part, TeacherBatch, TeacherJob,
};
use twin_shared::plan::{Augmentation, Compression, EpochPlan, LabelKind, Method, Recipe};

use super::accuracy::work::{Work, text};
use crate::train::TrainerConfig;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The file of digits.
    pub(crate) data: PathBuf,
    /// The student.
    pub(crate) student: Architecture,
    /// Its teacher.
    pub(crate) teacher: Architecture,
    /// Epochs of the teacher.
    pub(crate) teacher_epochs: u32,
    /// Seeds 1 to this one.
    pub(crate) seeds: u64,
    /// Epochs of the student, with an exchange after each.
    pub(crate) epochs: u32,
    /// Samples of each class to train on, and as many to test.
    pub(crate) per_class: usize,
    /// Samples a mini-batch.
    pub(crate) batch: u32,
    /// The student's learning rate.
    pub(crate) learning_rate: f64,
}

/// A whole request.
pub(crate) struct Request {
    /// What is compared.
    pub(crate) plan: Plan,
    /// Where everything goes; what is there already is gone on with.
    pub(crate) out: PathBuf,
    /// The trainer.
    pub(crate) trainer: TrainerConfig,
}

/// One student.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Seed of initialisation, order and augmentation.
    pub(crate) seed: u64,
    /// How its states travelled.
    pub(crate) compression: Compression,
    /// Bytes that an epoch's state took, mean over the epochs.
    pub(crate) bytes_per_epoch: f64,
    /// Right answers on the test set after the last epoch, percent.
    pub(crate) top1: f64,
}

/// Runs what is left of the comparison; the table.
///
/// # Errors
/// When data or trainer do not serve, or the folder is another experiment's.
pub(crate) async fn run(request: &Request, progress: &mut (dyn FnMut(&str, f64) + Send)) -> anyhow::Result<String> {
    let Request { plan, out, trainer } = request;
    fs::create_dir_all(out.join("cells")).with_context(|| text(out))?;
    claim(plan, out)?;
    let sets = split(plan, out)?;
    let mut work = Work::start(trainer, out).await?;
    let teacher = teach(plan, &sets[0], &mut work, progress).await?;
    let file = out.join("bytes.csv");
    let mut rows = read(&file)?;
    for seed in 1..=plan.seeds {
        for (at, compression) in Compression::ALL.into_iter().enumerate() {
            if rows.iter().any(|row| (row.seed, row.compression) == (seed, compression)) {
                continue;
            }
            let done = (seed - 1) as f64 + at as f64 / Compression::ALL.len() as f64;
            progress(&format!("seed {seed}, {}", compression.name()), done / plan.seeds as f64);
            rows.push(learn(plan, &sets, &teacher, seed, compression, &mut work).await?);
            write(&file, &rows)?;
        }
    }
    report::write(&rows, out)
}

/// A folder belongs to one plan.
fn claim(plan: &Plan, out: &Path) -> anyhow::Result<()> {
    let path = out.join("plan.json");
    let ours = serde_json::to_string_pretty(plan)?;
    match fs::read_to_string(&path) {
        Ok(theirs) if serde_json::from_str::<Plan>(&theirs).ok().as_ref() == Some(plan) => Ok(()),
        Ok(_) => bail!("{} belongs to another experiment; name another --out", out.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs::write(&path, ours).with_context(|| text(&path))
        }
        Err(error) => Err(error).with_context(|| text(&path)),
    }
}

/// Samples to train on and samples to test, the same for all.
fn split(plan: &Plan, out: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let all = digits::read(&plan.data)?;
    let classes: Vec<u16> = (0..all.classes()).collect();
    let split = digits::split(&all, &[classes.clone(), classes], plan.per_class, 1)?;
    let paths = ["train", "test"].map(|name| out.join("cells").join(name));
    for (set, path) in split.boards.iter().zip(&paths) {
        set.write(path)?;
    }
    Ok(paths)
}

/// Digits are not mirrored, and moved little: they fill their images.
const AUGMENTATION: Augmentation = Augmentation { crop_padding: 2, flip: false };
const CLASSES: u16 = 10;

async fn teach(
    plan: &Plan,
    train: &Path,
    work: &mut Work,
    progress: &mut (dyn FnMut(&str, f64) + Send),
) -> anyhow::Result<PathBuf> {
    let out = work.path("teacher.safetensors");
    if !out.is_file() {
        let job = TeacherJob {
            architecture: plan.teacher,
            classes: CLASSES,
            twins: vec![text(train)],
            recipe: Recipe::student(plan.teacher_epochs),
            batch: TeacherBatch::PerTwin(plan.batch),
            augmentation: AUGMENTATION,
            seed: 1,
            warm_start: None,
            checkpoint: Some(text(&work.path("teacher.checkpoint"))),
            out: text(&out),
        };
        work.run(Job::Teacher(job), &mut |part| progress("teacher", part * 0.01)).await?;
    }
    Ok(out)
}

/// One student of one seed, its states exchanged in this way: after each epoch both sides hold the adopted one.
async fn learn(
    plan: &Plan,
    [train, test]: &[PathBuf; 2],
    teacher: &Path,
    seed: u64,
    compression: Compression,
    work: &mut Work,
) -> anyhow::Result<Row> {
    let folder = emptied(&work.path("student"))?;
    let path = |kind: &str, epoch: u32| text(&folder.join(format!("{kind}{epoch}")));
    let init = InitStudentJob {
        architecture: plan.student,
        method: Method::SimKd,
        teacher: text(teacher),
        classes: CLASSES,
        seed,
        out: path("state", 0),
    };
    work.run(Job::InitStudent(init), &mut |_| {}).await?;
    let mut bytes = 0;
    for epoch in 0..plan.epochs {
        let compress = CompressPlan {
            compression,
            base: path("state", epoch),
            residual: (epoch > 0).then(|| path("residual", epoch)),
            residual_out: path("residual", epoch + 1),
            delta_out: path("delta", epoch + 1),
        };
        let job = EpochJob {
            architecture: plan.student,
            method: Method::SimKd,
            state: path("state", epoch),
            momentum: (epoch > 0).then(|| path("momentum", epoch)),
            dataset: text(train),
            plan: EpochPlan { seed, epoch, batch: plan.batch, augmentation: AUGMENTATION },
            recipe: Recipe { learning_rate: plan.learning_rate, ..Recipe::student(plan.epochs) },
            labels: LabelSource::Teacher { weights: text(teacher), kind: LabelKind::Vector },
            state_out: path("state", epoch + 1),
            momentum_out: Some(path("momentum", epoch + 1)),
            checkpoint: None,
            compression: (compression != Compression::None).then_some(compress),
        };
        let Outcome::Student { bytes: whole, .. } = work.run(Job::Epoch(job), &mut |_| {}).await? else {
            bail!("the trainer answered an epoch by something else");
        };
        let delta = PathBuf::from(path("delta", epoch + 1));
        bytes += if compression == Compression::None {
            whole
        } else {
            fs::metadata(&delta).with_context(|| text(&delta))?.len()
        };
    }
    let state = PathBuf::from(path("state", plan.epochs));
    let score = work.score(&state, Some(teacher), test, Part::All, Vec::new()).await?.full_top1;
    let top1 = 100.0 * score.fraction().context("the test set is empty")?;
    fs::remove_dir_all(&folder).with_context(|| text(&folder))?;
    Ok(Row { seed, compression, bytes_per_epoch: bytes as f64 / f64::from(plan.epochs), top1 })
}

/// A folder that is empty.
fn emptied(folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| text(folder))?;
    }
    fs::create_dir_all(folder).with_context(|| text(folder))?;
    Ok(folder.to_owned())
}

fn read(file: &Path) -> anyhow::Result<Vec<Row>> {
    if !file.exists() {
        return Ok(Vec::new());
    }
    let mut reader = csv::Reader::from_path(file).with_context(|| text(file))?;
    reader.deserialize().map(|row| row.with_context(|| text(file))).collect()
}

/// Beside its name first, so that what was there stays until all is.
fn write(file: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let partial = file.with_extension("part");
    let mut writer = csv::Writer::from_path(&partial).with_context(|| text(&partial))?;
    rows.iter().try_for_each(|row| writer.serialize(row))?;
    writer.flush()?;
    fs::rename(&partial, file).with_context(|| text(file))
}
