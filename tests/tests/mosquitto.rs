//! Blobs by way of a Mosquitto as Debian has it, whose queue for a client is short and loses what does not fit without
//! a word to the sender.

use std::path::{Path, PathBuf};
use std::time::Duration;

use twin_shared::transfer::{WINDOW, WINDOW_BYTES};
use twin_tests::{Fleet, Play, mosquitto_or_skip, programs_or_skip};

const MIB: usize = 1 << 20;

/// A state of 12 MiB goes down as the base and comes up trained, three times, with the receiver standing still in the
/// middle: the window fits into the queue, so nothing of it is lost, and next to nothing is sent twice.
#[expect(clippy::print_stdout, reason = "the figures behind the bounds")]
fn carry(programs: PathBuf, mosquitto: &Path, lines: &str) {
    let (state, epochs) = (12 * MIB, 3);
    let stand_in = PathBuf::from(env!("CARGO_BIN_EXE_stand-in-trainer"));
    let play = Play { tls: true, ..Play::carried(stand_in, state) };
    let fleet = Fleet::played(programs, &["left"], "all-local", play);
    let _broker = fleet.behind_mosquitto(mosquitto, lines);
    let proxy = fleet.proxy("left");
    let host = fleet.serve(&["left"], epochs);
    let _agent = fleet.agent("left");
    proxy.wait_for_up(3 * MIB as u64);
    host.stand_still(Duration::from_secs(3));
    fleet.wait_for("left", u64::from(epochs));
    let (up, down) = proxy.carried();
    println!("{lines:?}: {up} bytes up for {epochs} states of {state}, {down} down for one");
    let most = |states: usize| (states * (state + state / 50) + MIB) as u64 + u64::from(WINDOW_BYTES);
    assert!(up <= most(epochs as usize), "{up} bytes up, at most {}", most(epochs as usize));
    assert!(down <= most(1), "{down} bytes down, at most {}", most(1));
}

#[test]
fn states_go_both_ways_with_the_queue_as_it_comes() {
    carry(programs_or_skip!(), mosquitto_or_skip!(), "");
}

/// Twice the window, and not a message more.
#[test]
fn states_go_both_ways_with_a_queue_of_two_windows() {
    let lines = format!("max_inflight_messages 1\nmax_queued_messages {}\n", 2 * WINDOW);
    carry(programs_or_skip!(), mosquitto_or_skip!(), &lines);
}
