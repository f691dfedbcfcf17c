//! Blobs at the pace of a token bucket over a link with a rate and a delay of its own, on a simulated clock: what
//! r_i comes to when the protocol's window, its acknowledgements and the link are between sender and receiver. Both
//! directions of a connection are this same code, with board and host in either role.

#![allow(clippy::wildcard_enum_match_arm, reason = "an output that cannot come is a failure of the test")]

use core::time::Duration;
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::id::{BlobHash, DatasetVersion};
use crate::pacing::TokenBucket;
use crate::units::BitsPerSecond;
use crate::wire::{BlobAck, Manifest, Purpose};

/// What sealing and headers add to a chunk here.
const OVERHEAD: u32 = 160;

/// What it took to carry one blob.
struct Carried {
    seconds: f64,
    /// Bytes that had left the sender, by time.
    left: Vec<(Duration, f64)>,
}

/// Sends a blob of `size` bytes at pace `rate` over a link of `link` bits a second with `delay` each way. The sender
/// wakes `late` after the time that it asked for.
fn carry(size: u64, rate: f64, link: f64, delay: Duration, late: Duration) -> Carried {
    let purpose = Purpose::Dataset(DatasetVersion([0; 32]));
    let manifest = Manifest { blob: BlobHash([7; 32]), size, chunk: chunk_for(rate as u64), purpose };
    let (mut sender, mut receiver) = (Exchange::default(), Exchange::default());
    sender.send(manifest);
    let mut bucket = TokenBucket::of_link(BitsPerSecond(rate), Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut link_free = Duration::ZERO;
    let mut down: VecDeque<(Duration, Output)> = VecDeque::new();
    let mut up: VecDeque<(Duration, BlobAck)> = VecDeque::new();
    let mut left = Vec::new();
    let mut total = 0.0;
    for _ in 0..1_000_000 {
        let mut wake = None;
        while sender.wake_at().is_some_and(|at| at <= now) {
            if let Err(wait) = bucket.ready(now) {
                wake = Some(now + wait + late);
                break;
            }
            let Some(output) = sender.poll(now) else { break };
            let bytes = match output {
                Output::Chunk { length, .. } => length + OVERHEAD,
                _ => OVERHEAD,
            };
            bucket.charge(bytes);
            total += f64::from(bytes);
            left.push((now, total));
            link_free = link_free.max(now) + Duration::from_secs_f64(f64::from(bytes) * 8.0 / link);
            down.push_back((link_free + delay, output));
        }
        let next = [
            wake,
            sender.wake_at().filter(|at| *at > now),
            down.front().map(|(at, _)| *at),
            up.front().map(|(at, _)| *at),
        ];
        now = next.into_iter().flatten().min().expect("something is under way").max(now);
        while let Some((_, output)) = down.pop_front_if(|(at, _)| *at <= now) {
            let answer = match output {
                Output::Offer(manifest) => Some(receiver.on_manifest(manifest, Ok(u64::MAX), OnDisk::Nothing)),
                Output::Chunk { blob, index, length, .. } => match receiver.place(&blob, index, length as usize) {
                    Some(_) => receiver.wrote(&blob, index),
                    None => receiver.holding(&blob),
                },
                other => panic!("{other:?} from poll"),
            };
            let answer = match answer {
                Some(Output::Verify(manifest)) => Some(receiver.verified(&manifest.blob, Ok(()))),
                other => other,
            };
            if let Some(Output::Ack(ack)) = answer {
                up.push_back((now + delay, ack));
            }
        }
        while let Some((_, ack)) = up.pop_front_if(|(at, _)| *at <= now) {
            if let Some(Output::Sent(_)) = sender.on_ack(&ack, now) {
                return Carried { seconds: now.as_secs_f64(), left };
            }
        }
    }
    panic!("the blob never arrived");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Over half a minute, or over a hundred chunks where a chunk takes longer than that, goodput is at least 95 % of the smaller of pace and link, and at no time has more left the
    /// sender than `r t + burst`.
    #[test]
    fn goodput_reaches_the_smaller_of_pace_and_link(
        rate in (5.5f64..7.9).prop_map(|exponent| 10f64.powf(exponent)),
        ratio in prop_oneof![Just(1.0), 0.2f64..8.0],
        delay_ms in 0u64..60,
        late_ms in 0u64..20,
    ) {
        let link = rate * ratio;
        let slower = rate.min(link);
        let size = ((slower / 8.0 * 30.0) as u64).max(100 * u64::from(chunk_for(rate as u64)));
        let carried = carry(size, rate, link, Duration::from_millis(delay_ms), Duration::from_millis(late_ms));
        let goodput = size as f64 * 8.0 / carried.seconds;
        prop_assert!(goodput >= 0.95 * slower, "{goodput} of {slower} bit/s, pace {rate}, link {link}");
        let burst = f64::from(chunk_for(rate as u64) + 512) + rate / 80.0;
        for (at, bytes) in carried.left {
            let most = rate / 8.0 * at.as_secs_f64() + burst;
            prop_assert!(bytes <= most * (1.0 + 1e-9) + 1.0, "{bytes} bytes after {at:?}, at most {most}");
        }
    }
}
