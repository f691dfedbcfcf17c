//! What a round costs beyond training: one epoch of a stand-in that takes no time, with 4.9 MB of random labels down and
//! a state of 4.9 MB of random numbers up, sealed, over TLS with certificates of both sides, from the assignment to the
//! proof that both sides hold the same. `scripts/soak round` builds and runs it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark tells people")]

use std::path::PathBuf;

use twin_tests::{Fleet, Play, Running, programs};

const BYTES: usize = 4_900_000;
/// Rounds at the start in which pages are touched for the first time.
const WARM_UP: usize = 3;

fn main() {
    let Some(folder) = programs() else {
        eprintln!("skipped: TWIN_PROGRAMS is not set; scripts/soak round sets it");
        return;
    };
    println!(
        "{:>6} {:>6} {:>22} {:>22} {:>26}",
        "boards", "rounds", "round, median", "round, p90", "CPU of host and agents"
    );
    for (boards, rounds) in [(1, 40), (8, 12)] {
        measure(&folder, boards, rounds);
    }
}

fn measure(folder: &std::path::Path, boards: usize, rounds: usize) {
    let names: Vec<String> = (0..boards).map(|k| format!("board{k}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stand_in = PathBuf::from(env!("CARGO_BIN_EXE_stand-in-trainer"));
    let play = Play { labels: BYTES, batch: 64, tls: true, ..Play::carried(stand_in, BYTES) };
    let fleet = Fleet::played(folder.to_owned(), &names, "all-local", play);
    let all = WARM_UP + rounds;
    let host = fleet.serve(&names, u32::try_from(all).expect("few rounds"));
    let agents: Vec<Running> = names.iter().map(|name| fleet.agent(name)).collect();
    let processor = || -> f64 { agents.iter().chain([&host]).filter_map(Running::processor_seconds).sum() };
    let mut before = None;
    let mut after = 0.0;
    for (at, name) in names.iter().enumerate() {
        if at == 0 {
            fleet.wait_for(name, WARM_UP as u64);
            before = Some((processor(), fleet.log("host.log").matches("Round(").count()));
        }
        fleet.wait_for(name, all as u64);
        after = processor();
    }
    let log = fleet.log("host.log");
    let mut seconds: Vec<f64> = log.lines().filter(|line| line.contains("Round(")).filter_map(total).collect();
    let (used, done) = before.map_or((after, 0), |(used, done)| (after - used, done));
    let carried = (seconds.len() - done) * 2 * BYTES;
    seconds.drain(..(WARM_UP * boards).min(seconds.len()));
    seconds.sort_by(f64::total_cmp);
    let at = |part: f64| seconds[((seconds.len() - 1) as f64 * part) as usize];
    println!(
        "{boards:>6} {:>6} {:>19.1} ms {:>19.1} ms {:>15.1} ns a byte",
        seconds.len(),
        1e3 * at(0.5),
        1e3 * at(0.9),
        1e9 * used / carried as f64
    );
}

/// The time of a whole round, as the host's log says it.
fn total(line: &str) -> Option<f64> {
    line.split_once("total: Seconds(")?.1.split(')').next()?.parse().ok()
}
