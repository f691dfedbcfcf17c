//! The result as CSV, for programs.

use super::super::result::{BoardResult, DemoResult, MethodScores};
use super::comparison::{Measure, Method, Share};
use anyhow::Context;
use std::path::Path;

/// Columns of `demo.csv` before the scores: what each row is about.
///
/// `student` is empty for FedAvg, which averages one network for all boards, not each board's own. `classes` is
/// `class:training samples` of every class held, joined by `;`.
const SUBJECT: [&str; 8] =
    ["seed", "policy", "board", "method", "student", "frequency_ghz", "link_bits_per_second", "classes"];

/// Columns of `demo.csv` that hold for distillation only, and are empty in the rows of the other methods: the
/// decision (f and b), the delays of an epoch (seconds, mean over epochs; predicted term by term, then their sum,
/// then with overlap; then as measured), and the payload bytes from and to the board.
const DECIDED: [&str; 14] = [
    "site",
    "frequency_given_ghz",
    "bandwidth_hz",
    "teacher_s",
    "label_s",
    "student_s",
    "model_s",
    "predicted_s",
    "pipelined_s",
    "training_s",
    "transfer_s",
    "measured_s",
    "bytes_up",
    "bytes_down",
];

/// Columns of `demo-epochs.csv` before the scores: `loss` of the distillation, `measured_s` as in `demo.csv`.
const EPOCH: [&str; 4] = ["board", "epoch", "loss", "measured_s"];

/// Writes `demo.csv`, a row for each board and method, and `demo-epochs.csv`, a row for each board and epoch, into
/// a folder.
///
/// Scores in `demo.csv` are percentages, each as `NAME`, `NAME_low` and `NAME_high` (95 % Wilson interval) and
/// `NAME_total` (test images). In `demo-epochs.csv` they are `distilled_NAME` and `alone_NAME`. `NAME` is as in
/// `accuracy.csv`: `private_top1`, `private_top1_personal`, `full_top1`, `unseen_top1`, `private_top5`, `full_top5`.
/// What was not scored is empty.
///
/// # Errors
///
/// If the folder cannot be made, or a file not written; the error names it.
pub(crate) fn csv(result: &DemoResult, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write(&folder.join("demo.csv"), &methods(result))?;
    write(&folder.join("demo-epochs.csv"), &epochs(result))
}

fn write(path: &Path, records: &[Vec<String>]) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let mut file = csv::Writer::from_path(path).with_context(failed)?;
    for record in records {
        file.write_record(record).with_context(failed)?;
    }
    file.flush().with_context(failed)
}

fn methods(result: &DemoResult) -> Vec<Vec<String>> {
    let scores = Measure::ALL.iter().flat_map(|m| ["", "_low", "_high", "_total"].map(|end| m.key().to_owned() + end));
    let mut records = vec![SUBJECT.into_iter().chain(DECIDED).map(String::from).chain(scores).collect::<Vec<_>>()];
    for board in &result.boards {
        for method in Method::ALL {
            let mut record = subject(result, board, method).to_vec();
            match method {
                Method::Distilled => record.extend(decided(board)),
                Method::Alone | Method::FedAvg => record.extend(DECIDED.map(|_| String::new())),
            }
            for measure in Measure::ALL {
                let score = measure.of(method.scores(board));
                record.extend(Share::of(score).map_or_else(
                    || [const { String::new() }; 3],
                    |share| [share.percent, share.low, share.high].map(|figure| figure.to_string()),
                ));
                record.push(score.total.to_string());
            }
            records.push(record);
        }
    }
    records
}

fn subject(result: &DemoResult, board: &BoardResult, method: Method) -> [String; SUBJECT.len()] {
    let classes: Vec<String> = board.classes.iter().map(|(class, samples)| format!("{class}:{samples}")).collect();
    let student = match method {
        Method::Distilled | Method::Alone => board.student.clone(),
        Method::FedAvg => String::new(),
    };
    [
        result.seed.to_string(),
        result.policy.clone(),
        board.name.clone(),
        method.key().to_owned(),
        student,
        board.frequency_ghz.to_string(),
        board.link_bits_per_second.to_string(),
        classes.join(";"),
    ]
}

fn decided(board: &BoardResult) -> [String; DECIDED.len()] {
    let delay = &board.delay;
    [
        board.site.clone(),
        board.frequency_given_ghz.to_string(),
        board.bandwidth_hz.to_string(),
        delay.teacher_s.to_string(),
        delay.label_s.to_string(),
        delay.student_s.to_string(),
        delay.model_s.to_string(),
        delay.predicted_s.to_string(),
        delay.pipelined_s.to_string(),
        delay.training_s.to_string(),
        delay.transfer_s.to_string(),
        delay.measured_s.to_string(),
        board.bytes_up.to_string(),
        board.bytes_down.to_string(),
    ]
}

fn epochs(result: &DemoResult) -> Vec<Vec<String>> {
    let columns = |method: Method| Measure::ALL.map(|measure| format!("{}_{}", method.key(), measure.key()));
    let mut header = EPOCH.map(String::from).to_vec();
    header.extend(columns(Method::Distilled));
    header.extend(columns(Method::Alone));
    let mut records = vec![header];
    for board in &result.boards {
        for epoch in &board.epochs {
            let mut record =
                vec![board.name.clone(), epoch.epoch.to_string(), epoch.loss.to_string(), epoch.measured_s.to_string()];
            record.extend(percentages(epoch.distilled.as_ref()));
            record.extend(percentages(epoch.alone.as_ref()));
            records.push(record);
        }
    }
    records
}

fn percentages(scores: Option<&MethodScores>) -> [String; Measure::ALL.len()] {
    Measure::ALL.map(|measure| {
        let share = scores.and_then(|scores| Share::of(measure.of(scores)));
        share.map(|share| share.percent.to_string()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::*;
    use std::collections::HashMap;

    fn read(path: &Path) -> Vec<HashMap<String, String>> {
        let mut reader = csv::Reader::from_path(path).unwrap();
        reader.deserialize().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn the_files_hold_a_row_for_each_board_and_method_and_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let mut result = example();
        result.boards[0].name = "a, \"quoted\"\nname".into();
        csv(&result, &folder.path().join("made/for/it")).unwrap();

        let rows = read(&folder.path().join("made/for/it/demo.csv"));
        assert_eq!(rows.len(), 9);
        assert_eq!(rows[0]["board"], result.boards[0].name);
        assert_eq!(rows[3]["method"], "distilled");
        assert_eq!(rows[3]["site"], "local");
        assert_eq!(rows[3]["classes"], "3:90;4:91;5:92");
        assert_eq!(rows[3]["predicted_s"], "7.5");
        assert_eq!(rows[3]["full_top1_total"], "360");
        let percent: f64 = rows[3]["full_top1"].parse().unwrap();
        assert!((percent - 318.0 / 3.6).abs() < 1e-9);
        assert_eq!((&*rows[4]["method"], &*rows[4]["site"], &*rows[4]["measured_s"]), ("alone", "", ""));
        assert_eq!((&*rows[4]["student"], &*rows[5]["student"], &*rows[5]["method"]), ("resnet8x4", "", "fedavg"));

        let rows = read(&folder.path().join("made/for/it/demo-epochs.csv"));
        assert_eq!(rows.len(), 12);
        assert_eq!((&*rows[2]["epoch"], &*rows[2]["distilled_full_top1"]), ("3", ""));
        let percent: f64 = rows[3]["alone_full_top1"].parse().unwrap();
        assert!((percent - 102.0 / 3.6).abs() < 1e-9);
    }

    #[test]
    fn no_epochs_and_no_scores_leave_cells_empty() {
        let folder = tempfile::tempdir().unwrap();
        let mut result = example();
        result.boards[0].epochs.clear();
        result.boards[0].fedavg = MethodScores::default();
        csv(&result, folder.path()).unwrap();
        assert_eq!(read(&folder.path().join("demo-epochs.csv")).len(), 8);
        let row = &read(&folder.path().join("demo.csv"))[2];
        assert_eq!((&*row["full_top1"], &*row["full_top1_low"], &*row["full_top1_total"]), ("", "", "0"));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("demo.csv")).unwrap();
        let error = csv(&example(), folder.path()).unwrap_err();
        assert!(error.to_string().contains("demo.csv"), "{error:#}");
    }
}
