//! What a broker keeps of much traffic: measured as this process's resident memory, so alone in its program.
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(dead_code, reason = "a part of what the other tests use")]

#[path = "broker/raw.rs"]
mod raw;
#[path = "broker/stage.rs"]
mod stage;

use raw::publish_packet;
use stage::{Stage, topic};
use twin_host::broker::{Broker, Outbound};
use twin_shared::wire::{Channel, MAX_CHUNK};

/// Bytes; None where the system does not say.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib << 10)
}

/// Queue, lanes and messages not yet acknowledged, of one board that has stopped reading: 8 MiB each, the last
/// twice (as sent, and as kept for its session); and what the allocator holds back.
const BOUND: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_board_that_stops_reading_nor_much_traffic_fills_the_memory() {
    let Some(before) = resident() else {
        println!("skipped: this system does not tell the resident memory");
        return;
    };
    let mut stage = Stage::set().await;
    let mut stopped = stage.listener("board0").await;
    // 300 MB that the board does not read, and no credits are asked for.
    for _ in 0..1200 {
        let message = Outbound { topic: topic("board0", Channel::DnBlob), payload: vec![1; MAX_CHUNK].into() };
        stage.broker.publish(message).await.unwrap();
    }
    let stalled = resident().unwrap().saturating_sub(before);
    println!("300 MB to a board that does not read: {} MiB more resident", stalled >> 20);
    assert!(stalled < BOUND, "{stalled} bytes");

    let mut talker = stage.board("board1").await;
    let blob = topic("board1", Channel::UpBlob).to_string();
    let sender = tokio::spawn(async move {
        for _ in 0..1200 {
            assert!(talker.send(&publish_packet(&blob, &[2; MAX_CHUNK], 1, false, 1)).await);
        }
        talker
    });
    for _ in 0..1200 {
        assert_eq!(stage.next().await.payload.len(), MAX_CHUNK);
    }
    // Kept until here: closing a socket with unread acknowledgements in it would discard what is on its way.
    drop(sender.await.unwrap());
    let after = resident().unwrap().saturating_sub(before);
    println!("and 300 MB from another: {} MiB more resident", after >> 20);
    assert!(after < BOUND, "{after} bytes");
    assert!(stopped.try_hear().await.is_some(), "the board was only slow");
}
