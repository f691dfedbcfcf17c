//! The result as one page that needs nothing else: no script, no font, no picture from elsewhere.

use super::super::result::{BoardResult, DemoResult};
use super::comparison::{Measure, Method, Share};
use super::curves::curves;
use super::delays::{delays, legend};
use super::drawing::{cell, escape};
use super::figure::{NOTHING, classes, gigahertz, number, scaled, seconds};
use super::picture::picture;
use super::summary::summary;
use super::verdict::{epochs_done, verdict};
use twin_shared::pipe::Score;

const STYLE: &str = include_str!("page.css");

/// The page. Every text of the result is escaped; the page's own policy forbids it to load anything.
pub(crate) fn html(result: &DemoResult) -> String {
    [
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>Twinstill: demo</title><style>\n{STYLE}</style></head><body><main>\n"
        ),
        heading(result),
        section("What ran", "", &picture(result)),
        section(
            "What the students learned",
            &format!(
                "Right answers on the held-back {} set, in percent, with 95 % Wilson intervals. Own: its images of the \
             classes that the board holds; personalised: the same, with the answer adjusted by the board's own label \
             frequencies, for every method alike. Alone: the same student without a teacher. FedAvg: one network for all boards, averaged \
             over them. The best of the three is in bold.",
                result.scored.name()
            ),
            &(accuracies(result) + &method_legend() + &curves(result)),
        ),
        section(
            "What was decided, and how long an epoch took",
            "Predicted: the terms of Eq. (6), one after another; overlapped: with teacher, labels and training going \
             on side by side. Measured: from the assignment until board and twin had confirmed. Means over epochs.",
            &(decisions(result) + &delay_legend() + "<div class=\"wide\">" + &delays(result) + "</div>"),
        ),
        section("The run", "", &(stages(result) + &facts(result))),
        "</main></body></html>\n".to_owned(),
    ]
    .join("\n")
}

fn section(title: &str, says: &str, content: &str) -> String {
    let says = if says.is_empty() { String::new() } else { format!("<p>{says}</p>") };
    format!("<section><h2>{title}</h2>{says}{content}</section>")
}

fn heading(result: &DemoResult) -> String {
    let outcome = match verdict(result) {
        Ok(()) => "<div class=\"verdict held\"><b>Every claim held.</b> On every board distillation is above the \
                   student alone, on all classes and, personalised, on its own; after every epoch board and twin were \
                   equal.</div>"
            .to_owned(),
        Err(failures) => {
            let lines: String = failures.iter().map(|line| format!("<li>{}</li>", escape(line))).collect();
            format!("<div class=\"verdict failed\"><b>Not every claim held.</b><ul>{lines}</ul></div>")
        }
    };
    let took: f64 = result.stages.iter().map(|(_, seconds)| seconds).sum();
    let teacher =
        Share::of(result.teacher.full_top1).map_or_else(|| NOTHING.to_owned(), |s| number(s.percent, 1) + " %");
    let tiles: String = [
        (result.boards.len().to_string(), "boards"),
        (format!("{}/{}", result.equal_epochs, epochs_done(result)), "epochs, board and twin equal"),
        (teacher, "right by the teacher"),
        (result.samples.to_string(), &format!("{} images", result.scored.name())),
        (number(took, 0) + " s", "from start to end"),
    ]
    .map(|(figure, name)| format!("<div><b>{figure}</b><span>{name}</span></div>"))
    .concat();
    format!(
        "<header><h1>Twinstill: a demo run</h1><p>Boards and their digital twins: each board's student network is \
         taught, over MQTT, by a teacher that the twins train together.</p>{outcome}<div class=\"tiles\">{tiles}</div>\
         </header>"
    )
}

fn accuracies(result: &DemoResult) -> String {
    const SHOWN: [Measure; 4] = [Measure::Own, Measure::Personal, Measure::All, Measure::Unseen];
    let titles = SHOWN.map(|measure| format!("<th class=\"figure\">{}</th>", measure.title())).concat();
    let mut text = format!("<div class=\"wide\"><table><thead><tr><th>board</th><th>method</th>{titles}</tr></thead>");
    for board in &result.boards {
        text += "<tbody>";
        for (row, method) in Method::ALL.into_iter().enumerate() {
            let name = if row == 0 { format!("<th rowspan=\"3\">{}</th>", escape(&board.name)) } else { String::new() };
            let cells = SHOWN.map(|measure| accuracy(board, method, measure)).concat();
            text += &format!("<tr>{name}<td><i class=\"key {}\"></i>{}</td>{cells}</tr>", method.key(), method.title());
        }
        text += "</tbody>";
    }
    text + "</table></div>"
}

fn accuracy(board: &BoardResult, method: Method, measure: Measure) -> String {
    let score = measure.of(method.scores(board));
    let Some(Share { percent, low, high }) = Share::of(score) else { return cell(NOTHING) };
    let rivals = Method::ALL.map(|rival| measure.of(rival.scores(board)).fraction());
    let best = rivals.into_iter().flatten().all(|rival| rival * 100.0 <= percent);
    let class = if best { "figure best" } else { "figure" };
    let Score { correct, total } = score;
    format!(
        "<td class=\"{class}\" title=\"{correct} of {total}\">{percent:.1} <small>[{low:.1}, {high:.1}]</small></td>"
    )
}

fn decisions(result: &DemoResult) -> String {
    let mut text = String::from(
        "<div class=\"wide\"><table><thead><tr><th>board</th><th class=\"figure\">compute</th>\
         <th class=\"figure\">link</th><th>classes</th><th>student</th><th>site</th><th class=\"figure\">f</th>\
         <th class=\"figure\">b</th><th class=\"figure\">predicted</th><th class=\"figure\">overlapped</th>\
         <th class=\"figure\">measured</th></tr></thead><tbody>",
    );
    for board in &result.boards {
        let texts = [&classes(&board.classes), &board.student, &board.site].map(|t| format!("<td>{}</td>", escape(t)));
        text += &format!("<tr><th>{}</th>", escape(&board.name));
        text += &cell(&gigahertz(board.frequency_ghz));
        text += &cell(&scaled(board.link_bits_per_second, "bit/s"));
        text += &texts.concat();
        text += &cell(&gigahertz(board.frequency_given_ghz));
        text += &cell(&scaled(board.bandwidth_hz, "Hz"));
        for delay in [board.delay.predicted_s, board.delay.pipelined_s, board.delay.measured_s] {
            text += &cell(&seconds(delay));
        }
        text += "</tr>";
    }
    text + "</tbody></table></div>"
}

fn method_legend() -> String {
    let keys = Method::ALL.map(|m| format!("<span><i class=\"key {}\"></i>{}</span>", m.key(), m.title())).concat();
    format!("<div class=\"legend\">{keys}<span>whisker: 95 % interval of the last epoch; FedAvg: its end</span></div>")
}

fn delay_legend() -> String {
    let key =
        |(class, name, _): (&str, &str, f64)| format!("<span><i class=\"key {class}\"></i>{}</span>", escape(name));
    let keys: String = legend().into_iter().map(key).collect();
    format!("<div class=\"legend\">{keys}<span><i class=\"key overlap\"></i>predicted with overlap</span></div>")
}

/// The stages' wall time, as bars to one scale.
fn stages(result: &DemoResult) -> String {
    let longest = result.stages.iter().map(|(_, took)| *took).filter(|took| took.is_finite()).fold(0.0, f64::max);
    let mut text = String::from("<div class=\"stages\">");
    for (name, took) in &result.stages {
        let part = if longest > 0.0 && took.is_finite() { (took / longest * 100.0).max(0.0) } else { 0.0 };
        text += &format!(
            "<span>{}</span><div><i style=\"width:{part:.2}%\"></i></div><span class=\"figure\">{} s</span>",
            escape(name),
            number(*took, 1)
        );
    }
    text + "</div>"
}

fn facts(result: &DemoResult) -> String {
    let lines = summary(result).map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(&value)));
    // The stages have just been drawn.
    let [teacher, decision, scale, equal, traffic, _] = lines;
    format!("<dl>{}</dl>", [teacher, decision, scale, equal, traffic].concat())
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::*;

    /// Every element that opens closes in its order.
    fn well_formed(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        let (_, mut rest) = page.split_once("</style>").unwrap();
        open.push("head");
        while let Some((_, tail)) = rest.split_once('<') {
            let (tag, after) = tail.split_once('>').unwrap();
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                let last = open.pop();
                assert!(last == Some(name) || name == "html", "</{name}> closes {last:?}");
            } else if !tag.ends_with('/') && !["meta", "hr"].contains(&name) {
                open.push(name);
            }
            rest = after;
        }
        assert!(open.is_empty(), "left open: {open:?}");
    }

    #[test]
    fn the_worked_example_is_a_page() {
        let page = html(&example());
        well_formed(&page);
        for expected in
            ["Every claim held.", "88.3 <small>[84.6, 91.3]</small>", "12/12", "<td>resnet8x4</td>", "1.25 MB"]
        {
            assert!(page.contains(expected), "{expected}");
        }
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        let page = html(&example());
        for forbidden in ["<script", "http://", "https://", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn what_came_from_outside_is_escaped() {
        let mut result = example();
        let evil = "\"><script>alert('1')</script>&";
        result.scale = evil.into();
        result.policy = evil.into();
        result.teacher.network = evil.into();
        result.stages[0].0 = evil.into();
        for board in &mut result.boards {
            board.name = evil.into();
            board.student = evil.into();
            board.site = evil.into();
        }
        result.boards[0].alone = result.boards[0].distilled;
        let page = html(&result);
        well_formed(&page);
        assert!(!page.contains("<script"), "a text reached the page as it was");
        assert!(!page.contains("('1')"));
        assert!(page.contains("&quot;&gt;&lt;script&gt;"));
    }

    #[test]
    fn failures_are_shown() {
        let mut result = example();
        result.equal_epochs = 3;
        let page = html(&result);
        assert!(page.contains("Not every claim held.") && page.contains("after 3 epochs of the 12"));
    }

    #[test]
    fn the_best_is_bold_and_a_tie_has_two() {
        let mut result = example();
        result.boards.truncate(1);
        result.boards[0].fedavg.full_top1 = result.boards[0].distilled.full_top1;
        let [distilled, alone, fedavg] = Method::ALL.map(|m| accuracy(&result.boards[0], m, Measure::All));
        assert!(distilled.contains("best") && fedavg.contains("best") && !alone.contains("best"));
    }

    #[test]
    fn a_run_in_which_nothing_happened_is_a_page_without_nan() {
        let mut result = example();
        for board in &mut result.boards {
            board.epochs.clear();
            (board.distilled, board.alone, board.fedavg) = Default::default();
            board.delay = Default::default();
            board.frequency_given_ghz = f64::NAN;
        }
        result.teacher.full_top1 = Default::default();
        result.stages = vec![("nothing".into(), 0.0)];
        let page = html(&result);
        well_formed(&page);
        assert!(!page.contains("NaN") && !page.contains("inf%"));
        result.boards.clear();
        result.stages.clear();
        well_formed(&html(&result));
    }
}
