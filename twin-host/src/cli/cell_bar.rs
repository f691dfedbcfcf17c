//! The bar of an experiment that is made of cells, on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;

/// Steps of the whole that the bar tells apart.
const STEPS: u64 = 10_000;

/// How much of an experiment is done, and which cell is being worked on.
pub(crate) struct CellBar(ProgressBar);

impl CellBar {
    /// An empty bar.
    pub(crate) fn new() -> Result<Self, Failure> {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}% eta {eta}");
        Ok(Self(ProgressBar::new(STEPS).with_style(style.map_err(anyhow::Error::from)?)))
    }

    /// This cell is being worked on, and so much of the whole is done, 0 to 1.
    pub(crate) fn show(&self, cell: &str, part: f64) {
        self.0.set_message(cell.to_owned());
        self.0.set_position((part * STEPS as f64) as u64);
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
