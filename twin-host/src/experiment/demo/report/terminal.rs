//! The result on a terminal of 160 columns.

use super::super::result::{BoardResult, DemoResult};
use super::comparison::{Measure, Method};
use super::figure::{classes, gigahertz, scaled, seconds, share};
use super::summary::summary;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

/// Columns of the terminal.
const WIDTH: usize = 160;
/// Columns of a line's name below the tables.
const MARGIN: usize = 10;

/// Two tables, of what was decided and of what was learned, and below them what holds for the whole run.
pub(crate) fn table(result: &DemoResult) -> String {
    let mut text = format!(
        "Decisions, and delays of an epoch (mean over epochs; predicted: Eq. (6), and with overlap)\n{}\n\n\
         Right answers on the {} set, percent [95 % interval]\n{}\n\n",
        decisions(result),
        result.scored.name(),
        accuracies(result)
    );
    for (name, value) in summary(result) {
        text.push_str(&wrapped(name, &value));
    }
    text
}

fn decisions(result: &DemoResult) -> String {
    let mut table = Builder::default();
    table.push_record([
        "board",
        "compute",
        "link",
        "classes",
        "student",
        "site",
        "f",
        "b",
        "predicted",
        "overlapped",
        "measured",
    ]);
    for board in &result.boards {
        table.push_record([
            board.name.clone(),
            gigahertz(board.frequency_ghz),
            scaled(board.link_bits_per_second, "bit/s"),
            classes_in_brief(board),
            board.student.clone(),
            board.site.clone(),
            gigahertz(board.frequency_given_ghz),
            scaled(board.bandwidth_hz, "Hz"),
            seconds(board.delay.predicted_s),
            seconds(board.delay.pipelined_s),
            seconds(board.delay.measured_s),
        ]);
    }
    let mut table = table.build();
    table.with(Style::rounded());
    for figures in [1..=2, 6..=10] {
        table.modify(Columns::new(figures), Alignment::right());
    }
    table.to_string()
}

/// The classes, or how many where the list is long.
fn classes_in_brief(board: &BoardResult) -> String {
    let list = classes(&board.classes);
    if list.chars().count() <= 14 { list } else { format!("{} classes", board.classes.len()) }
}

fn accuracies(result: &DemoResult) -> String {
    const SHOWN: [Measure; 4] = [Measure::Own, Measure::Personal, Measure::All, Measure::Unseen];
    let mut table = Builder::default();
    table.push_record(["board", "method"].into_iter().chain(SHOWN.map(Measure::title)));
    for board in &result.boards {
        for (row, method) in Method::ALL.into_iter().enumerate() {
            let name = if row == 0 { board.name.clone() } else { String::new() };
            let figures = SHOWN.map(|measure| share(measure.of(method.scores(board))));
            table.push_record([name, method.title().to_owned()].into_iter().chain(figures));
        }
    }
    let mut table = table.build();
    table.with(Style::rounded()).modify(Columns::new(2..), Alignment::right());
    table.to_string()
}

/// A named text in lines of the terminal's width, the name before the first.
fn wrapped(name: &str, text: &str) -> String {
    let mut lines = vec![format!("{name:<MARGIN$}")];
    let mut width = MARGIN;
    for word in text.split_whitespace() {
        let letters = word.chars().count();
        if width > MARGIN && width + 1 + letters > WIDTH {
            lines.push(" ".repeat(MARGIN));
            width = MARGIN;
        }
        if let Some(line) = lines.last_mut() {
            if width > MARGIN {
                line.push(' ');
                width += 1;
            }
            line.push_str(word);
            width += letters;
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::*;

    #[test]
    fn the_worked_example_reads_as_expected() {
        let text = table(&example());
        for expected in [
            "│ board-1 │ 0.50 GHz │  2.00 Mbit/s │ 0-2     │ vgg8       │ host  │ 2.50 GHz │ 1.25 MHz │",
            "│    6.00 s │     4.00 s │   5.10 s │",
            "distilled",
            "88.3 [84.6, 91.3]",
            "teacher   resnet14x4, 20 epochs: 96.1 [93.6, 97.7] % of 360 test images right",
            "equal     board and twin after 12 epochs of 12",
            "in all 151.5 s",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut result = example();
        for board in &mut result.boards {
            board.name = "x".repeat(32);
            board.student = "ResNet-26x4".into();
            board.classes = (0..40).step_by(4).map(|class| (class, 1)).collect();
        }
        result.boards[0].classes = vec![(0, 1), (2, 1), (4, 1)];
        result.scale = "each emulated gigahertz is a part of a core; ".repeat(20);
        for line in table(&result).lines() {
            assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
        }
    }

    #[test]
    fn nothing_measured_shows_no_nan() {
        let mut result = example();
        for board in &mut result.boards {
            board.epochs.clear();
            board.distilled = Default::default();
            board.delay.measured_s = f64::NAN;
        }
        result.teacher.full_top1 = Default::default();
        result.stages.clear();
        let text = table(&result);
        assert!(!text.contains("NaN"), "{text}");
        assert!(text.contains('–'), "{text}");
    }
}
