//! Connections from birth to death: sessions, wills, takeover, kick, purge, acknowledgement, shutdown.

use crate::raw::{Raw, connect_packet};
use crate::stage::{Connect, PATIENCE, Stage, device, topic};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use twin_host::broker::Broker;
use twin_host::broker::embedded::{EmbeddedBroker, EmbeddedConfig, Limits, PlainListener, StartError};
use twin_shared::wire::Channel;

/// Shorter than the 30 s for which a stalled session would hold up its successor, and than the 25 s after which a
/// stalled write is given up: who waits for either fails.
const PROMPTLY: Duration = Duration::from_secs(15);

/// Fills the board's queue and socket until the broker's handler must be stuck in a write.
async fn stall(stage: &Stage, name: &str) {
    for _ in 0..40 {
        stage.say(name, Channel::DnBlob, vec![7; 256 << 10]).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn what_is_said_while_a_board_is_away_waits_for_it() {
    let stage = Stage::set().await;
    stage.listener("board0").await.disconnect().await;
    for number in 0..100_u8 {
        stage.say("board0", Channel::DnCommand, vec![number]).await;
    }
    let mut board = stage.board("board0").await;
    assert_eq!(board.connack[0], 1, "the session is still there");
    for number in 0..100_u8 {
        assert_eq!(board.hear().await.payload[..], [number]);
    }
}

#[tokio::test]
async fn a_retained_document_waits_for_its_subscriber() {
    let stage = Stage::set().await;
    stage.say("board0", Channel::DnDesired, "old").await;
    stage.say("board0", Channel::DnDesired, "new").await;
    let mut board = stage.listener("board0").await;
    let heard = board.hear().await;
    assert!(heard.retained);
    assert_eq!(heard.payload, "new");
    board.disconnect().await;
    stage.say("board1", Channel::DnDesired, "kept").await;
    stage.say("board1", Channel::DnDesired, "").await;
    let mut other = stage.listener("board1").await;
    stage.expect_silence_before(&mut other, "board1").await;
}

#[tokio::test]
async fn a_session_is_kept_for_an_hour_not_for_ever() {
    let stage = Stage::set().await;
    let mut board = Raw::tcp(stage.plain()).await;
    let greedy = Connect { session_expiry: u32::MAX, ..Connect::honest("board0") };
    assert!(board.connect(&greedy).await.is_success());
    let granted = [&[0x11_u8][..], &3600_u32.to_be_bytes()].concat();
    assert!(board.connack.windows(5).any(|bytes| bytes == granted), "{:?}", board.connack);
}

#[tokio::test]
async fn a_dying_board_leaves_its_will_and_a_leaving_one_does_not() {
    let mut stage = Stage::set().await;
    let will = Some(("twin/v1/board0/up/state".to_owned(), b"offline".to_vec(), 1, true));
    let connect = Connect { will, ..Connect::honest("board0") };
    let mut dying = Raw::tcp(stage.plain()).await;
    assert!(dying.connect(&connect).await.is_success());
    drop(dying);
    let said = stage.next().await;
    assert_eq!((said.topic.clone(), &said.payload[..]), (topic("board0", Channel::UpState), &b"offline"[..]));
    said.settle();
    let mut leaving = Raw::tcp(stage.plain()).await;
    assert!(leaving.connect(&connect).await.is_success());
    leaving.disconnect().await;
    let mut other = stage.board("board1").await;
    stage.expect_nothing_before(&mut other, "board1").await;
}

#[tokio::test]
async fn a_board_in_a_black_hole_is_missed_after_one_and_a_half_keep_alives() {
    let limits = Limits { keep_alive: Duration::from_secs(2), ..Limits::default() };
    let mut stage = Stage::with(limits, Vec::new()).await;
    let will = Some(("twin/v1/board0/up/state".to_owned(), b"offline".to_vec(), 1, true));
    let mut silent = Raw::tcp(stage.plain()).await;
    assert!(silent.connect(&Connect { will, ..Connect::honest("board0") }).await.is_success());
    let since = std::time::Instant::now();
    // Its socket stays open and nothing comes through it, as when every packet is lost on the way.
    let said = stage.next().await;
    assert_eq!(&said.payload[..], b"offline");
    assert!(since.elapsed() >= Duration::from_secs(2), "a board is not given up before its keep-alive is over");
    assert!(!stage.broker.is_connected(&device("board0")));
    drop(silent);
}

#[tokio::test]
async fn the_same_board_takes_over_its_own_session() {
    let mut stage = Stage::set().await;
    let mut first = stage.listener("board0").await;
    let mut second = stage.board("board0").await;
    first.closed().await;
    stage.expect_silence_before(&mut second, "board0").await;
    stage.expect_nothing_before(&mut second, "board0").await;
    assert!(stage.broker.is_connected(&device("board0")), "the first's end did not remove the second");
}

#[tokio::test]
async fn a_stalled_session_is_taken_over_promptly() {
    let stage = Stage::set().await;
    let stalled = stage.listener("board0").await;
    stall(&stage, "board0").await;
    let takeover = async {
        let mut second = stage.board("board0").await;
        second.hear().await
    };
    let heard = timeout(PROMPTLY, takeover).await.expect("no wait for the stalled handler");
    assert_eq!(heard.payload.len(), 256 << 10, "the stalled session's messages were not lost with it");
    drop(stalled);
}

#[tokio::test]
async fn a_kicked_board_comes_back_to_its_session() {
    let stage = Stage::set().await;
    let mut board = stage.listener("board0").await;
    stage.broker.kick(&device("board0")).await.unwrap();
    board.closed().await;
    stage.say("board0", Channel::DnCommand, "meanwhile").await;
    let mut again = stage.board("board0").await;
    assert_eq!(again.hear().await.payload, "meanwhile");
    stage.broker.kick(&device("board9")).await.unwrap();
}

#[tokio::test]
async fn a_kick_reaches_a_stalled_board() {
    let stage = Stage::set().await;
    let _stalled = stage.listener("board0").await;
    stall(&stage, "board0").await;
    stage.broker.kick(&device("board0")).await.unwrap();
    let gone = async {
        while stage.broker.is_connected(&device("board0")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PROMPTLY, gone).await.expect("the write was interrupted");
}

#[tokio::test]
async fn a_revoked_board_is_cut_forgotten_and_kept_out() {
    let stage = Stage::set().await;
    let board0 = device("board0");
    let mut board = stage.listener("board0").await;
    let mut bystander = stage.listener("board1").await;
    stage.say("board0", Channel::DnDesired, "secret").await;
    stage.list.revoke(&board0);
    stage.broker.purge(&board0).await.unwrap();
    timeout(Duration::from_secs(5), board.closed()).await.expect("within five seconds");
    stage.say("board0", Channel::DnCommand, "queued for nobody").await;
    let mut again = Raw::tcp(stage.plain()).await;
    assert!(again.connect(&Connect::honest("board0")).await.is_refusal());
    let own = stage.certify("board0");
    let mut again = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&own)).await.unwrap();
    assert!(again.connect(&Connect::honest("board0")).await.is_refusal());
    stage.list.pardon(&board0);
    let mut pardoned = stage.listener("board0").await;
    assert_eq!(pardoned.connack[0], 0, "no session was left");
    stage.expect_silence_before(&mut pardoned, "board0").await;
    assert!(bystander.ping().await);
}

#[tokio::test]
async fn a_durable_message_is_acknowledged_only_when_settled() {
    let mut stage = Stage::with(Limits::default(), vec![Channel::UpReported]).await;
    let reported = topic("board0", Channel::UpReported).to_string();
    let mut board = stage.board("board0").await;
    let (reply, ()) = tokio::join!(board.publish(&reported, b"document", 1, true), async {
        let said = timeout(PATIENCE, stage.inbox.recv()).await.unwrap().unwrap();
        assert_eq!(said.payload, "document");
        said.settle();
    });
    assert!(reply.is_some_and(|reply| reply.is_success()));
    // Dropped unsettled: no acknowledgement, the connection ends, and the board may say it again.
    let (reply, ()) = tokio::join!(board.publish(&reported, b"second", 1, true), async {
        drop(timeout(PATIENCE, stage.inbox.recv()).await.unwrap().unwrap());
    });
    assert_eq!(reply, Some(crate::raw::Reply::Closed));
    let mut again = stage.board("board0").await;
    let (reply, ()) = tokio::join!(again.publish(&reported, b"second", 1, true), async {
        timeout(PATIENCE, stage.inbox.recv()).await.unwrap().unwrap().settle();
    });
    assert!(reply.is_some_and(|reply| reply.is_success()));
    stage.expect_nothing_before(&mut again, "board0").await;
}

#[tokio::test]
async fn a_payload_longer_than_its_channel_is_refused() {
    let mut stage = Stage::set().await;
    let mut board = stage.board("board0").await;
    let long = vec![0; Channel::UpTelemetry.max_payload() + 1];
    board.publish(&topic("board0", Channel::UpTelemetry).to_string(), &long, 0, false).await;
    stage.expect_nothing_before(&mut board, "board0").await;
    assert_eq!(stage.broker.counts().publications_refused, 1);
}

/// The crate would take 256 MiB.
#[tokio::test]
async fn a_packet_larger_than_any_channel_allows_ends_its_connection() {
    let mut stage = Stage::set().await;
    let mut board = stage.board("board0").await;
    let blob = topic("board0", Channel::UpBlob).to_string();
    board.send(&crate::raw::publish_packet(&blob, &[0; 300 << 10], 1, false, 1)).await;
    board.closed().await;
    stage.expect_service("board0").await;
}

#[tokio::test]
async fn shutdown_ends_all_even_if_nobody_reads() {
    let mut stage = Stage::set().await;
    let mut idle = stage.listener("board0").await;
    let mut busy = stage.board("board1").await;
    let blob = topic("board1", Channel::UpBlob).to_string();
    for _ in 0..200 {
        // More than the inbox holds: the connection waits there.
        busy.send(&crate::raw::publish_packet(&blob, &[0; 1000], 0, false, 0)).await;
    }
    timeout(PATIENCE, stage.broker.shutdown()).await.expect("shutdown ends");
    idle.closed().await;
    busy.closed().await;
    while stage.inbox.recv().await.is_some() {}
    assert!(tokio::net::TcpStream::connect(stage.plain()).await.is_err());
}

#[tokio::test]
async fn a_plain_listener_stays_on_loopback_unless_asked() {
    let start = |plain| {
        let config = EmbeddedConfig { plain, ..EmbeddedConfig::default() };
        EmbeddedBroker::start(config, Arc::new(crate::stage::List::default()))
    };
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = start(Some(PlainListener { address: everywhere, insecure_plain_beyond_loopback: false })).await;
    assert!(matches!(refused, Err(StartError::PlainBeyondLoopback(_))));
    let asked = start(Some(PlainListener { address: everywhere, insecure_plain_beyond_loopback: true })).await;
    asked.unwrap().0.shutdown().await;
    assert!(matches!(start(None).await, Err(StartError::NoListener)));
}

#[tokio::test]
async fn a_password_is_no_certificate() {
    let stage = Stage::set().await;
    let mut raw = Raw::tcp(stage.tls()).await;
    raw.send(&connect_packet(&Connect::honest("board0"))).await;
    raw.closed().await;
    assert!(!stage.broker.is_connected(&device("board0")));
}
