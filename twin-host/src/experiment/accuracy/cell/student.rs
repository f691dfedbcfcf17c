//! One device's student, by distillation or alone, an epoch a job.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use twin_shared::model::Architecture;
use twin_shared::pipe::{EpochJob, InitStudentJob, Job, LabelSource, LabelsJob, Part};
use twin_shared::plan::{EpochPlan, LabelKind, LabelPrecision, Method as Loss, Recipe};

use super::choice::{Candidate, best, held_top1, known, trial_epochs};
use super::{Cell, Scene, remove};
use crate::experiment::accuracy::Method;
use crate::experiment::accuracy::row::{self, About, Row};
use crate::experiment::accuracy::work::{Work, text, write_json};

/// Temperature and weight of the soft term of classic distillation.
const CLASSIC: Loss = Loss::Kd { temperature: 4.0, soft_weight: 0.9 };

/// Mini-batches in a file of labels.
const BLOCK: u32 = 8;

/// A student on one device with one learning rate.
struct Course<'a> {
    scene: &'a Scene<'a>,
    student: Architecture,
    loss: Loss,
    labels: LabelSource,
    device: u16,
    recipe: Recipe,
    /// Names its files.
    name: String,
}

impl<'a> Course<'a> {
    fn new(
        scene: &'a Scene<'a>,
        method: Method,
        student: Architecture,
        device: u16,
        recipe: Recipe,
        name: String,
    ) -> anyhow::Result<Self> {
        let (loss, labels) = match method {
            Method::Kd => {
                let kind = scene.plan.labels;
                let loss = match kind {
                    LabelKind::Map | LabelKind::Vector => Loss::SimKd,
                    LabelKind::Logits => CLASSIC,
                };
                (loss, LabelSource::Teacher { weights: text(&scene.teacher), kind })
            }
            Method::Stu => (Loss::CrossEntropy, LabelSource::None),
            Method::Fl | Method::Teacher => bail!("{} is no method of one device", method.name()),
        };
        Ok(Self { scene, student, loss, labels, device, recipe, name })
    }

    /// State and momentum after `epoch` epochs.
    fn files(&self, work: &Work, epoch: u32) -> (PathBuf, PathBuf) {
        let path = |kind: &str| work.path(&format!("{}.{epoch:04}.{kind}", self.name));
        (path("state"), path("momentum"))
    }

    /// The teacher whose classifier answers for the student.
    fn answers(&self) -> Option<&std::path::Path> {
        match self.loss {
            Loss::SimKd => Some(self.scene.teacher.as_path()),
            Loss::Kd { .. } | Loss::CrossEntropy => None,
        }
    }

    async fn begin(&self, work: &mut Work) -> anyhow::Result<()> {
        let init = InitStudentJob {
            architecture: self.student,
            method: self.loss,
            teacher: text(&self.scene.teacher),
            classes: self.scene.data.classes,
            seed: self.scene.plan.seed,
            out: text(&self.files(work, 0).0),
        };
        work.run(Job::InitStudent(init), &mut |_| {}).await.map(drop)
    }

    async fn epoch(&self, work: &mut Work, epoch: u32, step: &mut dyn FnMut(f64)) -> anyhow::Result<()> {
        let (from, to) = (self.files(work, epoch), self.files(work, epoch + 1));
        let plan = self.scene.plan;
        let augmentation = self.scene.augmentation();
        let batches = EpochPlan { seed: plan.seed, epoch, batch: plan.batch, augmentation };
        let labels = match (&self.labels, plan.label_precision) {
            (LabelSource::Teacher { kind, .. }, Some(precision)) => {
                self.written(work, batches, *kind, precision).await?
            }
            (labels, _) => labels.clone(),
        };
        let job = EpochJob {
            architecture: self.student,
            method: self.loss,
            state: text(&from.0),
            momentum: (epoch > 0).then(|| text(&from.1)),
            dataset: text(&self.scene.data.devices[usize::from(self.device)]),
            plan: batches,
            recipe: self.recipe,
            labels,
            state_out: text(&to.0),
            momentum_out: Some(text(&to.1)),
            compression: None,
            checkpoint: None,
        };
        work.run(Job::Epoch(job), step).await.map(drop)
    }

    /// The teacher's labels of an epoch as files, as a board gets them.
    async fn written(
        &self,
        work: &mut Work,
        plan: EpochPlan,
        kind: LabelKind,
        precision: LabelPrecision,
    ) -> anyhow::Result<LabelSource> {
        let folder = work.path(&format!("{}.labels", self.name));
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| text(&folder))?;
        }
        std::fs::create_dir(&folder).with_context(|| text(&folder))?;
        let job = LabelsJob {
            teacher: text(&self.scene.teacher),
            dataset: text(&self.scene.data.devices[usize::from(self.device)]),
            plan,
            kind,
            precision,
            batches_per_block: BLOCK,
            out: text(&folder),
        };
        work.run(Job::Labels(job), &mut |_| {}).await?;
        Ok(LabelSource::Blocks { directory: text(&folder) })
    }

    fn forget(&self, work: &Work, epoch: u32) -> anyhow::Result<()> {
        let (state, momentum) = self.files(work, epoch);
        remove(&state)?;
        remove(&momentum)
    }
}

/// Trains from the last whole epoch on, scoring as the plan says.
pub(super) async fn learn(
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
    let learning_rate = choose(scene, method, student, work).await?.learning_rate;
    let recipe = Recipe { learning_rate, ..Recipe::student(plan.epochs) };
    let course = Course::new(scene, method, student, device, recipe, name)?;
    let first = match resumed(&course, &rows, work) {
        Some(first) => first,
        None => {
            course.begin(work).await?;
            0
        }
    };
    rows.retain(|row| row.epoch <= first);
    let before = rows.last().map_or(0.0, |row| row.seconds);
    let mut training = 0.0;
    let (dataset, counts) = (&scene.data.devices[usize::from(device)], &scene.counts[usize::from(device)]);
    for epoch in first..plan.epochs {
        let start = Instant::now();
        let whole = f64::from(plan.epochs);
        course.epoch(work, epoch, &mut |part| step((f64::from(epoch) + part) / whole)).await?;
        training += start.elapsed().as_secs_f64();
        if scene.scored(epoch + 1) {
            let state = course.files(work, epoch + 1).0;
            let test = work.score(&state, course.answers(), &scene.data.test, Part::All, vec![counts.clone()]).await?;
            let train = work.score(&state, course.answers(), dataset, Part::Train, Vec::new()).await?.full_top1;
            let (student, split) = (student.name(), plan.split.as_str());
            let seconds = before + training;
            let about = About { method: method.name(), student, split, device, epoch: epoch + 1, seconds };
            rows.push(Row::of(about, &test, 0, train));
            row::write(&file, &rows)?;
        }
        course.forget(work, epoch)?;
    }
    remove(&course.files(work, plan.epochs).1)
}

/// The newest epoch of which both files are there, and its row where it should have one: what was cut off between
/// training and scoring is trained again.
fn resumed(course: &Course<'_>, rows: &[Row], work: &Work) -> Option<u32> {
    let whole = |epoch: u32| {
        let (state, momentum) = course.files(work, epoch);
        let scored = !course.scene.scored(epoch) || rows.iter().any(|row| row.epoch == epoch);
        state.exists() && (epoch == 0 || (momentum.exists() && scored))
    };
    (0..course.scene.plan.epochs).rev().find(|&epoch| whole(epoch))
}

/// Tries the method's learning rates on the first device, where there are several.
async fn choose(
    scene: &Scene<'_>,
    method: Method,
    student: Architecture,
    work: &mut Work,
) -> anyhow::Result<Candidate> {
    let rates = if method == Method::Kd { &scene.plan.kd_rates } else { &scene.plan.stu_rates };
    let fresh: Vec<Candidate> = rates.iter().map(|&rate| Candidate::new(rate, 1)).collect();
    let file = work.path(&format!("{}-{student}.choice.json", method.name()));
    let mut candidates = known(&file, fresh)?;
    if candidates.len() > 1 {
        let epochs = trial_epochs(scene.plan.epochs);
        for at in 0..candidates.len() {
            if candidates[at].held_top1.is_some() {
                continue;
            }
            let recipe = Recipe { learning_rate: candidates[at].learning_rate, ..Recipe::student(epochs) };
            let name = format!("{}-{student}.trial", method.name());
            let course = Course::new(scene, method, student, 0, recipe, name)?;
            course.begin(work).await?;
            for epoch in 0..epochs {
                course.epoch(work, epoch, &mut |_| {}).await?;
                course.forget(work, epoch)?;
            }
            let state = course.files(work, epochs).0;
            candidates[at].held_top1 = held_top1(work, scene.data, &state, course.answers()).await?;
            course.forget(work, epochs)?;
            write_json(&file, &candidates)?;
        }
    }
    best(&candidates)
}
