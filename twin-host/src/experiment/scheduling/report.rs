//! The scheduling experiment as files and as a table: `scheduling.csv`, `scheduling.md`, convergence curves.

use super::{Outcome, Row, Trial, curve};
use anyhow::Context;
use serde::Serialize;
use std::path::Path;
use tabled::settings::Style;

/// A mean over trials and half the width of its 95 % interval (normal approximation).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Mean {
    pub(crate) mean: f64,
    pub(crate) half_width: f64,
}

impl Mean {
    pub(crate) fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let count = values.clone().count().max(1) as f64;
        let mean = values.clone().sum::<f64>() / count;
        let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        Self { mean, half_width: 1.96 * (variance / count).sqrt() }
    }

    fn shown(self, scale: f64, decimals: usize) -> String {
        format!("{:.decimals$} ± {:.decimals$}", self.mean * scale, self.half_width * scale)
    }
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    policy: String,
    /// Eq. (6) per device.
    objective: Mean,
    average_delay_s: Mean,
    teacher_s: f64,
    label_s: f64,
    student_s: f64,
    model_s: f64,
    acc_own: Mean,
    acc_avg: Mean,
    /// Fraction of devices with each student.
    students: Vec<f64>,
    local: f64,
}

impl Summary {
    /// One summary a row.
    pub(crate) fn of(outcome: &Outcome) -> Vec<Self> {
        outcome.rows.iter().map(|row| Self::of_row(row, outcome.students.len())).collect()
    }

    fn of_row(row: &Row, students: usize) -> Self {
        let over = |value: &dyn Fn(&Trial) -> f64| Mean::of(row.trials.iter().map(value));
        Self {
            policy: row.policy.clone(),
            objective: over(&|t| t.objective),
            average_delay_s: over(&|t| t.delay.total().0),
            teacher_s: over(&|t| t.delay.teacher.0).mean,
            label_s: over(&|t| t.delay.label.0).mean,
            student_s: over(&|t| t.delay.student.0).mean,
            model_s: over(&|t| t.delay.model.0).mean,
            acc_own: over(&|t| t.accuracy.own),
            acc_avg: over(&|t| t.accuracy.avg),
            students: (0..students).map(|student| over(&|t| t.students[student]).mean).collect(),
            local: over(&|t| t.local).mean,
        }
    }
}

/// The table for people, in Markdown, which reads well on a terminal too.
pub(crate) fn table(outcome: &Outcome, summaries: &[Summary]) -> String {
    let mut table = tabled::builder::Builder::default();
    let mut header = vec![
        "policy".to_owned(),
        "objective".into(),
        "delay (s)".into(),
        "teacher".into(),
        "labels".into(),
        "training".into(),
        "state".into(),
        "Acc-own (%)".into(),
        "Acc-avg (%)".into(),
    ];
    header.extend(outcome.students.iter().map(|student| format!("{student} (%)")));
    header.push("local (%)".into());
    table.push_record(header);
    for summary in summaries {
        let mut record = vec![
            summary.policy.clone(),
            summary.objective.shown(1.0, 4),
            summary.average_delay_s.shown(1.0, 2),
            format!("{:.2}", summary.teacher_s),
            format!("{:.2}", summary.label_s),
            format!("{:.2}", summary.student_s),
            format!("{:.2}", summary.model_s),
            summary.acc_own.shown(100.0, 2),
            summary.acc_avg.shown(100.0, 2),
        ];
        record.extend(summary.students.iter().map(|share| format!("{:.1}", share * 100.0)));
        record.push(format!("{:.1}", summary.local * 100.0));
        table.push_record(record);
    }
    format!("{}\n", table.build().with(Style::markdown()))
}

/// Writes every file of the experiment.
pub(crate) fn write(outcome: &Outcome, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("scheduling.csv");
    let mut csv = csv::Writer::from_path(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut header: Vec<String> =
        ["policy", "trial", "objective", "average_delay_s", "acc_own", "acc_avg"].map(String::from).to_vec();
    header.extend(outcome.students.iter().map(|student| format!("share_{student}")));
    header.extend(["share_local", "teacher_s", "label_s", "student_s", "model_s"].map(String::from));
    csv.write_record(&header)?;
    for row in &outcome.rows {
        for trial in &row.trials {
            let delay = trial.delay;
            let mut record = vec![row.policy.clone(), trial.trial.to_string()];
            let figures = [trial.objective, delay.total().0, trial.accuracy.own, trial.accuracy.avg];
            let terms = [trial.local, delay.teacher.0, delay.label.0, delay.student.0, delay.model.0];
            let all = figures.iter().chain(&trial.students).chain(&terms);
            record.extend(all.map(f64::to_string));
            csv.write_record(&record)?;
        }
    }
    csv.flush()?;
    let path = folder.join("scheduling.md");
    std::fs::write(&path, table(outcome, &Summary::of(outcome)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    for row in outcome.rows.iter().filter(|row| !row.curve.is_empty()) {
        curve::write(&row.policy, &row.curve, folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_narrows_with_the_root_of_the_trials() {
        let few = Mean::of([1.0, 3.0].into_iter().cycle().take(100));
        let many = Mean::of([1.0, 3.0].into_iter().cycle().take(10_000));
        assert_eq!(few.mean, 2.0);
        assert!((few.half_width - 0.196 * (100f64 / 99.0).sqrt()).abs() < 1e-12);
        assert!((few.half_width / many.half_width - 10.0).abs() < 0.1);
    }
}
