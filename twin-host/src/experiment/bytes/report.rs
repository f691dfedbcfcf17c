//! The table and the picture of bytes against accuracy.

use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::prelude::{ChartBuilder, Circle, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, SVGBackend};
use plotters::style::{Color, RGBColor, WHITE};
use tabled::builder::Builder;
use tabled::settings::Style;
use twin_shared::plan::Compression;

use super::Row;

/// A mean with half the width of its 95 % interval by Student's t over the seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    mean: f64,
    half: f64,
}

impl Estimate {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { mean, half: t_quantile(values.len() - 1) * (variance / count).sqrt() }
    }
}

/// The 97.5 % quantile of Student's t with so many degrees of freedom; beyond the table by Cornish and Fisher.
fn t_quantile(freedom: usize) -> f64 {
    const TABLE: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    const NORMAL: f64 = 1.959_964;
    match freedom {
        0 => f64::INFINITY,
        1..=10 => TABLE[freedom - 1],
        _ => {
            let (z, n) = (NORMAL, freedom as f64);
            z + (z.powi(3) + z) / (4.0 * n) + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
        }
    }
}

/// One compression over all seeds.
struct Line {
    compression: Compression,
    bytes: f64,
    part: f64,
    top1: Estimate,
    /// Against f32, seed by seed; none of f32 itself.
    difference: Option<Estimate>,
}

fn lines(rows: &[Row]) -> Vec<Line> {
    let of = |compression: Compression| {
        let mut own: Vec<&Row> = rows.iter().filter(|row| row.compression == compression).collect();
        own.sort_by_key(|row| row.seed);
        own
    };
    let whole = of(Compression::None);
    let mean_bytes = |rows: &[&Row]| rows.iter().map(|row| row.bytes_per_epoch).sum::<f64>() / rows.len() as f64;
    let all = Compression::ALL.into_iter().filter(|compression| !of(*compression).is_empty());
    all.map(|compression| {
        let own = of(compression);
        let top1: Vec<f64> = own.iter().map(|row| row.top1).collect();
        let pairs = own.iter().filter_map(|row| {
            let whole = whole.iter().find(|whole| whole.seed == row.seed)?;
            Some(row.top1 - whole.top1)
        });
        let differences: Vec<f64> = pairs.collect();
        Line {
            compression,
            bytes: mean_bytes(&own),
            part: mean_bytes(&own) / mean_bytes(&whole),
            top1: Estimate::of(&top1),
            difference: (compression != Compression::None).then(|| Estimate::of(&differences)),
        }
    })
    .collect()
}

/// Writes the picture; the table.
pub(super) fn write(rows: &[Row], out: &Path) -> anyhow::Result<String> {
    let lines = lines(rows);
    let path = out.join("bytes.svg");
    draw(&lines, &path).with_context(|| path.display().to_string())?;
    let table = table(&lines);
    let path = out.join("bytes.txt");
    std::fs::write(&path, &table).with_context(|| path.display().to_string())?;
    Ok(table)
}

fn table(lines: &[Line]) -> String {
    let mut table = Builder::default();
    table.push_record(["state", "bytes an epoch", "of f32", "top-1 %", "against f32, paired"]);
    for line in lines {
        let difference = line.difference.map_or("-".to_owned(), |Estimate { mean, half }| {
            format!("{mean:+.2} [{:+.2}, {:+.2}]", mean - half, mean + half)
        });
        let name = if line.compression == Compression::None { "f32" } else { line.compression.name() };
        table.push_record([
            name.to_owned(),
            format!("{:.0}", line.bytes),
            format!("{:.1} %", 100.0 * line.part),
            format!("{:.2} ± {:.2}", line.top1.mean, line.top1.half),
            difference,
        ]);
    }
    format!("{}\n", table.build().with(Style::psql()))
}

const BLUE: RGBColor = RGBColor(0, 114, 178);

fn draw(lines: &[Line], path: &Path) -> anyhow::Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    let low = lines.iter().map(|line| line.top1.mean - line.top1.half).fold(100.0, f64::min);
    let high = lines.iter().map(|line| line.top1.mean + line.top1.half).fold(0.0, f64::max);
    let least = lines.iter().map(|line| line.part).fold(1.0, f64::min);
    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Accuracy against bytes of an exchanged state", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d((50.0 * least..150.0).log_scale(), (low - 1.0).max(0.0)..(high + 1.0).min(100.0))
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc("% of the f32 state's bytes")
        .y_desc("top-1, %, with 95 % intervals over seeds")
        .draw()
        .map_err(|error| failed(&error))?;
    let points = || lines.iter().map(|line| (100.0 * line.part, line.top1.mean));
    chart.draw_series(LineSeries::new(points(), BLUE.mix(0.4).stroke_width(1))).map_err(|error| failed(&error))?;
    chart
        .draw_series(lines.iter().map(|line| {
            let (x, Estimate { mean, half }) = (100.0 * line.part, line.top1);
            PathElement::new([(x, mean - half), (x, mean + half)], BLUE.stroke_width(2))
        }))
        .map_err(|error| failed(&error))?;
    chart.draw_series(points().map(|point| Circle::new(point, 4, BLUE.filled()))).map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_tell_apart_what_means_do_not() {
        let row = |seed, compression, top1| Row { seed, compression, bytes_per_epoch: 100.0, top1 };
        // Seeds differ by far more than compressions, and these always by one.
        let rows: Vec<Row> = (1..=10)
            .flat_map(|seed| {
                let whole = 50.0 + 4.0 * seed as f64;
                [row(seed, Compression::None, whole), row(seed, Compression::Int8, whole - 1.0)]
            })
            .collect();
        let lines = lines(&rows);
        assert!(lines[1].top1.half > 5.0);
        let difference = lines[1].difference.expect("not f32");
        assert!((difference.mean + 1.0).abs() < 1e-9 && difference.half < 1e-9);
    }

    #[test]
    fn the_quantile_is_that_of_the_books() {
        for (freedom, expected) in [(9, 2.262), (10, 2.228), (12, 2.179), (30, 2.042), (1000, 1.962)] {
            assert!((t_quantile(freedom) - expected).abs() < 2e-3, "{freedom}: {}", t_quantile(freedom));
        }
    }
}
