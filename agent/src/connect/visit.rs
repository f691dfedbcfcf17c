//! A short stay at the host under the board's own name.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::Publish;
use serde::Serialize;
use tokio::time::timeout_at;
use twin_shared::wire::{Birth, BoardState, Capabilities, Channel, HostState, Nonce, WIRE_VERSIONS};

use crate::mailbox::{Letter, Mailbox};
use crate::transport::{Connection, Dialer, News, Outgoing};

/// The broker has so long for connection and subscription.
const TAKEN_WITHIN: Duration = Duration::from_secs(45);

/// The host has so long for an answer; a ping has less.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// A goodbye that does not get through is as good as a last will.
const FAREWELL: Duration = Duration::from_secs(2);

/// The visit.
pub(super) struct Visit {
    connection: Connection,
    pub(super) mailbox: Mailbox,
    birth: u64,
    pub(super) started: Instant,
    /// Came while something was said, and was not looked at yet.
    heard: VecDeque<Publish>,
}

impl Visit {
    /// Connects, until the broker has taken the subscription.
    pub(super) async fn begin(dialer: &Dialer, mut mailbox: Mailbox, birth: u64) -> Result<Self, String> {
        let will = BoardState::Offline { sequence: birth };
        let will = mailbox.seal(Channel::UpState, Duration::ZERO, &will).map_err(|error| error.to_string())?;
        let mut connection = dialer.dial(will);
        let until = Instant::now() + TAKEN_WITHIN;
        let mut heard = VecDeque::new();
        loop {
            match timeout_at(until.into(), connection.next()).await {
                Ok(News::Ready) => return Ok(Self { connection, mailbox, birth, started: Instant::now(), heard }),
                Ok(News::Message(message)) => heard.push_back(message),
                Ok(News::Lost(why)) => return Err(why),
                Err(_) => return Err(format!("no answer within {} s", TAKEN_WITHIN.as_secs())),
            }
        }
    }

    /// Says something; what comes meanwhile is kept.
    pub(super) async fn say<T: Serialize>(&mut self, channel: Channel, message: &T) -> Result<(), String> {
        let sealed = self.mailbox.seal(channel, self.started.elapsed(), message).map_err(|error| error.to_string())?;
        let topic = self.mailbox.topic(channel);
        self.send(Outgoing::Publish(topic, sealed)).await
    }

    pub(super) async fn send(&mut self, outgoing: Outgoing) -> Result<(), String> {
        let room = self.connection.outgoing().clone();
        loop {
            tokio::select! {
                permit = room.reserve() => {
                    let Ok(permit) = permit else { return Err("the connection has ended".to_owned()) };
                    permit.send(outgoing);
                    return Ok(());
                }
                news = self.connection.next() => match news {
                    News::Message(message) => self.heard.push_back(message),
                    News::Ready => {}
                    News::Lost(why) => return Err(why),
                },
            }
        }
    }

    /// The next message; `None` when it is time.
    pub(super) async fn hear(&mut self, until: Instant) -> Result<Option<Publish>, String> {
        if let Some(message) = self.heard.pop_front() {
            return Ok(Some(message));
        }
        loop {
            match timeout_at(until.into(), self.connection.next()).await {
                Ok(News::Message(message)) => return Ok(Some(message)),
                Ok(News::Ready) => {}
                Ok(News::Lost(why)) => return Err(why),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Waits for the host's word, and says who is there: a board that neither trains nor offers a dataset.
    pub(super) async fn greet(&mut self) -> Result<String, String> {
        let until = Instant::now() + ANSWERED_WITHIN;
        let state = loop {
            let Some(message) = self.hear(until).await? else {
                return Err("the broker is there, and no host has said anything to this board".to_owned());
            };
            let mut payload = message.payload.to_vec();
            if let Ok(Letter::Host(state, boot)) = self.mailbox.open(&topic(&message), &mut payload) {
                self.mailbox.adopt(boot);
                break state;
            }
        };
        let HostState { online, epoch, versions } = state;
        if !online {
            return Err("the host has said goodbye: it does not serve now".to_owned());
        }
        if WIRE_VERSIONS.common(versions).is_none() {
            let (own, host) = (WIRE_VERSIONS, versions);
            return Err(format!(
                "the host speaks wire versions {} to {}, this board {} to {}",
                host.oldest, host.newest, own.oldest, own.newest
            ));
        }
        let birth = Birth {
            sequence: self.birth,
            versions: WIRE_VERSIONS,
            agent: heapless::String::try_from(env!("CARGO_PKG_VERSION")).unwrap_or_default(),
            capabilities: Capabilities {
                can_train: false,
                emulated: false,
                models: heapless::Vec::new(),
                memory_mib: 0,
                cores: 0,
            },
            dataset: None,
        };
        self.say(Channel::UpState, &BoardState::Online(birth)).await?;
        Ok(format!("serves, in its life {epoch}; wire versions {} to {}", versions.oldest, versions.newest))
    }

    /// Times pings, one after another.
    pub(super) async fn round_trip(&mut self, pings: usize) -> Result<String, String> {
        let mut took = Vec::new();
        for _ in 0..pings {
            let nonce = Nonce(rand::random());
            let sent = Instant::now();
            self.say(Channel::UpPing, &nonce).await?;
            while let Some(message) = self.hear(sent + PONG_WITHIN).await? {
                let mut payload = message.payload.to_vec();
                if let Ok(Letter::Pong(echo)) = self.mailbox.open(&topic(&message), &mut payload)
                    && echo == nonce
                {
                    took.push(sent.elapsed());
                    break;
                }
            }
        }
        took.sort_unstable();
        let at = |percent: usize| took.get((took.len() * percent).div_ceil(100).max(1) - 1);
        let (Some(middle), Some(high)) = (at(50), at(95)) else {
            return Err(format!("none of {pings} pings came back"));
        };
        let milliseconds = |took: &Duration| took.as_secs_f64() * 1e3;
        let lost = pings - took.len();
        Ok(format!(
            "p50 {:.1} ms, p95 {:.1} ms; {lost} of {pings} pings lost",
            milliseconds(middle),
            milliseconds(high)
        ))
    }

    pub(super) async fn leave(mut self) {
        let goodbye = async {
            self.say(Channel::UpState, &BoardState::Offline { sequence: self.birth }).await?;
            self.send(Outgoing::Disconnect).await?;
            while !matches!(self.connection.next().await, News::Lost(_)) {}
            Ok::<(), String>(())
        };
        // It leaves in any case.
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
    }
}

pub(super) fn topic(message: &Publish) -> String {
    String::from_utf8_lossy(&message.topic).into_owned()
}
