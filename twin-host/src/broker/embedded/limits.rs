//! Every bound of the embedded broker, in one place, and their translation into the broker crate's own terms.
//!
//! The crate's defaults are either too tight (it refuses a client's 1,001st message of a second, or its eleventh
//! mebibyte, and the message is lost) or far too loose (packets of 256 MiB, sessions of 136 years), so none of
//! them is relied upon.

use crate::broker::longest_payload;
use mqtt5::broker::config::{BrokerConfig, StorageBackend, StorageConfig};
use mqtt5::broker::resource_monitor::ResourceLimits;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::{DynamicStorage, QueueLimits};
use std::sync::Arc;
use std::time::Duration;
use twin_shared::wire::Channel;

/// Topic, properties and fixed header around the largest payload, in bytes.
const PACKET_OVERHEAD: usize = 2048;

/// Filters that one board can have at once: each of its channels, and `dn/#`.
const SUBSCRIPTIONS_PER_DEVICE: usize = 8;

/// Topic aliases that one connection may define. The crate keeps the text of each, before it asks who may publish.
const TOPIC_ALIASES: u16 = 16;

/// Channels whose last message the broker keeps.
fn retained_channels() -> impl Iterator<Item = Channel> {
    Channel::ALL.into_iter().filter(|channel| channel.delivery().retained)
}

/// Longest retained message, bytes.
fn retained_bytes() -> usize {
    retained_channels().map(Channel::max_payload).max().unwrap_or(0)
}

/// Bounds on what clients can make the broker spend.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// From the accepted socket to an accepted CONNECT, TLS included.
    pub handshake: Duration,
    /// Connections at once. Each takes two file descriptors.
    pub connections: usize,
    /// Connections at once from one address (IPv6: from one /64 network).
    pub connections_per_address: usize,
    /// Connections from one address that have not yet proved who they are. The oldest gives way to a new one, so
    /// idle sockets cannot keep an honest board out.
    pub pending_per_address: usize,
    /// The same, over all addresses.
    pub pending: usize,
    /// Devices to expect: bounds what is retained.
    pub devices: usize,
    /// Publications and filters that one connection may send a second, in the long run and in one burst; what comes
    /// faster waits in its socket.
    pub messages_per_second: u32,
    /// Payload bytes a second from one connection, likewise.
    pub bytes_per_second: u64,
    /// The keep-alive that every client is told to use; one and a half of it without a word ends a connection.
    pub keep_alive: Duration,
    /// How long a session outlives its connection.
    pub session_expiry: Duration,
    /// Messages that wait for one board before the oldest are dropped.
    pub queue_messages: usize,
    /// Bytes that wait for one board before the oldest are dropped.
    pub queue_bytes: usize,
    /// Messages sent to a board and not yet acknowledged by it.
    pub unacknowledged: u16,
    /// Messages in each of a connection's two lanes between router and socket.
    pub lane: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            connections: 2048,
            connections_per_address: 1024,
            pending_per_address: 128,
            pending: 512,
            devices: 2048,
            messages_per_second: 10_000,
            bytes_per_second: 1 << 30,
            keep_alive: Duration::from_secs(20),
            session_expiry: Duration::from_secs(3600),
            queue_messages: 1024,
            queue_bytes: 8 << 20,
            unacknowledged: 32,
            lane: 32,
        }
    }
}

impl Limits {
    /// The crate's configuration; everything that this broker does not offer is off.
    pub(super) fn broker_config(&self) -> BrokerConfig {
        let mut config = BrokerConfig::default()
            .with_max_clients(self.connections)
            .with_session_expiry(self.session_expiry)
            .with_max_packet_size(longest_payload() + PACKET_OVERHEAD)
            // QoS 2 would keep whole messages waiting for the client's word.
            .with_maximum_qos(1)
            .with_max_subscriptions_per_client(SUBSCRIPTIONS_PER_DEVICE)
            .with_max_retained_messages(self.retained_messages())
            .with_max_retained_message_size(retained_bytes());
        config.bind_addresses = Vec::new();
        config.topic_alias_maximum = TOPIC_ALIASES;
        config.shared_subscription_available = false;
        config.subscription_identifier_available = false;
        config.client_channel_capacity = self.lane;
        config.max_outbound_inflight = self.unacknowledged;
        config.drain_batch = usize::from(self.unacknowledged);
        config.server_keep_alive = Some(self.keep_alive);
        config.server_receive_maximum = Some(self.unacknowledged);
        config.sys_topics_enabled = false;
        config.storage_config = StorageConfig::default().with_backend(StorageBackend::Memory).with_persistence(false);
        config.storage_config.max_queued_messages_per_client = self.queue_messages;
        config.storage_config.max_queued_bytes_per_client = self.queue_bytes;
        config
    }

    fn retained_messages(&self) -> usize {
        self.devices.saturating_mul(retained_channels().count())
    }

    /// The crate's own monitor counts but refuses nothing: it drops what it refuses, and it forgets a client's
    /// account when that client takes over its own session. [`super::pace`] and [`super::admission`] do the work.
    pub(super) fn unlimited_monitor(&self) -> ResourceLimits {
        ResourceLimits {
            max_connections: usize::MAX,
            max_connections_per_ip: usize::MAX,
            max_message_rate_per_client: 0,
            max_bandwidth_per_client: 0,
            max_connection_rate: u32::MAX,
            rate_limit_window: Duration::from_secs(1),
        }
    }

    /// The router, with the storage that it shares with the connections' handlers.
    pub(super) fn router(&self, storage: &Arc<DynamicStorage>) -> MessageRouter {
        MessageRouter::with_storage(Arc::clone(storage))
            .with_fallback_queue_limits(self.queue())
            .with_retained_limits(self.retained_messages(), retained_bytes())
    }

    /// Bounds of a board's queue.
    pub(super) fn queue(&self) -> QueueLimits {
        QueueLimits { max_messages: self.queue_messages, max_bytes: self.queue_bytes }
    }
}
