//! FedAvg over all twins, a round a job, with its own choice of learning rate and local epochs, and what fine-tuning
//! on each device makes of it.

use std::time::Instant;

use twin_shared::model::Architecture;
use twin_shared::pipe::{FedAvgJob, Job, Normalisation, Part};
use twin_shared::plan::Recipe;

use super::choice::{Candidate, best, held_top1, known, trial_epochs};
use super::{Cell, Scene, remove};
use crate::experiment::accuracy::TUNED;
use crate::experiment::accuracy::row::{self, About, Row};
use crate::experiment::accuracy::work::{Work, text, write_json};

fn job(scene: &Scene<'_>, student: Architecture, choice: Candidate, rounds: u32, all: u32) -> FedAvgJob {
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

/// Tries every pair of learning rate and local epochs, where there are several.
async fn choose(scene: &Scene<'_>, student: Architecture, work: &mut Work) -> anyhow::Result<Candidate> {
    let file = work.path(&format!("fl-{student}.choice.json"));
    let pairs = scene.plan.fl_rates.iter().flat_map(|&learning_rate| {
        scene.plan.fl_local_epochs.iter().map(move |&local_epochs| Candidate::new(learning_rate, local_epochs))
    });
    let mut candidates = known(&file, pairs.collect())?;
    if candidates.len() > 1 {
        for at in 0..candidates.len() {
            if candidates[at].held_top1.is_some() {
                continue;
            }
            let pair = candidates[at];
            let rounds = (trial_epochs(scene.plan.epochs) / pair.local_epochs).max(1);
            let out = work.path(&format!("fl-{student}.trial"));
            let job = FedAvgJob { out: text(&out), ..job(scene, student, pair, rounds, rounds) };
            work.run(Job::FedAvg(job), &mut |_| {}).await?;
            candidates[at].held_top1 = held_top1(work, scene.data, &out, None).await?;
            remove(&out)?;
            write_json(&file, &candidates)?;
        }
    }
    best(&candidates)
}

/// Trains a round at a time from the checkpoint on; after the last one every device tunes its own copy.
pub(super) async fn average(
    scene: &Scene<'_>,
    student: Architecture,
    work: &mut Work,
    step: &mut dyn FnMut(f64),
) -> anyhow::Result<()> {
    let plan = scene.plan;
    let name = Cell::FedAvg { student }.name();
    let file = work.path(&format!("{name}.csv"));
    let mut rows = row::read(&file)?;
    let tunes = plan.fl_fine_tune > 0;
    if rows.last().is_some_and(|row| row.method == TUNED) {
        return Ok(());
    }
    let choice = choose(scene, student, work).await?;
    let rounds = (plan.epochs / choice.local_epochs).max(1);
    let out = work.path(&format!("{name}.safetensors"));
    let kept = |round: u32| FedAvgJob {
        checkpoint: Some(text(&work.path(&format!("{name}.checkpoint")))),
        out: text(&out),
        ..job(scene, student, choice, round, rounds)
    };
    let mut training = rows.last().map_or(0.0, |row| row.seconds);
    let scored = rows.last().map_or(0, |row| row.epoch / choice.local_epochs);
    let jobs: Vec<FedAvgJob> = (scored + 1..=rounds).map(kept).collect();
    let tuning = FedAvgJob { fine_tune_epochs: plan.fl_fine_tune, ..kept(rounds) };
    for (round, job) in (scored + 1..=rounds).zip(jobs) {
        let start = Instant::now();
        work.run(Job::FedAvg(job), &mut |_| {}).await?;
        training += start.elapsed().as_secs_f64();
        let epoch = round * choice.local_epochs;
        if scene.scored(epoch) || round == rounds {
            rows.extend(scene.score_for_all(work, "fl", student, &out, epoch, training).await?);
            row::write(&file, &rows)?;
        }
        step(f64::from(round) / f64::from(rounds));
    }
    if tunes {
        let start = Instant::now();
        work.run(Job::FedAvg(tuning), &mut |_| {}).await?;
        training += start.elapsed().as_secs_f64();
        for (device, (dataset, counts)) in (0u16..).zip(scene.data.devices.iter().zip(scene.counts)) {
            let own = work.path(&format!("{name}.safetensors.{device}"));
            let test = work.score(&own, None, &scene.data.test, Part::All, vec![counts.clone()]).await?;
            let train = work.score(&own, None, dataset, Part::Train, Vec::new()).await?.full_top1;
            let epoch = rounds * choice.local_epochs + plan.fl_fine_tune;
            let (student, split) = (student.name(), plan.split.as_str());
            let about = About { method: TUNED, student, split, device, epoch, seconds: training };
            rows.push(Row::of(about, &test, 0, train));
            remove(&own)?;
        }
        row::write(&file, &rows)?;
    }
    Ok(())
}
