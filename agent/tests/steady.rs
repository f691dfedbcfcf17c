//! A year of samples must not fill the memory. Alone in its program, so that nothing else moves the figures.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use twin_agent::sampler::{LinuxSampler, Root, Sampler};

/// Resident memory of this program, KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a program has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Processor time that this program used, in hundredths of a second (what the kernel counts in).
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(") ").expect("the name in brackets");
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn ten_thousand_samples_take_no_more_memory_than_one_thousand() {
    let mut live = LinuxSampler::new(Root::Live { data_dir: "/var/lib/twin-agent".into() }, None);
    let recorded = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/boards/rk3588-wifi");
    let mut recorded = LinuxSampler::new(Root::Recorded(recorded), None);
    let start = Instant::now();
    let sample = |board: &mut LinuxSampler, count: u32| {
        let used = processor_time();
        for second in 0..count {
            board.sample(start + Duration::from_secs(u64::from(second)));
        }
        (processor_time() - used) / count
    };
    sample(&mut live, 500);
    sample(&mut recorded, 500);
    let before = resident();
    println!("processor: {:?} a sample of this machine", sample(&mut live, 5_000));
    println!("processor: {:?} a sample of a recorded board", sample(&mut recorded, 5_000));
    let after = resident();
    println!("resident: {before} KiB, after 10,000 more samples {after} KiB");
    // A leak of 26 bytes a sample would show.
    assert!(after <= before + 256, "{before} KiB grew to {after} KiB");
}
