//! Tables like 1 and 2: a line a student and method, means over devices with 95 % intervals.

use super::row::Row;
use super::{Method, Plan, TUNED};
use crate::experiment::scheduling::report::Mean;

/// One number of a row.
type Column = fn(&Row) -> Option<f64>;

const COLUMNS: [(&str, Column); 6] = [
    ("private", |row| row.private_top1),
    ("private personal", |row| row.private_top1_personal),
    ("private top-5", |row| row.private_top5),
    ("unseen", |row| row.unseen_top1),
    ("full", |row| row.full_top1),
    ("full top-5", |row| row.full_top5),
];

/// The tables as text.
pub(super) fn tables(plan: &Plan, rows: &[Row]) -> String {
    let mut builder = tabled::builder::Builder::default();
    let mut header = vec!["student".to_owned(), "method".to_owned()];
    header.extend(COLUMNS.iter().map(|(name, _)| format!("{name} (%)")));
    header.push("best epoch, full (%)".to_owned());
    builder.push_record(header);
    let mut line = |student: &str, method: &str| {
        let own: Vec<&Row> = rows.iter().filter(|row| row.student == student && row.method == method).collect();
        let Some(last) = own.iter().map(|row| row.epoch).max() else { return };
        let mut record = vec![student.to_owned(), method.to_owned()];
        let ended: Vec<&Row> = own.iter().copied().filter(|row| row.epoch == last).collect();
        record.extend(COLUMNS.iter().map(|(_, column)| figure(ended.iter().filter_map(|row| column(row)))));
        record.push(best(&own));
        builder.push_record(record);
    };
    line(plan.teacher.name(), "teacher");
    for student in &plan.students {
        for method in plan.methods.iter().filter(|method| **method != Method::Teacher) {
            line(student.name(), method.name());
            if *method == Method::Fl {
                line(student.name(), TUNED);
            }
        }
    }
    let table = builder.build().with(tabled::settings::Style::markdown()).to_string();
    let methods = [Method::Kd, Method::Stu, Method::Fl].map(Method::name).join(", ");
    format!(
        "Split {} over {} devices, seed {}, {} epochs; final epoch unless said; mean over devices ± half a 95 % \
         interval over devices ({methods}: distilled, alone, FedAvg; {TUNED}: fine-tuned on each device). Private: test images of the device's own \
         classes; personal: answers adjusted by its label frequencies.\n\n{table}\n",
        plan.split, plan.devices, plan.seed, plan.epochs
    )
}

fn figure(values: impl Iterator<Item = f64> + Clone) -> String {
    match values.clone().count() {
        0 => String::new(),
        1 => format!("{:.1}", Mean::of(values).mean),
        _ => {
            let mean = Mean::of(values);
            format!("{:.1} ± {:.1}", mean.mean, mean.half_width)
        }
    }
}

/// The mean over devices of each one's best epoch on the full test set.
fn best(rows: &[&Row]) -> String {
    let mut devices: Vec<u16> = rows.iter().map(|row| row.device).collect();
    devices.sort_unstable();
    devices.dedup();
    let each = devices.iter().filter_map(|device| {
        let own = rows.iter().filter(|row| row.device == *device);
        own.filter_map(|row| row.full_top1).reduce(f64::max)
    });
    figure(each.collect::<Vec<_>>().into_iter())
}
