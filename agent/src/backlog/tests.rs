//! Disks and hosts that come and go at the worst moments.

use super::*;
use proptest::prelude::*;
use twin_shared::wire::telemetry::Reading;

const QUEUE: u64 = 7;

/// A sample of about 28 bytes.
fn sample() -> Telemetry {
    let mut sample = Telemetry::default();
    sample.cpu.cores = Reading::measured(4);
    sample
}

fn at(seconds: u64) -> Clocks {
    let elapsed = Duration::from_secs(seconds);
    Clocks { elapsed, unix_ms: 1_000_000 + seconds * 1000 }
}

/// The numbers of a batch's samples, and their times.
fn read(bytes: &[u8]) -> (Vec<u64>, Vec<u64>) {
    let batch = Batch::open(bytes).expect("a batch");
    let first = batch.header().first;
    let times: Vec<u64> = batch.map(|kept| kept.expect("whole").time_ms).collect();
    ((first..first + times.len() as u64).collect(), times)
}

/// The file as a disk keeps it.
fn store(file: &mut Vec<u8>, flush: Flush) {
    match flush {
        Flush::Replace(whole) => *file = whole,
        Flush::Append(more) => file.extend(more),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    Flush,
    DiskFull,
    Take(usize),
    Arrive,
    Lose,
    PowerCut(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Push),
        4 => Just(Step::Flush),
        1 => Just(Step::DiskFull),
        3 => (80..400_usize).prop_map(Step::Take),
        3 => Just(Step::Arrive),
        1 => Just(Step::Lose),
        1 => (0..40_usize).prop_map(Step::PowerCut),
    ]
}

proptest! {
    /// The content of a sample is its own number in a counting of all that were ever taken. Whatever happens, the host
    /// never takes one number for two samples, gets them in order, and lacks only what the queue had no room for or
    /// what a power cut took before it was stored.
    #[test]
    fn every_sample_is_accounted_for(steps in proptest::collection::vec(step(), 1..300)) {
        let (mut backlog, mut file, mut now) = (Backlog::new(500, QUEUE), Vec::new(), 0);
        let mut flying: Option<Outgoing> = None;
        let mut host: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
        let mut taken = 0_u64;
        let start = Instant::now();
        for step in steps {
            now += 60;
            let instant = start + Duration::from_secs(now);
            match step {
                Step::Push => {
                    let mut sample = sample();
                    sample.path.goodput_up =
                        Reading::measured(twin_shared::wire::telemetry::quantity::KilobitsPerSecond(u32::try_from(taken).expect("few")));
                    backlog.push(Duration::from_secs(now), &sample);
                    taken += 1;
                }
                Step::Flush => if let Some(flush) = backlog.flush(instant, at(now)) {
                    store(&mut file, flush);
                },
                Step::DiskFull => if backlog.flush(instant, at(now)).is_some() {
                    backlog.not_flushed();
                },
                Step::Take(room) => flying = backlog.batch(room, at(now)),
                Step::Arrive => if let Some(batch) = flying.take() {
                    prop_assert!(batch.bytes.len() <= 400);
                    let opened = Batch::open(&batch.bytes).expect("a batch");
                    let first = opened.header().first;
                    for (number, kept) in (first..).zip(opened) {
                        let content = kept.expect("whole").sample.path.goodput_up.value().expect("set").0;
                        let known = host.entry(number).or_insert(content.into());
                        prop_assert_eq!(*known, u64::from(content), "one number, two samples");
                    }
                    backlog.arrived(&batch);
                },
                Step::Lose => flying = None,
                Step::PowerCut(torn) => {
                    flying = None;
                    // An append in progress may be on disk in part.
                    if let Some(Flush::Append(more)) = backlog.flush(instant, at(now)) {
                        file.extend(&more[..torn.min(more.len() - 1)]);
                    }
                    backlog = Backlog::restore(500, QUEUE + taken + 1, &file);
                }
            }
            prop_assert!(backlog.bytes <= 500);
            let contents: Vec<u64> = host.values().copied().collect();
            prop_assert!(contents.is_sorted_by(|a, b| a < b), "{:?}", contents);
        }
    }

    /// Without a power cut and with a disk that works nothing is missing but what was dropped for want of room.
    #[test]
    fn only_the_oldest_are_dropped(pushes in 1_u64..60) {
        let (start, mut backlog) = (Instant::now(), Backlog::new(500, QUEUE));
        (0..pushes).for_each(|second| backlog.push(Duration::from_secs(second), &sample()));
        backlog.flush(start, at(pushes));
        let batch = backlog.batch(10_000, at(pushes)).expect("stored");
        let (numbers, times) = read(&batch.bytes);
        prop_assert_eq!(numbers.last(), Some(&(pushes - 1)));
        prop_assert!(times.iter().zip(&numbers).all(|(time, number)| *time == 1_000_000 + number * 1000));
        let kept = numbers.len() as u64;
        prop_assert!(kept == pushes || backlog.bytes + encoded(&sample()).len() > 500, "{} of {}", kept, pushes);
    }
}

#[test]
fn storage_is_written_at_most_once_a_minute_and_only_if_something_is_new() {
    let (start, mut backlog) = (Instant::now(), Backlog::new(1_000, QUEUE));
    let after = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(backlog.flush(start, at(0)), None, "nothing to store");
    backlog.push(Duration::ZERO, &sample());
    assert!(backlog.batch(1_000, at(0)).is_none(), "not on disk yet");
    let Some(Flush::Replace(mut file)) = backlog.flush(start, at(0)) else { panic!("the first time all is new") };
    backlog.push(Duration::from_secs(1), &sample());
    assert_eq!(backlog.flush(after(59), at(59)), None);
    let Some(Flush::Append(more)) = backlog.flush(after(60), at(60)) else { panic!("one is new") };
    file.extend(&more);
    assert_eq!(read(&file), (vec![0, 1], vec![1_000_000, 1_001_000]));
    assert_eq!(backlog.flush(after(600), at(600)), None, "nothing new");
    let all = backlog.batch(1_000, at(600)).expect("two");
    backlog.arrived(&all);
    let Some(Flush::Replace(empty)) = backlog.flush(after(600), at(600)) else { panic!("two went") };
    let restored = Backlog::restore(1_000, 99, &empty);
    assert_eq!((restored.queue, restored.first, restored.len()), (QUEUE, 2, 0), "the numbering goes on");
}

#[test]
fn a_clock_that_is_set_moves_the_samples_of_this_life() {
    let mut backlog = Backlog::new(1_000, QUEUE);
    let unset = Clocks { elapsed: Duration::from_secs(30), unix_ms: 30_000 };
    backlog.push(Duration::from_secs(20), &sample());
    let Some(Flush::Replace(file)) = backlog.flush(Instant::now(), unset) else { panic!("new") };
    assert_eq!(read(&file).1, [20_000], "1970, as far as the board knows");
    let set = Clocks { elapsed: Duration::from_secs(50), unix_ms: 1_800_000_000_000 };
    assert_eq!(read(&backlog.batch(1_000, set).expect("stored").bytes).1, [1_800_000_000_000 - 30_000]);
    // What is known of a sample of an earlier life is the clock of then.
    let restored = Backlog::restore(1_000, 99, &file);
    assert_eq!(read(&restored.batch(1_000, set).expect("stored").bytes).1, [20_000]);
}

#[test]
fn a_stored_file_cut_short_gives_what_is_before_the_cut() {
    let mut backlog = Backlog::new(1_000, QUEUE);
    (0..5).for_each(|second| backlog.push(Duration::from_secs(second), &sample()));
    let Some(Flush::Replace(stored)) = backlog.flush(Instant::now(), at(5)) else { panic!("new") };
    for end in 0..stored.len() {
        let mut part = Backlog::restore(1_000, 99, &stored[..end]);
        assert!(part.len() < 5, "{end}");
        part.push(Duration::ZERO, &sample());
        let mut file = stored[..end].to_vec();
        store(&mut file, part.flush(Instant::now(), at(9)).expect("one is new"));
        let again = Backlog::restore(1_000, 99, &file);
        assert_eq!((again.len(), again.first), (part.len(), part.first), "{end}: nothing is added behind a torn end");
    }
}

/// A board that is offline for a whole day, at a sample every five seconds.
#[test]
fn a_day_offline_writes_little() {
    const LIMIT: usize = 256 << 10;
    let (start, mut backlog) = (Instant::now(), Backlog::new(LIMIT, QUEUE));
    let (mut written, mut writes) = (0, 0);
    for second in (0..24 * 3600_u64).step_by(5) {
        backlog.push(Duration::from_secs(second), &sample());
        if let Some(Flush::Replace(bytes) | Flush::Append(bytes)) =
            backlog.flush(start + Duration::from_secs(second), at(second))
        {
            written += bytes.len();
            writes += 1;
        }
    }
    let samples = 24 * 3600 / 5 * (10 + encoded(&sample()).len());
    println!("a day offline: {written} bytes in {writes} writes, for {samples} bytes of samples at most");
    assert!(writes <= 24 * 60, "{writes}");
    assert!(written <= 2 * samples + LIMIT, "{written}");
}
