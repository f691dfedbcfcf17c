//! Delays of an epoch as stacked bars, the predicted over the measured.

use super::super::result::{DelayResult, DemoResult};
use super::drawing::{Anchor, Drawing, Scale, step};
use super::figure::seconds;

const WIDTH: f64 = 1040.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 76.0;
const BAR: f64 = 18.0;
/// Height of a board: its name, two bars, and air.
const BOARD: f64 = 78.0;
const AXIS: f64 = 30.0;

/// The parts of a bar, in their order: class, name, and seconds.
type Parts = Vec<(&'static str, &'static str, f64)>;

fn predicted(delay: &DelayResult) -> Parts {
    vec![
        ("teacher", "teacher's answers", delay.teacher_s),
        ("label", "labels to the board", delay.label_s),
        ("student", "student's epoch", delay.student_s),
        ("model", "student's state", delay.model_s),
    ]
}

fn measured(delay: &DelayResult) -> Parts {
    let rest = delay.measured_s - delay.training_s - delay.transfer_s;
    vec![
        ("training", "until trained", delay.training_s),
        ("transfer", "until transferred", delay.transfer_s),
        ("confirming", "until confirmed", rest),
    ]
}

/// Names and classes of all parts, for the legend.
pub(super) fn legend() -> Parts {
    let none = DelayResult::default();
    predicted(&none).into_iter().chain(measured(&none)).collect()
}

/// What can be drawn: a length.
fn length(seconds: f64) -> f64 {
    if seconds.is_finite() { seconds.max(0.0) } else { 0.0 }
}

fn total(parts: &Parts) -> f64 {
    parts.iter().map(|(_, _, seconds)| length(*seconds)).sum()
}

/// One drawing of all boards on one axis.
pub(super) fn delays(result: &DemoResult) -> String {
    let all = result.boards.iter();
    let longest = all
        .flat_map(|b| [total(&predicted(&b.delay)), total(&measured(&b.delay)), length(b.delay.pipelined_s)])
        .fold(0.0, f64::max);
    let across = Scale { from: 0.0, to: if longest > 0.0 { longest } else { 1.0 }, start: LEFT, end: RIGHT };
    let bottom = BOARD * result.boards.len() as f64;
    let mut drawing = Drawing::new(WIDTH, bottom + AXIS, "Delay of an epoch by board, predicted and measured");
    let stride = step(across.to, 8.0);
    let mut mark = 0.0;
    while mark <= across.to {
        let x = across.at(mark);
        drawing.line("grid", (x, 6.0), (x, bottom));
        // Rounded to shed what repeated addition leaves behind.
        drawing.write("tick", Anchor::Middle, (x, bottom + 18.0), &format!("{} s", (mark * 1e6).round() / 1e6));
        mark += stride;
    }
    for (board, top) in result.boards.iter().zip((0..).map(|row| BOARD * f64::from(row))) {
        let delay = &board.delay;
        drawing.write("name", Anchor::Start, (LEFT, top + 20.0), &board.name);
        for (title, parts, sum, top) in [
            ("predicted", predicted(delay), delay.predicted_s, top + 28.0),
            ("measured", measured(delay), delay.measured_s, top + 32.0 + BAR),
        ] {
            drawing.write("tick", Anchor::End, (LEFT - 8.0, top + 13.0), title);
            let mut from = 0.0;
            for (class, name, took) in parts {
                let took = length(took);
                let (x, width) = (across.at(from), across.at(from + took) - across.at(from));
                if width > 0.0 {
                    drawing.bar(class, (x, top), (width, BAR), &format!("{name}: {}", seconds(took)));
                }
                from += took;
            }
            drawing.write("sum", Anchor::Start, (across.at(from) + 7.0, top + 13.5), &seconds(sum));
        }
        let x = across.at(length(delay.pipelined_s));
        drawing.line("overlap", (x, top + 24.0), (x, top + 32.0 + BAR));
    }
    drawing.finish()
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::*;

    #[test]
    fn each_term_is_a_part_of_its_bar() {
        let text = delays(&example());
        assert_eq!(text.matches("<rect class=\"student\"").count(), 3);
        // The offloaded board gets no labels: no bar of no length.
        assert_eq!(text.matches("<rect class=\"label\"").count(), 2);
        assert!(text.contains("student&#39;s epoch: 4.00 s"), "{text}");
        assert!(text.contains("until confirmed: 0.10 s"), "{text}");
    }

    #[test]
    fn lengths_are_to_scale() {
        let mut result = example();
        result.boards.truncate(1);
        let text = delays(&result);
        let width = |class: &str| -> f64 {
            let rest = text.split(&format!("<rect class=\"{class}\"")).nth(1).unwrap();
            rest.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        assert!((width("student") / width("teacher") - 3.0).abs() < 0.01);
        assert!((width("training") - width("teacher") * 3.5).abs() < 0.2);
    }

    #[test]
    fn no_delays_at_all_draw_no_nan() {
        let mut result = example();
        result.boards[0].delay = DelayResult::default();
        result.boards[1].delay.training_s = f64::NAN;
        result.boards[2].delay.pipelined_s = f64::INFINITY;
        for text in [delays(&result), {
            result.boards.truncate(1);
            delays(&result)
        }] {
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
        result.boards.clear();
        assert!(!delays(&result).contains("NaN"));
    }
}
