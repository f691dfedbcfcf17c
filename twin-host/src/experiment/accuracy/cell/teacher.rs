//! The teacher: FedSGD over all twins, or weights that were given.

use std::time::Instant;

use twin_shared::pipe::{Job, TeacherBatch, TeacherJob};
use twin_shared::plan::Recipe;

use super::Scene;
use crate::experiment::accuracy::row;
use crate::experiment::accuracy::work::{Work, text};

/// Trains it, from its checkpoint on, and scores it for every device.
pub(super) async fn teach(scene: &Scene<'_>, work: &mut Work, step: &mut dyn FnMut(f64)) -> anyhow::Result<()> {
    let plan = scene.plan;
    let rows = work.path("teacher.csv");
    if !row::read(&rows)?.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    if plan.teacher_weights.is_none() {
        let batch = match plan.teacher_batch {
            0 => TeacherBatch::Full,
            batch => TeacherBatch::PerTwin(batch),
        };
        let job = TeacherJob {
            architecture: plan.teacher,
            classes: scene.data.classes,
            twins: scene.twins(),
            recipe: Recipe { learning_rate: plan.teacher_rate, ..Recipe::student(plan.teacher_epochs) },
            batch,
            augmentation: scene.augmentation(),
            seed: plan.seed,
            warm_start: None,
            checkpoint: Some(text(&work.path("teacher.checkpoint"))),
            out: text(&scene.teacher),
        };
        work.run(Job::Teacher(job), step).await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let epoch = if plan.teacher_weights.is_none() { plan.teacher_epochs } else { 0 };
    let scored = scene.score_for_all(work, "teacher", plan.teacher, &scene.teacher, epoch, seconds).await?;
    row::write(&rows, &scored)
}
