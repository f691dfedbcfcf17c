//! A broker with known devices, and honest clients of it.

use crate::raw::Raw;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::time::timeout;
use twin_host::broker::credentials::Credentials;
use twin_host::broker::embedded::{EmbeddedBroker, EmbeddedConfig, Limits, PlainListener, TlsIdentity, TlsListener};
use twin_host::broker::{Address, Boxed, Broker, Inbound, Inbox, Outbound};
use twin_host::enroll::{Authority, Certified, Fingerprint};
use twin_shared::id::DeviceId;
use twin_shared::wire::{Channel, Topic};

/// Longer than anything here takes on the slowest machine; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

pub(crate) fn topic(name: &str, channel: Channel) -> Topic {
    Topic { device: device(name), channel }
}

pub(crate) fn password(name: &str) -> String {
    format!("password of {name}")
}

/// Every device whose name is written in the list has its password; some are revoked.
#[derive(Default)]
pub(crate) struct List {
    passwords: HashMap<DeviceId, String>,
    revoked: Mutex<HashSet<DeviceId>>,
    replaced: Mutex<HashSet<Fingerprint>>,
}

impl List {
    pub(crate) fn pardon(&self, device: &DeviceId) {
        self.revoked.lock().unwrap().remove(device);
    }

    pub(crate) fn replace(&self, certificate: Fingerprint) {
        self.replaced.lock().unwrap().insert(certificate);
    }

    pub(crate) fn revoke(&self, device: &DeviceId) {
        self.revoked.lock().unwrap().insert(device.clone());
    }
}

impl Credentials for List {
    fn verify<'a>(&'a self, device: &'a DeviceId, password: &'a [u8]) -> Boxed<'a, bool> {
        Box::pin(async move { self.passwords.get(device).is_some_and(|known| known.as_bytes() == password) })
    }

    fn holds<'a>(&'a self, device: &'a DeviceId, certificate: Fingerprint) -> Boxed<'a, bool> {
        let replaced = self.replaced.lock().unwrap().contains(&certificate);
        Box::pin(async move { !replaced && self.passwords.contains_key(device) })
    }

    fn is_revoked<'a>(&'a self, device: &'a DeviceId) -> Boxed<'a, bool> {
        Box::pin(async move { self.revoked.lock().unwrap().contains(device) })
    }
}

pub(crate) struct Stage {
    pub(crate) broker: EmbeddedBroker,
    pub(crate) inbox: Inbox,
    pub(crate) list: Arc<List>,
    pub(crate) authority: Authority,
    home: TempDir,
}

fn identity(authority: &Authority) -> TlsIdentity {
    let own = authority.certify_broker(&["127.0.0.1".to_owned()], SystemTime::now()).unwrap();
    TlsIdentity {
        chain: own.certificate.into_bytes(),
        key: own.key.as_bytes().to_vec().into(),
        authority: authority.trusted().into_bytes(),
    }
}

impl Stage {
    /// Another authority signs from now on; the broker shows its certificate, and trusts both.
    pub(crate) fn rotate(&self) -> Authority {
        let successor = Authority::rotate(self.home.path(), SystemTime::now()).unwrap();
        self.broker.renew_tls(&identity(&successor)).unwrap();
        successor
    }

    /// Plain and TLS listeners on free ports of loopback; devices board0 … board9.
    pub(crate) async fn set() -> Self {
        Self::with(Limits::default(), Vec::new()).await
    }

    pub(crate) async fn with(limits: Limits, durable: Vec<Channel>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(home.path(), SystemTime::now()).unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = EmbeddedConfig {
            plain: Some(PlainListener { address: loopback, insecure_plain_beyond_loopback: false }),
            tls: Some(TlsListener { address: loopback, identity: identity(&authority) }),
            limits,
            durable,
        };
        let list = Arc::new(List {
            passwords: (0..10).map(|n| format!("board{n}")).map(|name| (device(&name), password(&name))).collect(),
            revoked: Mutex::default(),
            replaced: Mutex::default(),
        });
        let credentials = Arc::clone(&list) as Arc<dyn Credentials>;
        let (broker, inbox) = EmbeddedBroker::start(config, credentials).await.unwrap();
        Self { broker, inbox, list, authority, home }
    }

    pub(crate) fn plain(&self) -> SocketAddr {
        self.address(|address| match address {
            Address::Plain(address) => Some(address),
            Address::Tls(_) | Address::External(_) => None,
        })
    }

    pub(crate) fn tls(&self) -> SocketAddr {
        self.address(|address| match address {
            Address::Tls(address) => Some(address),
            Address::Plain(_) | Address::External(_) => None,
        })
    }

    fn address(&self, pick: impl Fn(Address) -> Option<SocketAddr>) -> SocketAddr {
        self.broker.addresses().into_iter().find_map(pick).unwrap()
    }

    pub(crate) fn certify(&self, name: &str) -> Certified {
        self.authority.certify_device(&device(name), SystemTime::now()).unwrap()
    }

    /// A board with its password, its session kept for an hour.
    pub(crate) async fn board(&self, name: &str) -> Raw {
        let mut raw = Raw::tcp(self.plain()).await;
        let reply = raw.connect(&Connect::honest(name)).await;
        assert!(reply.is_success(), "{name}: {reply:?}");
        raw
    }

    /// The same, subscribed to all that is its own.
    pub(crate) async fn listener(&self, name: &str) -> Raw {
        let mut raw = self.board(name).await;
        let reply = raw.subscribe(&format!("twin/v1/{name}/dn/#"), 1).await;
        assert!(reply.is_success(), "{name}: {reply:?}");
        raw
    }

    /// What the next board said, within patience.
    pub(crate) async fn next(&mut self) -> Inbound {
        timeout(PATIENCE, self.inbox.recv()).await.expect("a message in time").expect("the broker runs")
    }

    /// Asserts that nothing came before this message of this board's, sent now.
    pub(crate) async fn expect_nothing_before(&mut self, raw: &mut Raw, name: &str) {
        let fence = topic(name, Channel::UpCommand);
        let reply = raw.publish(&fence.to_string(), b"fence", 1, false).await;
        assert!(reply.is_some_and(|reply| reply.is_success()));
        let next = self.next().await;
        assert_eq!((&next.topic, &next.payload[..]), (&fence, &b"fence"[..]));
        next.settle();
    }

    pub(crate) async fn say(&self, name: &str, channel: Channel, payload: impl Into<Bytes>) {
        self.broker.publish(Outbound { topic: topic(name, channel), payload: payload.into() }).await.unwrap();
    }

    /// Asserts that this board hears nothing before what the host says to it now.
    pub(crate) async fn expect_silence_before(&self, raw: &mut Raw, name: &str) {
        self.say(name, Channel::DnCommand, "fence").await;
        let heard = raw.hear().await;
        assert_eq!(
            (heard.topic.as_str(), &heard.payload[..]),
            (&*topic(name, Channel::DnCommand).to_string(), &b"fence"[..])
        );
    }

    /// A board that nobody has spoilt connects, speaks and hears.
    pub(crate) async fn expect_service(&mut self, name: &str) {
        let mut raw = self.listener(name).await;
        self.expect_silence_before(&mut raw, name).await;
        self.expect_nothing_before(&mut raw, name).await;
        raw.disconnect().await;
    }
}

/// What a CONNECT says.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) client_id: String,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) clean: bool,
    pub(crate) session_expiry: u32,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<(String, Vec<u8>, u8, bool)>,
    pub(crate) version: u8,
}

impl Connect {
    pub(crate) fn honest(name: &str) -> Self {
        Self {
            client_id: name.to_owned(),
            user: Some(name.to_owned()),
            password: Some(password(name)),
            clean: false,
            session_expiry: 3600,
            keep_alive: 20,
            will: None,
            version: 5,
        }
    }
}
