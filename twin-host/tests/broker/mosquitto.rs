//! A real Mosquitto with the generated access rules: the same attacks, the canary, and the host as its client.
//! Skipped, with a word, where `mosquitto` is not installed.

use crate::attacks::{FOREIGN_FILTERS, FOREIGN_TOPICS};
use crate::raw::Raw;
use crate::stage::{Connect, PATIENCE, device, password, topic};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use twin_host::broker::acl::Product;
use twin_host::broker::external::{
    CanaryError, CanaryPair, ExternalBroker, ExternalConfig, Link, Proof, Reach, examine,
};
use twin_host::broker::{Broker, HOST, Inbound, Inbox, Outbound};
use twin_host::enroll::Authority;
use twin_shared::wire::{Channel, Direction};

/// Debian keeps it where only administrators look.
const PLACES: [&str; 3] = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];

struct Mosquitto {
    process: Child,
    port: u16,
    home: TempDir,
    authority: Authority,
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[expect(clippy::print_stdout, reason = "a skipped check says so")]
fn program() -> Option<&'static str> {
    let program = PLACES.into_iter().find(|place| Path::new(place).exists());
    if program.is_none() {
        println!("skipped: mosquitto is not installed (Debian: apt-get install mosquitto)");
    }
    program
}

fn launch(program: &str, home: &Path) -> Child {
    let config = home.join("mosquitto.conf");
    Command::new(program).arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Once it listens; false if it has ended, most likely because somebody else has the port.
async fn answers(process: &mut Child, port: u16) -> bool {
    let connected = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(Duration::from_millis(20)).await;
            if process.try_wait().unwrap().is_some() {
                return false;
            }
        }
        true
    };
    timeout(PATIENCE, connected).await.unwrap()
}

impl Mosquitto {
    /// With TLS, certificates of its own authority, and these further lines of configuration.
    async fn start(program: &str, lines: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(&home.path().join("authority"), SystemTime::now()).unwrap();
        let own = authority.certify_broker(&["localhost".to_owned()], SystemTime::now()).unwrap();
        let write = |name: &str, text: &str| {
            let path = home.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (ca, certificate, key, rules) = (
            write("ca.pem", authority.certificate()),
            write("broker.pem", &own.certificate),
            write("broker.key", &own.key),
            write("twin.acl", &Product::Mosquitto.rules()),
        );
        let configure = |port: u16| {
            write(
                "mosquitto.conf",
                &format!(
                    "user root\nlistener {port} 127.0.0.1\ncafile {ca}\ncertfile {certificate}\nkeyfile {key}\n\
                     require_certificate true\nuse_identity_as_username true\n{}",
                    lines.replace("RULES", &rules),
                ),
            );
        };
        loop {
            // Below the ports that the system gives out, of which the other tests take many.
            let port = rand::random_range(10_000..30_000);
            configure(port);
            let mut process = launch(program, home.path());
            if answers(&mut process, port).await {
                return Self { process, port, home, authority };
            }
        }
    }

    /// As `twin-host acl mosquitto` says, in the rules and in their comments.
    async fn ruled(program: &str) -> Self {
        Self::start(program, "acl_file RULES\nallow_anonymous false\nuse_username_as_clientid true\n").await
    }

    async fn restart(&mut self, program: &str) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = launch(program, self.home.path());
        assert!(answers(&mut self.process, self.port).await);
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn reach(&self) -> Reach {
        let address = format!("mqtts://localhost:{}", self.port).parse().unwrap();
        Reach { address, authority: Some(self.authority.certificate().to_owned()) }
    }

    fn proof(&self, name: &str) -> Proof {
        Proof::Certificate(self.authority.certify_device(&device(name), SystemTime::now()).unwrap())
    }

    fn canaries(&self) -> CanaryPair {
        let canary = |name: &str| (device(name), self.proof(name));
        CanaryPair { victim: canary("canary-1"), intruder: canary("canary-2") }
    }

    async fn host(&self, durable: Vec<Channel>) -> (ExternalBroker, Inbox) {
        let config = ExternalConfig { reach: self.reach(), proof: self.proof(HOST), durable };
        ExternalBroker::start(config).await.unwrap()
    }

    async fn try_board(&self, connect: &Connect, certificate_of: &str) -> Option<Raw> {
        let own = self.authority.certify_device(&device(certificate_of), SystemTime::now()).unwrap();
        let mut raw = Raw::tls_to(self.address(), "localhost", self.authority.certificate(), Some(&own)).await.unwrap();
        raw.connect(connect).await.is_success().then_some(raw)
    }

    async fn listener(&self, name: &str) -> Raw {
        let mut raw = self.try_board(&Connect::honest(name), name).await.unwrap();
        assert!(raw.subscribe(&format!("twin/v1/{name}/dn/#"), 1).await.is_success());
        raw
    }
}

async fn next(inbox: &mut Inbox) -> Inbound {
    timeout(PATIENCE, inbox.recv()).await.expect("a message in time").expect("the host runs")
}

async fn say(broker: &ExternalBroker, name: &str, channel: Channel, payload: &str) {
    broker.publish(Outbound { topic: topic(name, channel), payload: payload.to_owned().into() }).await.unwrap();
}

/// Nothing reached the host before what this board says now, and the board heard nothing before what it is told now.
async fn expect_only_fences(broker: &ExternalBroker, inbox: &mut Inbox, raw: &mut Raw, name: &str) {
    raw.publish(&topic(name, Channel::UpCommand).to_string(), b"fence", 1, false).await;
    let said = next(inbox).await;
    assert_eq!((&said.topic, &said.payload[..]), (&topic(name, Channel::UpCommand), &b"fence"[..]));
    said.settle();
    say(broker, name, Channel::DnCommand, "fence").await;
    let heard = raw.hear().await;
    assert_eq!((heard.topic, &heard.payload[..]), (topic(name, Channel::DnCommand).to_string(), &b"fence"[..]));
}

#[tokio::test]
async fn the_same_attacks_fail_against_mosquitto() {
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::ruled(program).await;
    let (broker, mut inbox) = mosquitto.host(Vec::new()).await;
    let mut victim = mosquitto.listener("board0").await;

    for foreign in FOREIGN_TOPICS {
        for qos in 0..2 {
            let will = Some((foreign.to_owned(), b"will".to_vec(), qos, false));
            // Mosquitto accepts it and drops it later.
            drop(mosquitto.try_board(&Connect { will, ..Connect::honest("board1") }, "board1").await);
        }
    }
    let mut attacker = mosquitto.listener("board1").await;
    for foreign in FOREIGN_TOPICS {
        for qos in 0..3 {
            for retain in [false, true] {
                attacker.publish(foreign, b"attack", qos, retain).await;
                if !attacker.ping().await {
                    // Mosquitto ends the connection of who publishes to a name that no client may use.
                    attacker = mosquitto.listener("board1").await;
                }
            }
        }
    }
    for filter in FOREIGN_FILTERS {
        attacker.subscribe(filter, 1).await;
        if !attacker.ping().await {
            attacker = mosquitto.listener("board1").await;
        }
    }
    for channel in Channel::ALL {
        match channel.direction() {
            Direction::Down => {
                say(&broker, "board0", channel, "private").await;
                assert_eq!(victim.hear().await.payload, "private");
            }
            Direction::Up => {
                victim.publish(&topic("board0", channel).to_string(), b"private", 1, false).await;
                assert_eq!(next(&mut inbox).await.payload, "private");
            }
        }
    }
    expect_only_fences(&broker, &mut inbox, &mut attacker, "board1").await;
    expect_only_fences(&broker, &mut inbox, &mut victim, "board0").await;
    // The victim's name with another's certificate.
    drop(mosquitto.try_board(&Connect::honest("board0"), "board1").await);
    expect_only_fences(&broker, &mut inbox, &mut victim, "board0").await;
    broker.shutdown().await;
}

#[tokio::test]
async fn the_canary_trusts_a_ruled_broker() {
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::ruled(program).await;
    let host = mosquitto.proof(HOST);
    examine(&mosquitto.reach(), &host, &mosquitto.canaries()).await.unwrap();
    // Twice: the first left nothing behind that would spoil the second.
    examine(&mosquitto.reach(), &host, &mosquitto.canaries()).await.unwrap();
}

#[tokio::test]
async fn passwords_will_do_on_loopback() {
    let Some(program) = program() else { return };
    let home = tempfile::tempdir().unwrap();
    let passwords = home.path().join("passwords");
    let names = [HOST, "canary-1", "canary-2"];
    std::fs::write(&passwords, names.map(|name| format!("{name}:{}\n", password(name))).concat()).unwrap();
    let hashed = Command::new("mosquitto_passwd").arg("-U").arg(&passwords).status().unwrap();
    assert!(hashed.success());
    let plain = rand::random_range(30_000..32_000);
    let lines = format!(
        "listener {plain} 127.0.0.1\nuse_username_as_clientid true\npassword_file {}\nacl_file RULES\n",
        passwords.display()
    );
    let mut mosquitto = Mosquitto::start(program, &lines).await;
    assert!(answers(&mut mosquitto.process, plain).await);
    let reach = Reach { address: format!("mqtt://127.0.0.1:{plain}").parse().unwrap(), authority: None };
    let proof = |name: &str| Proof::Password(password(name).into());
    let canary = |name: &str| (device(name), proof(name));
    let pair = CanaryPair { victim: canary("canary-1"), intruder: canary("canary-2") };
    examine(&reach, &proof(HOST), &pair).await.unwrap();
    let wrong = ExternalConfig { reach, proof: Proof::Password("wrong".to_owned().into()), durable: Vec::new() };
    let refused = ExternalBroker::start(wrong).await.err().map(|error| error.to_string());
    assert!(refused.is_some_and(|reason| reason.contains("NotAuthorized")), "the reason is told");
}

#[tokio::test]
async fn the_canary_finds_an_open_broker() {
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::start(program, "allow_anonymous true\n").await;
    let verdict = examine(&mosquitto.reach(), &mosquitto.proof(HOST), &mosquitto.canaries()).await;
    let Err(CanaryError::Leaks(leaks)) = verdict else { panic!("{verdict:?}") };
    for (hearer, way) in
        [("canary-1", "publication"), ("canary-1", "will"), ("canary-2", "private"), (HOST, "publication")]
    {
        assert!(leaks.iter().any(|leak| leak.heard_by == hearer && leak.way.contains(way)), "{hearer}, {way}");
    }
}

#[tokio::test]
async fn the_canary_finds_stolen_client_ids() {
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::start(program, "acl_file RULES\nallow_anonymous false\n").await;
    let verdict = examine(&mosquitto.reach(), &mosquitto.proof(HOST), &mosquitto.canaries()).await;
    assert!(matches!(verdict, Err(CanaryError::ClientIdTakeover { .. })), "{verdict:?}");
}

#[tokio::test]
async fn the_host_outlives_its_brokers_restart() {
    let Some(program) = program() else { return };
    let mut mosquitto = Mosquitto::ruled(program).await;
    let (broker, mut inbox) = mosquitto.host(Vec::new()).await;
    let mut board = mosquitto.listener("board0").await;
    expect_only_fences(&broker, &mut inbox, &mut board, "board0").await;
    mosquitto.restart(program).await;
    let mut link = broker.link();
    // Said while the link may be down: it waits.
    say(&broker, "board0", Channel::DnDesired, "after the break").await;
    timeout(PATIENCE, link.wait_for(|link| *link == Link::Up)).await.unwrap().unwrap();
    let mut board = mosquitto.listener("board0").await;
    assert_eq!(board.hear().await.payload, "after the break");
    expect_only_fences(&broker, &mut inbox, &mut board, "board0").await;
    broker.shutdown().await;
    assert!(inbox.recv().await.is_none());
}

#[tokio::test]
async fn what_was_not_settled_comes_again() {
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::ruled(program).await;
    let (broker, mut inbox) = mosquitto.host(vec![Channel::UpReported]).await;
    let mut board = mosquitto.listener("board0").await;
    let reported = topic("board0", Channel::UpReported);
    board.publish(&reported.to_string(), b"document", 1, false).await;
    drop(next(&mut inbox).await);
    broker.shutdown().await;
    drop(inbox);
    let (broker, mut inbox) = mosquitto.host(vec![Channel::UpReported]).await;
    let again = next(&mut inbox).await;
    assert_eq!((&again.topic, &again.payload[..]), (&reported, &b"document"[..]));
    again.settle();
    expect_only_fences(&broker, &mut inbox, &mut board, "board0").await;
    broker.shutdown().await;
    let (broker, mut inbox) = mosquitto.host(vec![Channel::UpReported]).await;
    expect_only_fences(&broker, &mut inbox, &mut board, "board0").await;
    broker.shutdown().await;
}

#[tokio::test]
async fn thirty_megabytes_go_both_ways_through_mosquitto() {
    const CHUNKS: u32 = 480;
    /// Well under the thousand messages of Mosquitto's queue.
    const CREDIT: u32 = 64;
    let Some(program) = program() else { return };
    let mosquitto = Mosquitto::ruled(program).await;
    let (broker, mut inbox) = mosquitto.host(Vec::new()).await;
    let mut board = mosquitto.listener("board0").await;
    let blob = topic("board0", Channel::UpBlob).to_string();
    // The board sends back what it is sent; what has come back is the credit.
    let echo = tokio::spawn(async move {
        for _ in 0..CHUNKS {
            let heard = board.hear().await;
            board.publish(&blob, &heard.payload, 1, false).await;
        }
        board
    });
    let chunk = |index: u32| [index.to_be_bytes().as_slice(), &[7; 64 << 10]].concat();
    let mut sent = 0;
    for back in 0..CHUNKS {
        while sent < CHUNKS && sent < back + CREDIT {
            let message = Outbound { topic: topic("board0", Channel::DnBlob), payload: chunk(sent).into() };
            broker.publish(message).await.unwrap();
            sent += 1;
        }
        let said = next(&mut inbox).await;
        assert_eq!(said.payload, chunk(back), "chunk {back}");
        said.settle();
    }
    drop(echo.await.unwrap());
    broker.shutdown().await;
}
