//! Accuracy over epochs, a panel for each board and measure.

use super::super::result::{BoardResult, DemoResult, EpochResult, MethodScores};
use super::comparison::{Measure, Method, Share};
use super::drawing::{Anchor, Drawing, Scale, escape, step};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = WIDTH - 48.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = HEIGHT - 34.0;
/// Least distance between the figures at the curves' ends.
const LINE: f64 = 14.0;

/// Two panels for each board: its own classes with the personalised answer, and all classes.
pub(super) fn curves(result: &DemoResult) -> String {
    const SHOWN: [Measure; 2] = [Measure::Personal, Measure::All];
    let ranges = SHOWN.map(|measure| lowest(result, measure));
    let mut text = String::new();
    for board in &result.boards {
        text += &format!("<figure><figcaption>{}</figcaption><div class=\"panels\">", escape(&board.name));
        if board.epochs.is_empty() {
            text += "<p class=\"none\">No epoch was done.</p>";
        } else {
            for (measure, low) in SHOWN.into_iter().zip(ranges) {
                text += &panel(board, measure, low);
            }
        }
        text += "</div></figure>";
    }
    text
}

/// The scores that an epoch has of a method that has any.
fn scored(epoch: &EpochResult, method: Method) -> Option<&MethodScores> {
    match method {
        Method::Distilled => epoch.distilled.as_ref(),
        Method::Alone => epoch.alone.as_ref(),
        Method::FedAvg => None,
    }
}

/// A method's curve: epoch and share, where scored.
fn series(board: &BoardResult, method: Method, measure: Measure) -> Vec<(f64, Share)> {
    let point = |epoch: &EpochResult| {
        let share = Share::of(measure.of(scored(epoch, method)?))?;
        Some((f64::from(epoch.epoch), share))
    };
    board.epochs.iter().filter_map(point).collect()
}

/// Where the axis of a measure begins, the same for every board, so that panels can be compared.
fn lowest(result: &DemoResult, measure: Measure) -> f64 {
    let boards = result.boards.iter();
    let all = boards.flat_map(|board| {
        let curves = [Method::Distilled, Method::Alone].map(|method| series(board, method, measure));
        let points = curves.into_iter().flatten().map(|(_, share)| share.percent);
        points.chain(Share::of(measure.of(&board.fedavg)).map(|share| share.percent)).collect::<Vec<_>>()
    });
    let least = all.fold(100.0, f64::min);
    ((least / 10.0).floor() * 10.0).min(90.0)
}

fn panel(board: &BoardResult, measure: Measure, low: f64) -> String {
    let (first, last) = (board.epochs.first().map_or(1, |e| e.epoch), board.epochs.last().map_or(1, |e| e.epoch));
    let across = Scale { from: f64::from(first), to: f64::from(last), start: LEFT + 8.0, end: RIGHT - 8.0 };
    let up = Scale { from: low, to: 100.0, start: BOTTOM, end: TOP };
    let mut drawing = Drawing::new(WIDTH, HEIGHT, &format!("{}: {} by epoch", board.name, measure.title()));
    drawing.write("caption", Anchor::Start, (LEFT, 16.0), &format!("{} (%)", measure.title()));
    let rise = step(100.0 - low, 5.0);
    let mut mark = 100.0;
    while mark >= low {
        let y = up.at(mark);
        drawing.line("grid", (LEFT, y), (RIGHT, y));
        drawing.write("tick", Anchor::End, (LEFT - 6.0, y + 4.0), &format!("{mark:.0}"));
        mark -= rise;
    }
    let stride = step(f64::from(last.saturating_sub(first)), 10.0).max(1.0);
    let mut epoch = f64::from(last);
    while epoch >= f64::from(first) {
        drawing.write("tick", Anchor::Middle, (across.at(epoch), BOTTOM + 17.0), &format!("{epoch:.0}"));
        epoch -= stride;
    }
    drawing.write("tick", Anchor::End, (RIGHT, HEIGHT - 3.0), "epoch");

    let mut ends = Vec::new();
    if let Some(share) = Share::of(measure.of(&board.fedavg)) {
        let y = up.at(share.percent);
        drawing.line("curve fedavg", (LEFT, y), (RIGHT, y));
        ends.push((y, Method::FedAvg, share.percent));
    }
    for method in [Method::Alone, Method::Distilled] {
        let class = method.key();
        let points = series(board, method, measure);
        let at = |(epoch, share): &(f64, Share)| (across.at(*epoch), up.at(share.percent));
        drawing.curve(&format!("curve {class}"), &points.iter().map(at).collect::<Vec<_>>());
        for point in &points {
            let (epoch, Share { percent, low, high }) = *point;
            let says = format!("{}, epoch {epoch}: {percent:.1} % [{low:.1}, {high:.1}]", method.title());
            drawing.point(&format!("dot {class}"), at(point), &says);
        }
        if let Some((epoch, share)) = points.last() {
            let x = across.at(*epoch);
            let whisker = [share.low.max(low), share.high].map(|end| (x, up.at(end)));
            drawing.line(&format!("whisker {class}"), whisker[0], whisker[1]);
            ends.push((up.at(share.percent), method, share.percent));
        }
    }
    for (y, method, percent) in apart(ends) {
        let class = format!("end {}", method.key());
        drawing.write(&class, Anchor::Start, (RIGHT + 6.0, y + 4.0), &format!("{percent:.1}"));
    }
    drawing.finish()
}

/// Moves labels upwards until none covers another.
fn apart(mut labels: Vec<(f64, Method, f64)>) -> Vec<(f64, Method, f64)> {
    labels.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut ceiling = f64::INFINITY;
    for label in &mut labels {
        label.0 = label.0.min(ceiling);
        ceiling = label.0 - LINE;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::super::example::{example, score};
    use super::*;

    #[test]
    fn every_board_has_both_panels_with_a_point_for_each_scored_epoch() {
        let text = curves(&example());
        assert_eq!(text.matches("<svg").count(), 6);
        // Three scored epochs of two methods in each of six panels.
        assert_eq!(text.matches("<circle").count(), 36);
        assert_eq!(text.matches("curve fedavg").count(), 6);
        assert!(text.contains("distilled, epoch 4: 88.3 % [84.6, 91.3]"), "{text}");
    }

    #[test]
    fn a_board_without_epochs_says_so() {
        let mut result = example();
        result.boards[1].epochs.clear();
        let text = curves(&result);
        assert_eq!(text.matches("<svg").count(), 4);
        assert!(text.contains("No epoch was done."));
    }

    #[test]
    fn one_epoch_or_no_score_draws_no_nan() {
        let mut result = example();
        result.boards[0].epochs.truncate(1);
        result.boards[0].fedavg = Default::default();
        result.boards[1].epochs.iter_mut().for_each(|epoch| (epoch.distilled, epoch.alone) = (None, None));
        for epoch in &mut result.boards[2].epochs {
            epoch.distilled = Some(MethodScores { full_top1: score(0, 9), ..MethodScores::default() });
        }
        let text = curves(&result);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn end_labels_do_not_cover_each_other() {
        let labels =
            apart(vec![(50.0, Method::Alone, 1.0), (52.0, Method::FedAvg, 1.0), (51.0, Method::Distilled, 1.0)]);
        assert_eq!(labels.iter().map(|label| label.0).collect::<Vec<_>>(), [52.0, 38.0, 24.0]);
    }
}
