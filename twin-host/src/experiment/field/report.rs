//! A field test's report, for people. PURE.

use std::fmt::Write as _;

use super::look::{Done, Epoch, Run, median};
use super::plan::{Boards, Target};
use super::replay::Replay;

/// A line or two for the terminal.
pub(super) fn summary(run: &Run) -> String {
    let epochs = run.epochs();
    let local = epochs.iter().filter(|epoch| epoch.site == "local").count();
    format!(
        "{} boards, {:.0} s: {} epochs ({local} on the boards), {} decisions, {} samples, {} steps",
        run.plan.boards.names().len(),
        run.since(run.over),
        epochs.len(),
        run.recording.moments.len(),
        run.recording.samples.len(),
        run.done.len(),
    )
}

/// The whole report.
pub(super) fn markdown(run: &Run) -> String {
    let mut page = format!(
        "# Field test\n\n{}.\n\nRun with {} on a machine of {} cores. Times are seconds after the start; the teacher was done \
         at {}.\n\n![Epochs and steps over time](timeline.svg)\n",
        summary(run),
        run.how,
        run.cores,
        number(run.teacher_s(), 0),
    );
    boards(run, &mut page);
    steps(run, &mut page);
    decisions(run, &mut page);
    links(run, &mut page);
    replays(run, &mut page);
    let failures = run.failures();
    page += "\n## Not as it should be\n\n";
    if failures.is_empty() {
        page += "Nothing.\n";
    }
    for failure in failures {
        page += &format!("- {failure}\n");
    }
    if run.recording.unreadable > 0 {
        page += &format!("- {} lines of the recording could not be read\n", run.recording.unreadable);
    }
    page
}

/// A number, or a dash.
fn number(number: Option<f64>, digits: usize) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.digits$}"))
}

fn table(page: &mut String, header: &[&str], rows: Vec<Vec<String>>) {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    *page += &line(header.iter().map(|cell| (*cell).to_owned()).collect());
    *page += &line(header.iter().map(|_| "---".to_owned()).collect());
    for row in rows {
        *page += &line(row.into_iter().map(|cell| cell.replace('|', "/").replace('\n', " ")).collect());
    }
}

fn boards(run: &Run, page: &mut String) {
    *page += "\n## Boards\n\n";
    let epochs = run.epochs();
    let rows = run.plan.boards.names().into_iter().enumerate().map(|(k, name)| {
        let played = match &run.plan.boards {
            Boards::Emulated { boards, .. } => Some(&boards[k]),
            Boards::Real(_) => None,
        };
        let own: Vec<&Epoch> = epochs.iter().filter(|epoch| epoch.device == *name).collect();
        let at = |site: &'static str| own.iter().filter(move |epoch| epoch.site == site);
        let middle = |site| number(median(at(site).map(|epoch| epoch.seconds)), 1);
        let samples = run.recording.samples.iter().filter(|sample| sample.device == *name).count();
        vec![
            name.to_string(),
            number(played.map(|board| board.cpu), 2),
            number(played.map(|board| board.link.0 / 1e6), 0),
            own.last().map_or_else(|| "-".to_owned(), |epoch| epoch.network.clone()),
            at("local").count().to_string(),
            middle("local"),
            at("host").count().to_string(),
            middle("host"),
            run.offloaded(name).to_string(),
            samples.to_string(),
            run.standing.get(k).map_or("-", |standing| standing.name()).to_owned(),
        ]
    });
    let header = [
        "board",
        "of a core",
        "link, Mbit/s",
        "student",
        "epochs on the board",
        "median s",
        "on the host",
        "median s",
        "given up by the board",
        "samples",
        "student on board and twin",
    ];
    table(page, &header, rows.collect());
}

fn steps(run: &Run, page: &mut String) {
    *page += "\n## What was done, and what followed\n\n";
    let row = |done: &Done| {
        let (at, device) = match &done.target {
            Target::Host => (done.at.as_secs_f64(), None),
            Target::Board(name) => (done.at.as_secs_f64(), Some(name)),
        };
        vec![
            format!("{at:.0}"),
            done.target.to_string(),
            done.what.clone(),
            done.failure.clone().unwrap_or_else(|| "done".into()),
            number(device.and_then(|name| run.next_sample(name, at)), 1),
            number(run.next_epoch(device, at), 1),
        ]
    };
    let rows: Vec<Vec<String>> = run.done.iter().map(row).collect();
    table(
        page,
        &["at", "whom", "what", "outcome", "s to its next sample", "s to its next epoch (host: anybody's)"],
        rows,
    );
}

fn decisions(run: &Run, page: &mut String) {
    let policy = run.recording.moments.last().map_or("-", |moment| moment.answered.policy.as_str());
    let _ =
        write!(page, "\n## Decisions\n\n{} by {policy}. Where one changed something:\n\n", run.recording.moments.len());
    let rows = run.changes().into_iter().map(|(at, decision, device, from, to, why)| {
        vec![format!("{at:.0}"), decision.to_string(), device, from, to, why]
    });
    table(page, &["at", "decision", "device", "from", "to", "why"], rows.collect());
}

fn links(run: &Run, page: &mut String) {
    *page += "\n## Links, as set and as measured by the boards\n\n";
    let mut rows = Vec::new();
    for name in run.plan.boards.names() {
        for (from, to, rate) in run.links(name) {
            let within = run.recording.samples.iter().filter(|sample| {
                let at = run.since(sample.at);
                sample.device == *name && at >= from && at < to
            });
            // What was measured before the link changed says nothing of it.
            let fresh = |age: u32, at: f64| run.since(at) - f64::from(age) >= from;
            let samples: Vec<_> = within.collect();
            let goodput = |up: bool| {
                let figures = samples.iter().filter_map(|sample| {
                    let figure =
                        if up { &sample.goodput_up_bits_per_second } else { &sample.goodput_down_bits_per_second };
                    figure.as_ref().filter(|figure| fresh(figure.age_s, sample.at)).map(|figure| figure.value / 1e6)
                });
                number(median(figures), 2)
            };
            let round_trips = samples.iter().filter_map(|sample| {
                let figure = sample.round_trip_p50_s.as_ref()?;
                fresh(figure.age_s, sample.at).then_some(figure.value * 1e3)
            });
            rows.push(vec![
                name.to_string(),
                format!("{from:.0} to {to:.0}"),
                format!("{:.2}", rate / 1e6),
                goodput(true),
                goodput(false),
                number(median(round_trips), 1),
            ]);
        }
    }
    let header =
        ["board", "from, to", "set, Mbit/s", "up, Mbit/s (median)", "down, Mbit/s (median)", "round trip, ms (median)"];
    table(page, &header, rows);
}

fn replays(run: &Run, page: &mut String) {
    if run.replays.is_empty() {
        return;
    }
    *page += "\n## The same questions, answered by other policies\n\nEvery recorded decision asked again \
              (`twin-host experiment replay`); what a device has is what the policy gave it before. Means are over the time \
              for which answers held; Eq. (6) is of all devices.\n\n";
    let mut header = vec!["policy"];
    header.extend(HEADER);
    let rows = run.replays.iter().map(|replay| [vec![replay.policy.to_owned()], figures(replay)].concat());
    table(page, &header, rows.collect());
}

/// What [`figures`] are.
pub(crate) const HEADER: [&str; 5] =
    ["Eq. (6), mean", "epoch's delay, s, mean", "moves", "time on the boards", "answers as recorded"];

/// A replay in a row.
pub(crate) fn figures(replay: &Replay) -> Vec<String> {
    vec![
        format!("{:.4}", replay.objective()),
        format!("{:.2}", replay.average_delay()),
        replay.moved().to_string(),
        format!("{:.0} %", replay.local() * 100.0),
        format!("{} of {}", replay.as_recorded(), replay.turns.len()),
    ]
}
