//! A field test as a picture: a row a board with its epochs, and the steps as marks. PURE.

use std::fmt::Write as _;

use super::look::Run;
use super::plan::Target;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 90.0;
const ROW: f64 = 44.0;
const BAR: f64 = 18.0;

/// Draws it.
pub(super) fn draw(run: &Run) -> String {
    let names = run.plan.boards.names();
    let (length, rows) = (run.since(run.over).max(1.0), names.len() as f64 + 1.0);
    let height = 30.0 + rows * ROW + 24.0;
    let x = |at: f64| LEFT + (at / length).clamp(0.0, 1.0) * (WIDTH - LEFT - 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <rect x=\"{LEFT}\" y=\"8\" width=\"10\" height=\"10\" fill=\"#2a7\"/><text x=\"{}\" y=\"17\">epoch on the board</text>\n\
         <rect x=\"{}\" y=\"8\" width=\"10\" height=\"10\" fill=\"#47c\"/><text x=\"{}\" y=\"17\">epoch on the host</text>\n",
        LEFT + 14.0,
        LEFT + 140.0,
        LEFT + 154.0,
    );
    // Names are a-z, 0-9 and '-', and changes our own words: nothing is to be escaped.
    let targets = names.iter().map(|name| Target::Board((*name).clone())).chain([Target::Host]);
    let epochs = run.epochs();
    for (k, target) in targets.enumerate() {
        let top = 30.0 + k as f64 * ROW;
        let _ = writeln!(svg, "<text x=\"8\" y=\"{}\">{target}</text>", top + BAR - 4.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#ccc\"/>",
            WIDTH - 20.0,
            y = top + BAR
        );
        let own = epochs.iter().filter(|epoch| target == Target::Board(epoch.device.clone()));
        for epoch in own {
            let (from, to) = (x(epoch.at_s - epoch.seconds), x(epoch.at_s));
            let colour = if epoch.site == "local" { "#2a7" } else { "#47c" };
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\" stroke=\"#fff\"/>",
                (to - from).max(1.0)
            );
        }
        for done in run.done.iter().filter(|done| done.target == target) {
            let at = x(done.at.as_secs_f64());
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{}\" stroke=\"#c33\"/>\
                 <text x=\"{:.1}\" y=\"{}\" fill=\"#c33\" font-size=\"9\">{}</text>",
                top + BAR + 4.0,
                at + 2.0,
                top + BAR + 11.0 + if done.change.is_some_and(super::plan::Change::undoes) { 9.0 } else { 0.0 },
                done.what,
            );
        }
    }
    let axis = 30.0 + rows * ROW + 8.0;
    let step = (length / 8.0 / 10.0).ceil() * 10.0;
    let mut at = 0.0;
    while at <= length {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{axis}\" fill=\"#666\" text-anchor=\"middle\">{at:.0} s</text>",
            x(at)
        );
        at += step;
    }
    svg + "</svg>\n"
}
