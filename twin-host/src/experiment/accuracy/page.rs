//! One self-contained HTML page: what was run, the tables, the curves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Plan;
use crate::train::TrainerInfo;

/// Writes the page.
pub(super) fn write(
    plan: &Plan,
    trainers: &[TrainerInfo],
    tables: &str,
    curves: &[PathBuf],
    path: &Path,
) -> anyhow::Result<()> {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Accuracy</title>\
         <style>body{font:15px sans-serif;max-width:1500px;margin:2em auto;padding:0 1em}\
         pre{overflow-x:auto}svg{max-width:48%;height:auto}</style><h1>Accuracy</h1>",
    );
    let plan = serde_json::to_string_pretty(plan)?;
    for info in trainers {
        write!(
            page,
            "<p>Trained on {} with {} threads in {}, LibTorch {}.</p>",
            escaped(&info.device),
            info.threads,
            escaped(&info.precision),
            escaped(&info.libtorch)
        )?;
    }
    write!(page, "<pre>{}</pre>", escaped(tables))?;
    for curve in curves {
        let svg = std::fs::read_to_string(curve).with_context(|| curve.display().to_string())?;
        // An XML declaration has no place within HTML.
        page.push_str(svg.find("<svg").map_or("", |start| &svg[start..]));
    }
    write!(page, "<details><summary>The plan</summary><pre>{}</pre></details></html>", escaped(&plan))?;
    std::fs::write(path, page).with_context(|| path.display().to_string())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
