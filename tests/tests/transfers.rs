//! Blobs with the programs as they are deployed, over connections that stall, break and swallow, and sides that are
//! killed. A stand-in for the trainer makes states of the size that is wanted. The long forms run by `scripts/soak`:
//! `SOAK_TRANSFERS`, `SOAK_BYTES` and `SOAK_SECONDS` say how many, how large, and how long on each narrow link.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use twin_shared::transfer::WINDOW_BYTES;
use twin_tests::{Fault, Fleet, Play, Proxy, programs_or_skip};

const MIB: usize = 1 << 20;

fn stand_in() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_stand-in-trainer"))
}

fn asked(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What a payload takes on the way at most: envelopes, packets, acknowledgements, and everything that is no blob.
fn with_overhead(bytes: usize) -> u64 {
    (bytes + bytes / 50 + MIB) as u64
}

/// A state of 12 MB goes up, and in its middle `fault` happens. At most a window goes up again.
#[expect(clippy::print_stdout, reason = "the figure behind the bound")]
fn goes_up_through(fault: impl Fn(&Proxy)) {
    let state = 12 * MIB;
    let fleet = Fleet::played(programs_or_skip!(), &["left"], "all-local", Play::carried(stand_in(), state));
    let proxy = fleet.proxy("left");
    let _host = fleet.serve(&["left"], 1);
    let _agent = fleet.agent("left");
    proxy.wait_for_up(3 * MIB as u64);
    fault(&proxy);
    fleet.wait_for("left", 1);
    let (up, _) = proxy.carried();
    let most = with_overhead(state) + u64::from(WINDOW_BYTES);
    assert!(up <= most, "{up} bytes went up for {state}, at most {most} may");
    println!("{up} bytes up for a state of {state}");
}

#[test]
fn a_state_goes_up_through_a_stall() {
    goes_up_through(|proxy| {
        proxy.set(Fault::Stall);
        thread::sleep(Duration::from_secs(3));
        proxy.set(Fault::None);
    });
}

#[test]
fn a_state_goes_up_through_a_reset() {
    goes_up_through(Proxy::reset);
}

#[test]
fn a_state_goes_up_through_a_black_hole() {
    goes_up_through(|proxy| {
        proxy.set(Fault::BlackHole);
        thread::sleep(Duration::from_secs(2));
        proxy.reset();
        proxy.set(Fault::None);
    });
}

#[test]
fn a_board_killed_in_a_transfer_sends_at_most_a_window_again() {
    let state = 12 * MIB;
    let fleet = Fleet::played(programs_or_skip!(), &["left"], "all-local", Play::carried(stand_in(), state));
    let proxy = fleet.proxy("left");
    let _host = fleet.serve(&["left"], 1);
    let mut agent = fleet.agent("left");
    proxy.wait_for_up(5 * MIB as u64);
    agent.kill();
    let _again = fleet.agent("left");
    fleet.wait_for("left", 1);
    let (up, _) = proxy.carried();
    let most = with_overhead(state) + u64::from(WINDOW_BYTES);
    assert!(up <= most, "{up} bytes went up for {state}, at most {most} may");
    println!("{up} bytes up for a state of {state}");
}

/// The dataset goes up once, whatever becomes of the host meanwhile.
#[test]
fn a_host_killed_in_a_transfer_is_sent_at_most_a_window_again() {
    let images = 4000;
    let play = Play { images, batch: 512, ..Play::carried(stand_in(), 1 << 16) };
    let fleet = Fleet::played(programs_or_skip!(), &["left"], "all-local", play);
    let proxy = fleet.proxy("left");
    let mut host = fleet.serve(&["left"], 1);
    let _agent = fleet.agent("left");
    proxy.wait_for_up(5 * MIB as u64);
    host.kill();
    let _again = fleet.serve(&["left"], 1);
    fleet.wait_for("left", 1);
    let (up, _) = proxy.carried();
    let most = with_overhead(images * 3074) + u64::from(WINDOW_BYTES);
    assert!(up <= most, "{up} bytes went up for {images} images, at most {most} may");
    println!("{up} bytes up for {images} images of 3,074 bytes");
}

/// What both programs hold does not grow with what they carry. The job goes on meanwhile: at its end the host makes a
/// model of the last state, which it does hold whole.
#[test]
fn memory_does_not_grow_with_the_payload() {
    let folder = programs_or_skip!();
    let peaks = [MIB, 64 * MIB].map(|state| {
        let fleet = Fleet::played(folder.clone(), &["left"], "all-local", Play::carried(stand_in(), state));
        let host = fleet.serve(&["left"], 4);
        let agent = fleet.agent("left");
        fleet.wait_for("left", 2);
        [host.peak_memory().expect("Linux says"), agent.peak_memory().expect("Linux says")]
    });
    let [[small_host, small_agent], [host, agent]] = peaks;
    println!(
        "peak memory with states of 1 and 64 MiB: host {} and {} KiB, agent {} and {} KiB",
        small_host >> 10,
        host >> 10,
        small_agent >> 10,
        agent >> 10
    );
    // A window and its copies on the way, both ways; far below the payload.
    let more = 24 << 20;
    assert!(host < small_host + more && agent < small_agent + more, "{peaks:?}");
}

/// Deltas up from a board that trains, and down to one that does not: both sides hold the same after every epoch.
#[test]
fn states_travel_as_differences_both_ways() {
    let folder = programs_or_skip!();
    let state = 4 * MIB;
    for (compression, part) in [("int8", 0.27), ("int4", 0.15)] {
        for policy in ["all-local", "all-host"] {
            let student = format!("compression = \"{compression}\"\n");
            let play = Play { student, ..Play::carried(stand_in(), state) };
            let fleet = Fleet::played(folder.clone(), &["left"], policy, play);
            let proxy = fleet.proxy("left");
            let _host = fleet.serve(&["left"], 4);
            let _agent = fleet.agent("left");
            fleet.wait_for("left", 4);
            let (up, down) = proxy.carried();
            // On the host the first state goes whole; to a board the state that it starts from does.
            let (whole, deltas) = if policy == "all-local" { (down, up) } else { (0, down - state as u64) };
            let epochs = if policy == "all-local" { 4.0 } else { 3.0 };
            let most = with_overhead((part * epochs * state as f64) as usize);
            println!("{policy}, {compression}: {deltas} bytes for {epochs} states of {state}");
            assert!(deltas <= most, "{deltas} > {most}");
            assert!(whole <= with_overhead(state));
        }
    }
}

#[test]
fn a_state_that_is_exchanged_at_the_end_goes_once() {
    let state = 4 * MIB;
    for policy in ["all-local", "all-host"] {
        let play = Play { student: "sync_every = \"final\"\n".into(), ..Play::carried(stand_in(), state) };
        let fleet = Fleet::played(programs_or_skip!(), &["left"], policy, play);
        let proxy = fleet.proxy("left");
        let _host = fleet.serve(&["left"], 5);
        let _agent = fleet.agent("left");
        fleet.wait_for("left", 5);
        let (up, down) = proxy.carried();
        assert!(up + down <= with_overhead(2 * state), "{policy}: {up} bytes up, {down} down");
    }
}

/// What `show` says was carried is what went over the wire, less TCP's and TLS's own.
#[test]
fn what_is_carried_is_counted_by_its_use() {
    let state = 4 * MIB;
    let fleet = Fleet::played(programs_or_skip!(), &["left"], "all-local", Play::carried(stand_in(), state));
    let proxy = fleet.proxy("left");
    let mut host = fleet.serve(&["left"], 2);
    let _agent = fleet.agent("left");
    fleet.wait_for("left", 2);
    assert!(host.terminate(), "the host ends well on SIGTERM");
    let (up, down) = proxy.carried();
    let total = &fleet.show("left")["traffic"]["total"];
    let sum = |way: &str| -> u64 {
        let uses = total.as_object().expect("an object").values();
        uses.map(|used| used[way].as_u64().expect("a number")).sum()
    };
    println!("carried {up} up and {down} down, counted {total}");
    for (counted, carried) in [(sum("up_bytes"), up), (sum("down_bytes"), down)] {
        assert!(counted <= carried && counted * 100 >= carried * 97, "{counted} of {carried}: {total}");
    }
    // Up twice, down once as the base.
    let student = &total["student"];
    assert!(student["up_bytes"].as_u64() >= Some(2 * state as u64), "{total}");
    assert!(student["down_bytes"].as_u64() >= Some(state as u64), "{total}");
    assert!(total["dataset"]["up_bytes"].as_u64() >= Some(24 * 3074), "{total}");
}

/// Once the day's megabytes are spent no blob moves, and no more than a window has gone beyond.
#[test]
fn a_metered_board_waits_for_the_next_day() {
    let state = 8 * MIB;
    let fleet = Fleet::played(programs_or_skip!(), &["left"], "all-local", Play::carried(stand_in(), state));
    fleet.configure_host("[[metered]]\ndevice = \"left\"\nmax_mb_per_day = 4\n");
    let proxy = fleet.proxy("left");
    let _host = fleet.serve(&["left"], 2);
    let _agent = fleet.agent("left");
    // The state that it starts from is 8 MB: it does not get through today.
    let sum = || proxy.carried().0 + proxy.carried().1;
    while sum() < 4_000_000 {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_secs(6));
    let after = sum();
    thread::sleep(Duration::from_secs(5));
    let most = 4_000_000 + u64::from(WINDOW_BYTES) + MIB as u64;
    assert!(after <= most && sum() < after + 100_000, "{after} and then {} bytes, at most {most}", sum());
    assert!(fleet.show("left")["student"].is_null(), "no epoch is done");
}

/// All hashes right, transfer after transfer: an epoch is done only where both sides hash the same.
#[test]
fn many_large_states_go_up() {
    let (transfers, state) = (asked("SOAK_TRANSFERS", 3), asked("SOAK_BYTES", 30_000_000));
    let fleet = Fleet::played(programs_or_skip!(), &["left"], "all-local", Play::carried(stand_in(), state));
    let _host = fleet.serve(&["left"], u32::try_from(transfers).expect("a number of epochs"));
    let _agent = fleet.agent("left");
    let start = Instant::now();
    for done in (10..transfers).step_by(10).chain([transfers]) {
        fleet.wait_for("left", done as u64);
    }
    let log = fleet.log("left/agent.log");
    let uploads = deliveries(&log).filter(|delivery| delivery.bytes + 1024 > state as u64);
    let (count, seconds) = uploads.fold((0, 0.0), |(count, sum), delivery| (count + 1, sum + delivery.seconds));
    println!(
        "{count} states of {state} bytes up, {:.1} MB/s while they went, {:.1} s in all",
        (count * state) as f64 / seconds / 1e6,
        start.elapsed().as_secs_f64()
    );
    assert_eq!(count, transfers, "each went up once");
    let blobs = Path::new(&fleet.path("host")).join("twins/left/blobs");
    let large = |entry: std::io::Result<fs::DirEntry>| {
        entry.and_then(|entry| entry.metadata()).is_ok_and(|data| data.len() >= state as u64)
    };
    let held = fs::read_dir(blobs).expect("the twin has blobs").map(large).filter(|&is| is).count();
    assert!(held <= 2, "the twin holds {held} states: the newest, and the one before until the next is proved");
}

/// A blob that the host has, as the agent's log says it.
struct Delivery {
    bytes: u64,
    seconds: f64,
}

fn deliveries(log: &str) -> impl Iterator<Item = Delivery> {
    log.lines().filter(|line| line.contains("the host has a blob")).filter_map(|line| {
        let plain = unstyled(line);
        let field = |name: &str| plain.split_once(&format!(" {name}="))?.1.split(' ').next().map(str::to_owned);
        Some(Delivery { bytes: field("bytes")?.parse().ok()?, seconds: field("seconds")?.parse().ok()? })
    })
}

/// A line without the escapes that colour it.
fn unstyled(line: &str) -> String {
    let mut plain = String::new();
    let mut parts = line.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, text)| text));
    }
    plain
}

/// Narrow links in a network of our own: goodput is most of the link.
#[test]
fn narrow_links_are_used_well() {
    let folder = programs_or_skip!();
    let seconds = asked("SOAK_SECONDS", 8);
    for rate in [256_000usize, 1_000_000, 8_000_000] {
        let bytes = rate / 8 * seconds;
        let images = bytes.div_ceil(3074);
        let play = Play { images, batch: 4096, rate: 1e11, ..Play::carried(stand_in(), 1 << 10) };
        let fleet = Fleet::played(folder.clone(), &["left"], "all-local", play);
        let Some(link) = twin_tests::NarrowLink::new(rate) else {
            eprintln!("skipped: no network namespaces with tbf here (needs root, iproute2 and the kernel's sch_tbf)");
            return;
        };
        let (_host, _agent) = fleet.across(&link, &["left"], 1);
        fleet.wait_for("left", 1);
        let log = fleet.log("left/agent.log");
        let sent = deliveries(&log).find(|delivery| delivery.bytes > bytes as u64 / 2).expect("the dataset went up");
        let goodput = sent.bytes as f64 * 8.0 / sent.seconds;
        println!(
            "{rate} bit/s: {} bytes in {:.1} s, goodput {:.1} % of the link",
            sent.bytes,
            sent.seconds,
            100.0 * goodput / rate as f64
        );
        assert!(goodput >= 0.8 * rate as f64, "{goodput} of {rate} bit/s");
    }
}

/// A board that has nothing to do but to say how it is, every five seconds, with every byte of every header both ways,
/// those of TLS included.
#[test]
fn telemetry_costs_a_hundred_bytes_a_second_at_most() {
    let folder = programs_or_skip!();
    let seconds = asked("SOAK_SECONDS", 60) as u64;
    let play = Play { period_s: 5, tls: true, ..Play::carried(stand_in(), 1 << 10) };
    let fleet = Fleet::played(folder, &["left"], "all-local", play);
    let Some(link) = twin_tests::NarrowLink::new(10_000_000) else {
        eprintln!("skipped: no network namespaces with tbf here (needs root, iproute2 and the kernel's sch_tbf)");
        return;
    };
    let (_host, _agent) = fleet.across(&link, &["left"], 1);
    fleet.wait_for("left", 1);
    thread::sleep(Duration::from_secs(10));
    let (before, start) = (link.crossed().expect("the kernel counts"), Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let bytes = link.crossed().expect("the kernel counts") - before;
    let rate = bytes as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.1} bytes a second, both ways, Ethernet, IP, TCP, TLS and MQTT included");
    assert!(bytes > 0 && rate <= 100.0, "{bytes} bytes in {seconds} s");
}

#[test]
fn the_stand_in_is_there() {
    assert!(Path::new(env!("CARGO_BIN_EXE_stand-in-trainer")).is_file());
}
