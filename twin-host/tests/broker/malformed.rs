//! Packets that break the protocol: the connection may die of them, the broker must not.

use crate::raw::{Raw, connect_packet, packet, publish_packet};
use crate::stage::{Connect, Stage};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::time::{Duration, timeout};

/// Broken packets; those after the first byte of a second connection state follow an accepted CONNECT.
fn broken() -> Vec<Vec<u8>> {
    let honest = connect_packet(&Connect::honest("board1"));
    let mut packets = vec![
        vec![0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        vec![0x10, 0xff, 0xff, 0xff, 0x7f],
        packet(0x10, b""),
        packet(0x10, b"\0\x04MQTT\x05"),
        packet(0x10, b"\0\x04MQTT\x05\xff\0\0\xff\xff\xff\xff"),
        packet(0x10, b"\xff\xffMQTT"),
        packet(0x00, b"reserved"),
        packet(0x30, b"\0"),
        packet(0x32, b"\xff\xff"),
        packet(0x36, b"\0\x01a\0\x01\0both qos bits"),
        packet(0x30, b"\0\0\0no topic"),
        packet(0x30, b"\0\x02\xff\xfe\0not utf-8"),
        packet(0x30, b"\0\x01+\0wildcard"),
        packet(0x30, b"\0\x01a\x03\x23\xff\xffunknown alias"),
        packet(0x30, b"\0\x01a\x7fproperties longer than the packet"),
        packet(0x82, b"\0\x01\0"),
        packet(0x82, b"\0\0\0\0\x01a\0"),
        packet(0x82, b"\0\x01\0\0\x01a\xff"),
        packet(0x80, b"\0\x01\0\0\x01a\0"),
        packet(0x40, b""),
        packet(0x40, b"\0\x09"),
        packet(0x50, b"\0\x09\x00"),
        packet(0x62, b"\0\x09"),
        packet(0xa2, b"\0\x01\0"),
        packet(0xf0, b"\x18\0"),
        packet(0xe0, b"\xff\xff\xff\xff"),
        packet(0x20, b"\0\0\0"),
        packet(0x90, b"\0\x01\0\0"),
        publish_packet("twin/v1/board1/up/state", b"x", 1, false, 0),
        [honest.clone(), honest].concat(),
    ];
    let oversized = vec![0; 400_000];
    packets.push(publish_packet("twin/v1/board1/up/blob", &oversized, 1, false, 1));
    packets
}

async fn throw(stage: &Stage, bytes: &[u8], connected: bool) {
    let mut raw = if connected { stage.board("board1").await } else { Raw::tcp(stage.plain()).await };
    raw.send(bytes).await;
    // Whether the broker closes, or waits for the rest of a packet, is its business.
    let _ = timeout(Duration::from_millis(20), raw.closed()).await;
}

#[tokio::test]
async fn broken_packets_leave_the_others_served() {
    let mut stage = Stage::set().await;
    for bytes in broken() {
        for connected in [false, true] {
            throw(&stage, &bytes, connected).await;
        }
    }
    while let Ok(Some(said)) = timeout(Duration::from_millis(1), stage.inbox.recv()).await {
        assert_eq!(said.topic.device.as_str(), "board1");
    }
    stage.expect_service("board0").await;
}

/// Honest packets with bytes changed, cut or doubled.
#[tokio::test]
async fn mutilated_packets_leave_the_others_served() {
    let mut stage = Stage::set().await;
    let models = [
        connect_packet(&Connect {
            will: Some(("twin/v1/board1/up/state".to_owned(), b"gone".to_vec(), 1, true)),
            ..Connect::honest("board1")
        }),
        publish_packet("twin/v1/board1/up/state", b"payload", 1, true, 7),
        packet(0x82, b"\0\x01\0\0\x13twin/v1/board1/dn/#\x01"),
        packet(0xa2, b"\0\x02\0\0\x13twin/v1/board1/dn/#"),
    ];
    let changes = prop::collection::vec((0_usize..80, any::<u8>()), 1..4);
    let strategy = (0..models.len(), changes, any::<bool>(), 0_usize..80);
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let (model, changes, connected, cut) = strategy.new_tree(&mut runner).unwrap().current();
        let mut bytes = models[model].clone();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if cut < bytes.len() && cut % 3 == 0 {
            bytes.truncate(cut);
        }
        throw(&stage, &bytes, connected).await;
        while let Ok(Some(said)) = timeout(Duration::ZERO, stage.inbox.recv()).await {
            assert_eq!(said.topic.device.as_str(), "board1");
        }
    }
    stage.expect_service("board0").await;
}
