//! The matrix of attacks: nothing crosses from one device to another, whatever a device sends.

use crate::attacks::{FOREIGN_FILTERS, FOREIGN_TOPICS};
use crate::raw::{Raw, Reply};
use crate::stage::{Connect, Stage, device, password, topic};
use twin_host::broker::{Outbound, PublishError};
use twin_shared::wire::{Channel, Direction};

#[tokio::test]
async fn no_foreign_topic_is_delivered_or_retained() {
    let mut stage = Stage::set().await;
    let mut victim = stage.listener("board0").await;
    let mut attacker = stage.board("board1").await;
    for foreign in FOREIGN_TOPICS {
        for qos in 0..3 {
            for retain in [false, true] {
                let reply = attacker.publish(foreign, b"attack", qos, retain).await;
                assert!(reply.is_none_or(|reply| reply.is_refusal()), "{foreign} at QoS {qos}");
            }
        }
    }
    stage.expect_nothing_before(&mut attacker, "board1").await;
    stage.expect_silence_before(&mut victim, "board0").await;
    victim.disconnect().await;
    let mut again = stage.listener("board0").await;
    stage.expect_silence_before(&mut again, "board0").await;
    assert_eq!(stage.broker.counts().publications_refused, 14 * 3 * 2);
}

#[tokio::test]
async fn qos_2_is_refused_even_where_a_board_may_speak() {
    let mut stage = Stage::set().await;
    let mut board = stage.board("board0").await;
    let reply = board.publish("twin/v1/board0/up/state", b"x", 2, false).await;
    assert!(reply.is_some_and(|reply| reply.is_refusal()));
    stage.expect_nothing_before(&mut board, "board0").await;
}

#[tokio::test]
async fn no_foreign_filter_is_granted() {
    let mut stage = Stage::set().await;
    let victim = stage.listener("board0").await;
    let mut attacker = stage.listener("board1").await;
    for filter in FOREIGN_FILTERS {
        for qos in 0..3 {
            let reply = attacker.subscribe(filter, qos).await;
            assert!(reply.is_refusal(), "{filter} at QoS {qos}: {reply:?}");
        }
    }
    for channel in Channel::ALL.into_iter().filter(|channel| channel.direction() == Direction::Down) {
        stage.say("board0", channel, "private").await;
    }
    drop(victim);
    stage.expect_silence_before(&mut attacker, "board1").await;
    stage.expect_nothing_before(&mut attacker, "board1").await;
    assert_eq!(stage.broker.counts().filters_refused, 18 * 3);
}

#[tokio::test]
async fn every_own_channel_is_granted_one_by_one() {
    let stage = Stage::set().await;
    let mut board = stage.board("board0").await;
    for channel in Channel::ALL {
        let own = topic("board0", channel).to_string();
        let reply = board.subscribe(&own, 1).await;
        assert_eq!(reply.is_success(), channel.direction() == Direction::Down, "{own}");
    }
}

#[tokio::test]
async fn a_foreign_will_keeps_its_client_out() {
    let mut stage = Stage::set().await;
    let mut victim = stage.listener("board0").await;
    let too_long = vec![0; Channel::UpState.max_payload() + 1];
    let wills = FOREIGN_TOPICS
        .map(|topic| (topic, b"will".to_vec()))
        .into_iter()
        .chain([("twin/v1/board1/up/telemetry", b"will".to_vec()), ("twin/v1/board1/up/state", too_long)]);
    let mut tried = 0;
    for (topic, payload) in wills {
        for (qos, retain) in [(0, false), (1, true), (2, true)] {
            let mut attacker = Raw::tcp(stage.plain()).await;
            let will = Some((topic.to_owned(), payload.clone(), qos, retain));
            let reply = attacker.connect(&Connect { will, ..Connect::honest("board1") }).await;
            assert!(reply.is_refusal(), "{topic} at QoS {qos}");
            tried += 1;
        }
    }
    assert_eq!(stage.broker.counts().wills_refused, tried);
    let mut attacker = stage.board("board1").await;
    stage.expect_nothing_before(&mut attacker, "board1").await;
    stage.expect_silence_before(&mut victim, "board0").await;
}

#[tokio::test]
async fn a_name_is_not_taken_over_without_its_password() {
    let mut stage = Stage::set().await;
    let mut victim = stage.listener("board0").await;
    let honest = Connect::honest("board0");
    let attempts = [
        Connect { password: Some("wrong".to_owned()), ..honest.clone() },
        Connect { password: None, ..honest.clone() },
        Connect { password: None, user: None, ..honest.clone() },
        Connect { user: Some("board1".to_owned()), password: Some(password("board1")), ..honest.clone() },
        Connect { clean: true, password: Some("wrong".to_owned()), ..honest.clone() },
        Connect { client_id: "board1".to_owned(), ..honest.clone() },
        Connect { version: 4, ..honest },
    ];
    let tried = u64::try_from(attempts.len()).unwrap();
    for attempt in attempts {
        let mut attacker = Raw::tcp(stage.plain()).await;
        let reply = attacker.connect(&attempt).await;
        assert!(reply.is_refusal(), "{attempt:?}");
    }
    assert!(victim.ping().await, "the victim was not disturbed");
    stage.expect_silence_before(&mut victim, "board0").await;
    stage.expect_nothing_before(&mut victim, "board0").await;
    assert_eq!(stage.broker.counts().clients_refused, tried);
}

#[tokio::test]
async fn a_certificate_serves_its_own_name_only() {
    let mut stage = Stage::set().await;
    let own = stage.certify("board0");
    let anonymous = |name: &str| Connect { user: None, password: None, ..Connect::honest(name) };
    let mut victim = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&own)).await.unwrap();
    assert!(victim.connect(&anonymous("board0")).await.is_success());
    assert!(victim.subscribe("twin/v1/board0/dn/#", 1).await.is_success());

    let foreign = stage.certify("board1");
    for attempt in [
        anonymous("board0"),
        // Even with the victim's password: on this listener it is the certificate that counts.
        Connect::honest("board0"),
        Connect { client_id: "board1".to_owned(), ..Connect::honest("board0") },
    ] {
        let mut attacker = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&foreign)).await.unwrap();
        let reply = attacker.connect(&attempt).await;
        assert!(reply.is_refusal(), "{attempt:?}");
    }
    assert!(victim.ping().await);
    stage.expect_silence_before(&mut victim, "board0").await;
    stage.expect_nothing_before(&mut victim, "board0").await;
}

#[tokio::test]
async fn a_certificate_that_was_replaced_is_worth_nothing() {
    let mut stage = Stage::set().await;
    let (old, new) = (stage.certify("board0"), stage.certify("board0"));
    stage.list.replace(old.record.fingerprint);
    let anonymous = Connect { user: None, password: None, ..Connect::honest("board0") };
    let mut thief = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&old)).await.unwrap();
    assert!(thief.connect(&anonymous).await.is_refusal());
    let mut owner = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&new)).await.unwrap();
    assert!(owner.connect(&anonymous).await.is_success());
    stage.expect_nothing_before(&mut owner, "board0").await;
}

#[tokio::test]
async fn certificate_and_authorities_are_renewed_while_boards_are_connected() {
    let mut stage = Stage::set().await;
    let own = stage.certify("board0");
    let mut connected = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&own)).await.unwrap();
    assert!(connected.connect(&Connect::honest("board0")).await.is_success());
    let successor = stage.rotate();
    assert!(connected.ping().await, "who is connected stays");
    // Who knows the former authority only believes the new certificate, and is believed.
    let mut old = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&own)).await.unwrap();
    assert!(old.connect(&Connect::honest("board0")).await.is_success());
    let own = successor.certify_device(&device("board1"), std::time::SystemTime::now()).unwrap();
    let mut new = Raw::tls(stage.tls(), successor.certificate(), Some(&own)).await.unwrap();
    assert!(new.connect(&Connect::honest("board1")).await.is_success());
    stage.expect_nothing_before(&mut new, "board1").await;
}

#[tokio::test]
async fn no_certificate_or_another_authoritys_gets_nowhere() {
    let stage = Stage::set().await;
    let other = Stage::set().await;
    let foreign = other.certify("board0");
    for own in [None, Some(&foreign)] {
        // With TLS 1.3 a client may learn of the refusal only when it reads.
        if let Some(mut raw) = Raw::tls(stage.tls(), stage.authority.certificate(), own).await {
            assert_eq!(raw.connect(&Connect::honest("board0")).await, Reply::Closed);
        }
    }
    assert!(!stage.broker.is_connected(&device("board0")));
    let own = stage.certify("board0");
    let mut honest = Raw::tls(stage.tls(), stage.authority.certificate(), Some(&own)).await.unwrap();
    assert!(honest.connect(&Connect::honest("board0")).await.is_success());
}

#[tokio::test]
async fn odd_names_are_refused_and_leave_the_others_served() {
    let mut stage = Stage::set().await;
    let long = "x".repeat(40_000);
    for round in 0..2 {
        for odd in [
            "a/b",
            "/",
            "../../etc",
            "",
            "+",
            "#",
            "$SYS",
            "Board0",
            "board0 ",
            " board0",
            "board\u{0}0",
            "bo\u{e4}rd",
            "-board0",
            "twin-host",
            "auto-1",
            "cert:abc",
            &long,
        ] {
            let mut attacker = Raw::tcp(stage.plain()).await;
            let connect =
                Connect { client_id: odd.to_owned(), user: Some(odd.to_owned()), ..Connect::honest("board0") };
            let reply = attacker.connect(&connect).await;
            assert!(reply.is_refusal(), "{odd:?} in round {round}");
        }
        stage.expect_service("board0").await;
    }
}

#[tokio::test]
async fn a_silent_shared_subscriber_hurts_nobody() {
    let mut stage = Stage::set().await;
    let mut silent = stage.board("board1").await;
    silent.acknowledges = false;
    for filter in ["$share/g/twin/v1/board1/dn/#", "$share/g/twin/v1/board1/dn/command", "$share/g/#"] {
        assert!(silent.subscribe(filter, 1).await.is_refusal(), "{filter}");
    }
    assert!(silent.subscribe("twin/v1/board1/dn/#", 1).await.is_success());
    for _ in 0..200 {
        stage.say("board1", Channel::DnCommand, "unacknowledged").await;
    }
    drop(silent);
    for _ in 0..3 {
        stage.expect_service("board0").await;
    }
}

#[tokio::test]
async fn the_host_speaks_downwards_and_within_bounds() {
    let stage = Stage::set().await;
    let upwards = Outbound { topic: topic("board0", Channel::UpState), payload: "x".into() };
    let refused = twin_host::broker::Broker::publish(&stage.broker, upwards).await;
    assert!(matches!(refused, Err(PublishError::NotOurDirection(_))));
    let long = vec![0; Channel::DnCommand.max_payload() + 1];
    let long = Outbound { topic: topic("board0", Channel::DnCommand), payload: long.into() };
    let refused = twin_host::broker::Broker::publish(&stage.broker, long).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { size: 1025, .. })));
}
