//! A broker that restarts under many boards: all are back before half a minute is over, and not all at one moment.
//!
//! `HERD` boards (40 unless it says otherwise), each with the agent's own connection and waiting times, over TLS.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use twin_agent::clock::Clock;
use twin_agent::config::{Broker as Address, Credentials as Files, Security};
use twin_agent::keys::Keys;
use twin_agent::transport::{Backoff, Dialer, News};
use twin_host::broker::credentials::Credentials;
use twin_host::broker::embedded::{EmbeddedBroker, EmbeddedConfig, TlsIdentity, TlsListener};
use twin_host::broker::{Boxed, Broker, Inbox};
use twin_host::enroll::{Authority, Fingerprint, write_private_folder};
use twin_shared::id::DeviceId;

/// What the boards have.
const WITHIN: Duration = Duration::from_secs(30);

/// Longer than any first connection takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Everyone;

impl Credentials for Everyone {
    fn verify<'a>(&'a self, _: &'a DeviceId, _: &'a [u8]) -> Boxed<'a, bool> {
        Box::pin(async { false })
    }

    fn holds<'a>(&'a self, _: &'a DeviceId, _: Fingerprint) -> Boxed<'a, bool> {
        Box::pin(async { true })
    }

    fn is_revoked<'a>(&'a self, _: &'a DeviceId) -> Boxed<'a, bool> {
        Box::pin(async { false })
    }
}

async fn broker(authority: &Authority, address: SocketAddr) -> (EmbeddedBroker, Inbox) {
    let own = authority.certify_broker(&["127.0.0.1".to_owned()], SystemTime::now()).unwrap();
    let identity = TlsIdentity {
        chain: own.certificate.into_bytes(),
        key: own.key.as_bytes().to_vec().into(),
        authority: authority.trusted().into_bytes(),
    };
    let config = EmbeddedConfig { tls: Some(TlsListener { address, identity }), ..EmbeddedConfig::default() };
    EmbeddedBroker::start(config, Arc::new(Everyone)).await.unwrap()
}

fn dialer(authority: &Authority, name: &str, folder: &Path, port: u16) -> Dialer {
    let device: DeviceId = name.parse().unwrap();
    let own = authority.certify_device(&device, SystemTime::now()).unwrap();
    let key = "0".repeat(64);
    let files: [(&str, &[u8]); 4] = [
        ("sealing.key", key.as_bytes()),
        ("device.crt", own.certificate.as_bytes()),
        ("device.key", own.key.as_bytes()),
        ("ca.crt", authority.certificate().as_bytes()),
    ];
    write_private_folder(folder, &files).unwrap();
    let file = |name: &str| folder.join(name);
    let credentials = Files {
        sealing_key: file("sealing.key"),
        certificate: file("device.crt"),
        private_key: file("device.key"),
        authority: file("ca.crt"),
    };
    let keys = Keys::load(&credentials, Security::Mutual, &file("keys")).unwrap();
    let address = Address { host: "127.0.0.1".to_owned(), port, security: Security::Mutual };
    Dialer::new(&device, &keys, &address, Clock::open(file("clock")).provider()).unwrap()
}

/// A board's life: connects, and after every loss waits as the agent does. Tells when it is connected.
async fn live(dialer: Dialer, up: Arc<AtomicUsize>, ready: mpsc::UnboundedSender<Instant>) {
    let mut backoff = Backoff::default();
    loop {
        let mut connection = dialer.dial(b"offline".to_vec());
        let mut since: Option<Instant> = None;
        loop {
            match connection.next().await {
                News::Ready => {
                    since = Some(Instant::now());
                    up.fetch_add(1, Ordering::SeqCst);
                    let _ = ready.send(Instant::now());
                }
                News::Message(_) => {}
                News::Lost(_) => break,
            }
        }
        if since.is_some() {
            up.fetch_sub(1, Ordering::SeqCst);
        }
        let held = since.map_or(Duration::ZERO, |since| since.elapsed());
        let wait = backoff.next(held, &mut rand::rng());
        sleep(wait).await;
    }
}

async fn until(up: &AtomicUsize, count: usize, within: Duration) -> bool {
    let reached = async {
        while up.load(Ordering::SeqCst) != count {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(within, reached).await.is_ok()
}

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// The most that came within any one second.
fn densest(arrivals: &[Duration]) -> usize {
    let within = |from: &Duration| {
        let second = *from..*from + Duration::from_secs(1);
        arrivals.iter().filter(|at| second.contains(*at)).count()
    };
    arrivals.iter().map(within).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_boards_are_back_within_half_a_minute_of_their_broker() {
    let boards = number("HERD", 40);
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(&home.path().join("authority"), SystemTime::now()).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], twin_tests::free_port()));
    let (mut running, mut inbox) = broker(&authority, address).await;
    let up = Arc::new(AtomicUsize::new(0));
    let (ready, mut arrivals) = mpsc::unbounded_channel();
    for number in 0..boards {
        let name = format!("board{number}");
        let dialer = dialer(&authority, &name, &home.path().join(&name), address.port());
        tokio::spawn(live(dialer, Arc::clone(&up), ready.clone()));
    }
    assert!(until(&up, boards, PATIENCE).await, "{} of {boards} connected at first", up.load(Ordering::SeqCst));
    let outages: &[u64] = if boards > 100 { &[1, 10, 60] } else { &[4] };
    for outage in outages {
        // Longer connected than what counts as a good connection, in the long form only.
        sleep(Duration::from_secs(if boards > 100 { 31 } else { 0 })).await;
        running.shutdown().await;
        drop(inbox);
        assert!(until(&up, 0, PATIENCE).await, "all have noticed");
        sleep(Duration::from_secs(*outage)).await;
        while arrivals.try_recv().is_ok() {}
        (running, inbox) = broker(&authority, address).await;
        let back = Instant::now();
        let all = until(&up, boards, WITHIN).await;
        assert!(all, "{} of {boards} are back after an outage of {outage} s", up.load(Ordering::SeqCst));
        let mut times = Vec::new();
        while let Ok(at) = arrivals.try_recv() {
            times.push(at.saturating_duration_since(back));
        }
        times.sort_unstable();
        let (last, dense) = (times.last().copied().unwrap_or_default(), densest(&times));
        println!(
            "{boards} boards after {outage} s without a broker: the last is back after {last:?}, at most {dense} in any second"
        );
        if *outage > 2 {
            assert!(dense < boards * 3 / 4, "they come in step: {dense} of {boards} within a second");
        }
    }
    running.shutdown().await;
}
