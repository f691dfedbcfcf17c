//! Convergence curves of learned tables, as JSON and SVG.

use anyhow::{Context, anyhow};
use plotters::prelude::{ChartBuilder, IntoDrawingArea, LineSeries, SVGBackend};
use plotters::style::{BLUE, WHITE};
use std::path::Path;
use twin_core::scheduler::learning::CurvePoint;

/// Writes `NAME-curve.json` and `NAME-curve.svg`.
pub(crate) fn write(name: &str, curve: &[CurvePoint], folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(format!("{name}-curve.json"));
    let text = serde_json::to_string(curve)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let path = folder.join(format!("{name}-curve.svg"));
    draw(name, curve, &path).with_context(|| format!("cannot draw {}", path.display()))
}

fn draw(name: &str, curve: &[CurvePoint], path: &Path) -> anyhow::Result<()> {
    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    let failed = |error: &dyn std::fmt::Display| anyhow!("{error}");
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let episodes = curve.last().map_or(1.0, |point| point.episodes as f64);
    let low = curve.iter().map(|point| point.objective).fold(f64::INFINITY, f64::min);
    let high = curve.iter().map(|point| point.objective).fold(f64::NEG_INFINITY, f64::max);
    let margin = ((high - low) * 0.05).max(1e-6);
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{name}: objective per device while learning"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..episodes, low - margin..high + margin)
        .map_err(|error| failed(&error))?;
    chart.configure_mesh().x_desc("episodes").y_desc("objective").draw().map_err(|error| failed(&error))?;
    let points = curve.iter().map(|point| (point.episodes as f64, point.objective));
    chart.draw_series(LineSeries::new(points, &BLUE)).map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}
