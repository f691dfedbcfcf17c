//! Much, and slowly: nothing is lost that credits or the socket can hold back.

use crate::raw::publish_packet;
use crate::stage::{PATIENCE, Stage, password, topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use twin_host::broker::embedded::Limits;
use twin_host::broker::{Broker, Outbound};
use twin_shared::wire::Channel;

const CHUNK: usize = 64 << 10;
/// 30 MB.
const CHUNKS: u32 = 480;
/// 4 MiB outstanding, as the transfer's credits allow.
const CREDIT: u32 = 64;

fn chunk(index: u32) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(index % 251).unwrap(); CHUNK];
    bytes[..4].copy_from_slice(&index.to_be_bytes());
    bytes
}

fn index_of(payload: &[u8]) -> u32 {
    let index = u32::from_be_bytes(payload[..4].try_into().unwrap());
    assert_eq!(payload, chunk(index), "chunk {index} is whole");
    index
}

#[tokio::test]
async fn thirty_megabytes_reach_a_slow_subscriber_under_credits() {
    let mut stage = Stage::set().await;
    let mut board = stage.listener("board0").await;
    let acks = topic("board0", Channel::UpAck).to_string();
    let slow = tokio::spawn(async move {
        for expected in 0..CHUNKS {
            assert_eq!(index_of(&board.hear().await.payload), expected);
            sleep(Duration::from_millis(1)).await;
            if (expected + 1) % 16 == 0 {
                board.publish(&acks, &(expected + 1).to_be_bytes(), 1, false).await;
            }
        }
    });
    let mut acknowledged = 0;
    for index in 0..CHUNKS {
        while index - acknowledged >= CREDIT {
            let said = stage.next().await;
            acknowledged = u32::from_be_bytes(said.payload[..].try_into().unwrap());
            said.settle();
        }
        stage.say("board0", Channel::DnBlob, chunk(index)).await;
    }
    timeout(PATIENCE, slow).await.unwrap().unwrap();
}

/// More than 1,000 messages and more than 10 MiB in a second, which the crate's own limits would drop.
#[tokio::test]
async fn thirty_megabytes_reach_a_slow_reader_without_credits() {
    let mut stage = Stage::set().await;
    let mut board = stage.board("board0").await;
    let blob = topic("board0", Channel::UpBlob).to_string();
    let sender = tokio::spawn(async move {
        for index in 0..CHUNKS {
            assert!(board.send(&publish_packet(&blob, &chunk(index), 1, false, 1)).await);
        }
        board
    });
    for expected in 0..CHUNKS {
        assert_eq!(index_of(&stage.next().await.payload), expected);
        if expected % 8 == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    }
    let mut board = sender.await.unwrap();
    let telemetry = topic("board0", Channel::UpTelemetry).to_string();
    let sender = tokio::spawn(async move {
        for number in 0..3000_u32 {
            board.send(&publish_packet(&telemetry, &number.to_be_bytes(), 0, false, 0)).await;
        }
        board
    });
    for number in 0..3000_u32 {
        assert_eq!(stage.next().await.payload[..], number.to_be_bytes());
    }
    sender.await.unwrap();
}

#[tokio::test]
async fn who_is_too_fast_waits_and_loses_nothing() {
    let limits = Limits { messages_per_second: 50, ..Limits::default() };
    let mut stage = Stage::with(limits, Vec::new()).await;
    let mut board = stage.board("board0").await;
    let command = topic("board0", Channel::UpCommand).to_string();
    let sender = tokio::spawn(async move {
        for number in 0..80_u32 {
            let reply = board.publish(&command, &number.to_be_bytes(), 1, false).await;
            assert!(reply.is_some_and(|reply| reply.is_success()));
        }
    });
    for number in 0..80_u32 {
        assert_eq!(stage.next().await.payload[..], number.to_be_bytes());
    }
    sender.await.unwrap();
}

/// Both directions full at once, through the client library of the boards, which cannot read while it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_at_once_do_not_block_each_other() {
    let mut stage = Stage::set().await;
    let address = stage.plain();
    let mut options = MqttOptions::new("board0", address.ip().to_string(), address.port());
    options.set_credentials("board0", password("board0")).set_max_packet_size(Some(1 << 20));
    options.set_keep_alive(Duration::from_secs(20)).set_clean_start(true);
    let (client, mut events) = AsyncClient::new(options, 8);
    client.subscribe("twin/v1/board0/dn/#", QoS::AtLeastOnce).await.unwrap();
    let (subscribed, ready) = tokio::sync::oneshot::channel();
    let heard = tokio::spawn(async move {
        let mut subscribed = Some(subscribed);
        let (mut down, mut acknowledged) = (0, 0);
        while down < CHUNKS || acknowledged < CHUNKS {
            match events.poll().await.expect("the connection holds") {
                Event::Incoming(Packet::SubAck(_)) => subscribed.take().unwrap().send(()).unwrap(),
                Event::Incoming(Packet::Publish(publish)) => {
                    assert_eq!(index_of(&publish.payload), down);
                    down += 1;
                }
                Event::Incoming(Packet::PubAck(_)) => acknowledged += 1,
                Event::Incoming(_) | Event::Outgoing(_) => {}
            }
        }
    });
    ready.await.unwrap();
    let sender = tokio::spawn(async move {
        let blob = topic("board0", Channel::UpBlob).to_string();
        for index in 0..CHUNKS {
            client.publish(&blob, QoS::AtLeastOnce, false, chunk(index)).await.unwrap();
        }
        client
    });
    let mut sent = 0;
    for expected in 0..CHUNKS {
        // As many down as came up: the credits of this exchange.
        while sent < CHUNKS && sent < expected + CREDIT {
            let message = Outbound { topic: topic("board0", Channel::DnBlob), payload: chunk(sent).into() };
            stage.broker.publish(message).await.unwrap();
            sent += 1;
        }
        assert_eq!(index_of(&stage.next().await.payload), expected);
    }
    timeout(PATIENCE, heard).await.expect("no deadlock").unwrap();
    drop(sender.await.unwrap());
}
