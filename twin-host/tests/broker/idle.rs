//! Sockets that say nothing, or not enough.

use crate::raw::{Raw, connect_packet};
use crate::stage::{Connect, Stage};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use twin_host::broker::embedded::Limits;

/// Idle connections of each kind: `IDLE_CROWD` of them, else 300, or fewer where this process may not open as many
/// files.
fn crowd() -> usize {
    if let Some(asked) = std::env::var("IDLE_CROWD").ok().and_then(|count| count.parse().ok()) {
        return asked;
    }
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3)).and_then(|soft| soft.parse::<usize>().ok());
    // A connection takes one file here and two in the broker; other tests run beside this one.
    soft.map_or(300, |soft| (soft / 8).min(300))
}

async fn idle(address: std::net::SocketAddr, count: usize, first_bytes: &[u8]) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // It may have been turned out already.
        let _ = socket.write_all(first_bytes).await;
        sockets.push(socket);
    }
    sockets
}

/// A hundred honest connects through each listener, fastest first.
async fn connects(stage: &Stage) -> Vec<Duration> {
    let own = stage.certify("board1");
    let mut taken = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        let mut raw = Raw::tcp(stage.plain()).await;
        assert!(raw.connect(&Connect::honest("board0")).await.is_success());
        taken.push(start.elapsed());
        let start = Instant::now();
        let mut raw = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&own)).await.unwrap();
        assert!(raw.connect(&Connect::honest("board1")).await.is_success());
        taken.push(start.elapsed());
    }
    taken.sort_unstable();
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_idle_sockets_keeps_nobody_out() {
    let crowd = crowd();
    let roomy = Limits { pending: 2048, pending_per_address: 2048, ..Limits::default() };
    for (what, limits) in [("with the default limits", Limits::default()), ("all kept waiting", roomy)] {
        let mut stage = Stage::with(limits, Vec::new()).await;
        let silent = idle(stage.plain(), crowd / 2, b"").await;
        let unfinished = idle(stage.plain(), crowd / 2, &connect_packet(&Connect::honest("board0"))[..9]).await;
        let no_hello = idle(stage.tls(), crowd / 2, b"").await;
        let half_hello = idle(stage.tls(), crowd / 2, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
        let taken = connects(&stage).await;
        println!(
            "{crowd} idle TCP and {crowd} idle TLS connections {what}: honest connects take {:?} at the median, {:?} \
             at p99",
            taken[taken.len() / 2],
            taken[taken.len() * 99 / 100],
        );
        stage.expect_service("board2").await;
        drop((silent, unfinished, no_hello, half_hello));
    }
}

#[tokio::test]
async fn who_does_not_introduce_himself_in_time_is_shown_out() {
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let stage = Stage::with(limits, Vec::new()).await;
    let mut board = stage.board("board0").await;
    Raw::tcp(stage.plain()).await.closed().await;
    Raw::tcp(stage.tls()).await.closed().await;
    // A byte now and then does not help.
    let mut slow = Raw::tcp(stage.plain()).await;
    for byte in connect_packet(&Connect::honest("board1")) {
        slow.send(&[byte]).await;
        sleep(Duration::from_millis(20)).await;
    }
    slow.closed().await;
    // TLS alone does not either.
    let own = stage.certify("board1");
    let mut mute = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&own)).await.unwrap();
    mute.closed().await;
    assert!(board.ping().await, "who has introduced himself may be silent");
}

#[tokio::test]
async fn one_address_has_a_bounded_share() {
    let limits = Limits { connections_per_address: 3, ..Limits::default() };
    let stage = Stage::with(limits, Vec::new()).await;
    let boards = [stage.board("board0").await, stage.board("board1").await, stage.board("board2").await];
    let mut fourth = Raw::tcp(stage.plain()).await;
    fourth.closed().await;
    assert_eq!(stage.broker.counts().connections_refused, 1);
    drop(boards);
    while stage.broker.is_connected(&crate::stage::device("board0")) {
        sleep(Duration::from_millis(5)).await;
    }
    stage.board("board3").await;
}
