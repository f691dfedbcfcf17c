//! Accuracy against epochs as SVG, like Figures 4 to 10: a picture a measure and student, a line a method.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use plotters::prelude::{ChartBuilder, IntoDrawingArea, LineSeries, PathElement, SVGBackend};
use plotters::style::{BLACK, Color, RGBColor, WHITE};

use super::Plan;
use super::row::Row;

/// A measure, how files name it, and where a row has it.
type Measure = (&'static str, &'static str, fn(&Row) -> Option<f64>);

const MEASURES: [Measure; 4] = [
    ("on all classes", "full", |row| row.full_top1),
    ("on the device's own classes", "private", |row| row.private_top1),
    ("on own classes, personal answers", "personal", |row| row.private_top1_personal),
    ("on training images", "train", |row| row.train_top1),
];

/// Distinct to people who confuse red and green as well.
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];

/// Mean over devices at each epoch.
fn mean_curve(rows: &[&Row], value: fn(&Row) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut by_epoch: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for row in rows {
        by_epoch.entry(row.epoch).or_default().extend(value(row));
    }
    by_epoch
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(epoch, values)| (epoch.into(), values.iter().sum::<f64>() / values.len() as f64))
        .collect()
}

/// Draws every picture that has a line; gives their files.
pub(super) fn draw(plan: &Plan, rows: &[Row], out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut drawn = Vec::new();
    for student in &plan.students {
        for (title, name, value) in MEASURES {
            let lines: Vec<(&str, Vec<(f64, f64)>)> = plan
                .methods
                .iter()
                .map(|method| {
                    let own: Vec<&Row> = rows
                        .iter()
                        .filter(|row| row.student == student.name() && row.method == method.name())
                        .collect();
                    (method.name(), mean_curve(&own, value))
                })
                .filter(|(_, points)| !points.is_empty())
                .collect();
            if lines.is_empty() {
                continue;
            }
            let path = out.join(format!("{name}-{student}.svg"));
            let caption = format!("{}, {}: accuracy {title}", student.title(), plan.split);
            picture(&path, &caption, &lines, f64::from(plan.epochs)).with_context(|| path.display().to_string())?;
            drawn.push(path);
        }
    }
    Ok(drawn)
}

fn picture(path: &Path, caption: &str, lines: &[(&str, Vec<(f64, f64)>)], epochs: f64) -> anyhow::Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..epochs.max(1.0), 0.0..100.0)
        .map_err(|error| failed(&error))?;
    chart.configure_mesh().x_desc("epoch").y_desc("%").draw().map_err(|error| failed(&error))?;
    for ((name, points), colour) in lines.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
            .map_err(|error| failed(&error))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}
