//! The cells of an experiment and how each is run, or gone on with.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use twin_shared::model::Architecture;
use twin_shared::pipe::{
    EpochJob, FedAvgJob, InitStudentJob, Job, LabelSource, Normalisation, Part, Score, TeacherBatch, TeacherJob,
};
use twin_shared::plan::{Augmentation, EpochPlan, Method as Loss, Recipe};

use super::data::Data;
use super::row::{self, About, Row};
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
    let mut cells = vec![Cell::Teacher];
    for &student in &plan.students {
        for &method in &plan.methods {
            match method {
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
            Format::Cifar100 | Format::Cifar10 => Augmentation { crop_padding: 4, flip: true },
            Format::Digits => Augmentation { crop_padding: 2, flip: false },
        }
    }

    fn scored(&self, done: u32) -> bool {
        done.is_multiple_of(self.plan.score_every.max(1)) || done == self.plan.epochs
    }

    fn twins(&self) -> Vec<String> {
        self.data.devices.iter().map(|path| text(path)).collect()
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
        Cell::Teacher => teach(&scene, work, step).await,
        Cell::Student { method, student, device } => learn(&scene, method, student, device, work, step).await,
        Cell::FedAvg { student } => average(&scene, student, work, step).await,
    }
}

async fn teach(scene: &Scene<'_>, work: &mut Work, step: &mut dyn FnMut(f64)) -> anyhow::Result<()> {
    let rows = work.path("teacher.csv");
    let needed = scene.plan.methods.contains(&Method::Kd);
    if !needed || !row::read(&rows)?.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    if scene.plan.teacher_weights.is_none() {
        let batch = match scene.plan.teacher_batch {
            0 => TeacherBatch::Full,
            batch => TeacherBatch::PerTwin(batch),
        };
        let job = TeacherJob {
            architecture: scene.plan.teacher,
            classes: scene.data.classes,
            twins: scene.twins(),
            recipe: Recipe::student(scene.plan.teacher_epochs),
            batch,
            augmentation: scene.augmentation(),
            seed: scene.plan.seed,
            checkpoint: Some(text(&work.path("teacher.checkpoint"))),
            out: text(&scene.teacher),
        };
        work.run(Job::Teacher(job), step).await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let epoch = scene.plan.teacher_epochs;
    let scored =
        score_for_all(scene, work, "teacher", scene.plan.teacher, &scene.teacher.clone(), epoch, seconds).await?;
    row::write(&rows, &scored)
}

/// Rows of one network for every device.
async fn score_for_all(
    scene: &Scene<'_>,
    work: &mut Work,
    method: &str,
    student: Architecture,
    weights: &std::path::Path,
    epoch: u32,
    seconds: f64,
) -> anyhow::Result<Vec<Row>> {
    let test = work.score(weights, None, &scene.data.test, Part::All, scene.counts.to_vec()).await?;
    let mut rows = Vec::new();
    for (at, dataset) in scene.data.devices.iter().enumerate() {
        let train = work.score(weights, None, dataset, Part::Train, Vec::new()).await?.full_top1;
        let device = u16::try_from(at).expect("as many devices as the plan says");
        let (student, split) = (student.name(), scene.plan.split.as_str());
        let about = About { method, student, split, device, epoch, seconds };
        rows.push(Row::of(about, &test, at, train));
    }
    Ok(rows)
}

/// A device's student, from its last whole epoch on.
async fn learn(
    scene: &Scene<'_>,
    method: Method,
    student: Architecture,
    device: u16,
    work: &mut Work,
    step: &mut dyn FnMut(f64),
) -> anyhow::Result<()> {
    let plan = scene.plan;
    let name = Cell::Student { method, student, device }.name();
    let file = work.path(&format!("{name}.csv"));
    let mut rows = row::read(&file)?;
    if rows.last().is_some_and(|row| row.epoch == plan.epochs) {
        return Ok(());
    }
    let state = |epoch: u32| work_path(work, &name, epoch, "state");
    let momentum = |epoch: u32| work_path(work, &name, epoch, "momentum");
    // The newest epoch of which both files are there.
    let mut done = (0..plan.epochs).rev().find(|&e| state(e).exists() && (e == 0 || momentum(e).exists()));
    let (loss, labels) = match method {
        Method::Kd => (Loss::SimKd, LabelSource::Teacher { weights: text(&scene.teacher), kind: plan.labels }),
        Method::Stu => (Loss::CrossEntropy, LabelSource::None),
        Method::Fl => bail!("FedAvg is no method of one device"),
    };
    let paths: Vec<(PathBuf, PathBuf)> = (0..=plan.epochs).map(|e| (state(e), momentum(e))).collect();
    if done.is_none() {
        let init = InitStudentJob {
            architecture: student,
            method: loss,
            teacher: text(&scene.teacher),
            classes: scene.data.classes,
            seed: plan.seed,
            out: text(&paths[0].0),
        };
        work.run(Job::InitStudent(init), &mut |_| {}).await?;
        done = Some(0);
    }
    let first = done.unwrap_or(0);
    rows.retain(|row| row.epoch <= first);
    let before = rows.last().map_or(0.0, |row| row.seconds);
    let mut training = 0.0;
    let (dataset, counts) = (&scene.data.devices[usize::from(device)], &scene.counts[usize::from(device)]);
    for epoch in first..plan.epochs {
        let start = Instant::now();
        let (from, to) = (&paths[epoch as usize], &paths[epoch as usize + 1]);
        let job = EpochJob {
            architecture: student,
            method: loss,
            state: text(&from.0),
            momentum: (epoch > 0).then(|| text(&from.1)),
            dataset: text(dataset),
            plan: EpochPlan { seed: plan.seed, epoch, batch: plan.batch, augmentation: scene.augmentation() },
            recipe: Recipe::student(plan.epochs),
            labels: labels.clone(),
            state_out: text(&to.0),
            momentum_out: Some(text(&to.1)),
            checkpoint: None,
            compression: None,
        };
        let whole = f64::from(plan.epochs);
        work.run(Job::Epoch(job), &mut |part| step((f64::from(epoch) + part) / whole)).await?;
        training += start.elapsed().as_secs_f64();
        if scene.scored(epoch + 1) {
            let teacher = (method == Method::Kd).then_some(scene.teacher.as_path());
            let test = work.score(&to.0, teacher, &scene.data.test, Part::All, vec![counts.clone()]).await?;
            let train = work.score(&to.0, teacher, dataset, Part::Train, Vec::new()).await?.full_top1;
            let (student, split) = (student.name(), plan.split.as_str());
            let seconds = before + training;
            let about = About { method: method.name(), student, split, device, epoch: epoch + 1, seconds };
            rows.push(Row::of(about, &test, 0, train));
            row::write(&file, &rows)?;
        }
        for old in [&from.0, &from.1] {
            remove(old)?;
        }
    }
    remove(&paths[plan.epochs as usize].1)
}

fn work_path(work: &Work, name: &str, epoch: u32, kind: &str) -> PathBuf {
    work.path(&format!("{name}.{epoch:04}.{kind}"))
}

fn remove(path: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).with_context(|| text(path)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// FedAvg's own learning rate and number of local epochs.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
struct Choice {
    learning_rate: f64,
    local_epochs: u32,
    /// Percent right on the twins' held-out samples after a quarter of the epochs; none when there was no choice.
    held_top1: Option<f64>,
}

fn fedavg_job(scene: &Scene<'_>, student: Architecture, choice: Choice, rounds: u32, all: u32) -> FedAvgJob {
    let normalisation = if scene.plan.fl_group_norm { Normalisation::Group } else { Normalisation::Batch };
    FedAvgJob {
        architecture: student,
        classes: scene.data.classes,
        twins: scene.twins(),
        rounds,
        local_epochs: choice.local_epochs,
        recipe: Recipe { learning_rate: choice.learning_rate, ..Recipe::student(all) },
        normalisation,
        batch: scene.plan.batch,
        augmentation: scene.augmentation(),
        fine_tune_epochs: 0,
        seed: scene.plan.seed,
        checkpoint: None,
        out: String::new(),
    }
}

/// Tries every pair for a quarter of the epochs and takes the best on held-out samples, which nobody trains on.
async fn choose(scene: &Scene<'_>, student: Architecture, work: &mut Work) -> anyhow::Result<Choice> {
    let file = work.path(&format!("fl-{student}.choice.json"));
    if let Ok(written) = std::fs::read_to_string(&file) {
        return serde_json::from_str(&written).with_context(|| text(&file));
    }
    let pairs = scene.plan.fl_rates.iter().flat_map(|&learning_rate| {
        let pair = move |&local_epochs: &u32| Choice { learning_rate, local_epochs, held_top1: None };
        scene.plan.fl_local_epochs.iter().map(pair)
    });
    let mut pairs: Vec<Choice> = pairs.collect();
    if pairs.len() > 1 {
        for pair in &mut pairs {
            let rounds = (scene.plan.epochs / 4 / pair.local_epochs).max(1);
            let out = work.path(&format!("fl-{student}.trial"));
            let job = FedAvgJob { out: text(&out), ..fedavg_job(scene, student, *pair, rounds, rounds) };
            work.run(Job::FedAvg(job), &mut |_| {}).await?;
            let mut held = Score::default();
            for dataset in &scene.data.devices {
                let score = work.score(&out, None, dataset, Part::Held, Vec::new()).await?.full_top1;
                held = Score { correct: held.correct + score.correct, total: held.total + score.total };
            }
            pair.held_top1 = held.fraction().map(|fraction| 100.0 * fraction);
            remove(&out)?;
        }
    }
    let best = |choice: &Choice| choice.held_top1.unwrap_or(0.0);
    let chosen = pairs.into_iter().reduce(|a, b| if best(&b) > best(&a) { b } else { a });
    let chosen = chosen.context("FedAvg needs at least one learning rate and one number of local epochs")?;
    std::fs::write(&file, serde_json::to_string_pretty(&chosen)?).with_context(|| text(&file))?;
    Ok(chosen)
}

/// FedAvg, a round at a time from its checkpoint on.
async fn average(
    scene: &Scene<'_>,
    student: Architecture,
    work: &mut Work,
    step: &mut dyn FnMut(f64),
) -> anyhow::Result<()> {
    let name = Cell::FedAvg { student }.name();
    let file = work.path(&format!("{name}.csv"));
    let mut rows = row::read(&file)?;
    let choice = choose(scene, student, work).await?;
    let rounds = (scene.plan.epochs / choice.local_epochs).max(1);
    let mut training = rows.last().map_or(0.0, |row| row.seconds);
    let scored = rows.last().map_or(0, |row| row.epoch / choice.local_epochs);
    for round in scored + 1..=rounds {
        let start = Instant::now();
        let out = work.path(&format!("{name}.safetensors"));
        let job = FedAvgJob {
            checkpoint: Some(text(&work.path(&format!("{name}.checkpoint")))),
            out: text(&out),
            ..fedavg_job(scene, student, choice, round, rounds)
        };
        work.run(Job::FedAvg(job), &mut |_| {}).await?;
        training += start.elapsed().as_secs_f64();
        let epoch = round * choice.local_epochs;
        if scene.scored(epoch) || round == rounds {
            rows.extend(score_for_all(scene, work, "fl", student, &out, epoch, training).await?);
            row::write(&file, &rows)?;
        }
        step(f64::from(round) / f64::from(rounds));
    }
    Ok(())
}
