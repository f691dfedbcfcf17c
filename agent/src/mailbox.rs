//! Seals what the board says and opens what it hears.

use std::time::Duration;

use serde::Serialize;
use twin_shared::id::{BootId, DeviceId};
use twin_shared::wire::seal::{DeviceKey, Opener, SealError, Sealer};
use twin_shared::wire::{
    BlobAck, BlobMessage, Channel, Command, Direction, HostState, MAX_CHUNK, Nonce, RenewalAnswer, Topic, TwinDocument,
    VersionRange, codec,
};

/// Both directions of a board's seal.
pub struct Mailbox {
    device: DeviceId,
    sealer: Sealer,
    opener: Opener,
    buffer: Vec<u8>,
}

/// What the host said.
#[derive(Debug)]
pub enum Letter<'b> {
    /// Its state, and the boot that sealed it.
    Host(HostState, BootId),
    /// The twin document.
    Desired(TwinDocument),
    /// An order.
    Command(Command),
    /// A manifest or a chunk.
    Blob(BlobMessage<'b>),
    /// What the host holds of our blob.
    Ack(BlobAck),
    /// Our ping again.
    Pong(Nonce),
    /// About the next keys.
    Renewal(RenewalAnswer<'b>),
}

/// Why something heard is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// Not a channel that this board hears.
    #[error("not a channel to this board")]
    Topic,
    /// The seal says no.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl Mailbox {
    /// The mailbox of a board in this boot.
    #[must_use]
    pub fn new(device: DeviceId, key: DeviceKey, boot: BootId) -> Self {
        let sealer = Sealer::new(&key, Direction::Up, boot);
        Self { device, sealer, opener: Opener::new(key, Direction::Down), buffer: Vec::new() }
    }

    /// From now on both sides use this key. What the host sealed by the former one opens no more.
    pub fn rekey(&mut self, key: DeviceKey, boot: BootId) {
        let host = self.opener.boot();
        self.sealer = Sealer::new(&key, Direction::Up, boot);
        self.opener = Opener::new(key, Direction::Down);
        if let Some(host) = host {
            self.opener.adopt(host);
        }
    }

    /// Messages come from this boot of the host from now on.
    pub fn adopt(&mut self, boot: BootId) {
        self.opener.adopt(boot);
    }

    /// The host speaks these versions: messages are of the newest that both do.
    pub fn speak(&mut self, theirs: VersionRange) {
        self.sealer.speak(theirs);
    }

    /// The topic of a channel.
    #[must_use]
    pub fn topic(&self, channel: Channel) -> Topic {
        Topic { device: self.device.clone(), channel }
    }

    /// Seals a message for a channel, `elapsed` after the agent's start.
    ///
    /// # Errors
    /// When it is too long for its channel.
    pub fn seal<T: Serialize>(
        &mut self,
        channel: Channel,
        elapsed: Duration,
        message: &T,
    ) -> Result<Vec<u8>, SealError> {
        // Chunks are long, everything else is not: the large buffer is there only while blobs go out.
        let room = channel.max_payload().min(MAX_CHUNK + 512);
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let topic = self.topic(channel);
        let time = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let sealed = self.sealer.seal(&topic, time, message, &mut self.buffer)?.to_vec();
        if channel != Channel::UpBlob && self.buffer.len() > 4096 {
            self.buffer = Vec::new();
        }
        Ok(sealed)
    }

    /// Opens a payload that came on a topic.
    ///
    /// # Errors
    /// When it is not for this board, or its seal or content is wrong.
    pub fn open<'b>(&mut self, topic: &str, payload: &'b mut [u8]) -> Result<Letter<'b>, MailError> {
        let topic = Topic::parse(topic).filter(|topic| topic.device == self.device).ok_or(MailError::Topic)?;
        let opener = &mut self.opener;
        Ok(match topic.channel {
            Channel::DnState => {
                let opened = opener.open_document(&topic, payload)?;
                Letter::Host(decode(opened.body)?, opened.header.boot)
            }
            Channel::DnDesired => Letter::Desired(decode(opener.open_document(&topic, payload)?.body)?),
            Channel::DnCommand => Letter::Command(decode(opener.open(&topic, payload)?.body)?),
            Channel::DnBlob => Letter::Blob(decode(opener.open(&topic, payload)?.body)?),
            Channel::DnAck => Letter::Ack(decode(opener.open(&topic, payload)?.body)?),
            Channel::DnPong => Letter::Pong(decode(opener.open(&topic, payload)?.body)?),
            Channel::DnRenewal => Letter::Renewal(decode(opener.open(&topic, payload)?.body)?),
            Channel::UpState
            | Channel::UpReported
            | Channel::UpTelemetry
            | Channel::UpPing
            | Channel::UpCommand
            | Channel::UpBlob
            | Channel::UpAck
            | Channel::UpLog
            | Channel::UpRenewal => return Err(MailError::Topic),
        })
    }
}

fn decode<'b, T: serde::Deserialize<'b>>(body: &'b [u8]) -> Result<T, SealError> {
    codec::decode(body).map_err(SealError::Body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::wire::{Order, WIRE_VERSIONS};

    fn device() -> DeviceId {
        "board1".parse().expect("a name")
    }

    fn host_says<T: Serialize>(sealer: &mut Sealer, channel: Channel, message: &T) -> (String, Vec<u8>) {
        let topic = Topic { device: device(), channel };
        let mut buffer = [0; 2048];
        (topic.to_string(), sealer.seal(&topic, 0, message, &mut buffer).expect("fits").to_vec())
    }

    #[test]
    fn orders_are_heard_once_and_only_from_the_host_that_is_known() {
        let key = DeviceKey::new([1; 32]);
        let mut mailbox = Mailbox::new(device(), key.clone(), BootId([2; 16]));
        let mut host = Sealer::new(&key, Direction::Down, BootId([3; 16]));
        let command = Command { id: 1, order: Order::Rebirth };
        let (topic, order) = host_says(&mut host, Channel::DnCommand, &command);
        assert!(mailbox.open(&topic, &mut order.clone()).is_err(), "nobody is known yet");
        let state = HostState { online: true, epoch: 1, versions: WIRE_VERSIONS };
        let (state_topic, mut state) = host_says(&mut host, Channel::DnState, &state);
        let Ok(Letter::Host(_, boot)) = mailbox.open(&state_topic, &mut state) else { panic!("a document opens") };
        mailbox.adopt(boot);
        assert!(matches!(mailbox.open(&topic, &mut order.clone()), Ok(Letter::Command(got)) if got == command));
        assert!(matches!(mailbox.open(&topic, &mut order.clone()), Err(MailError::Seal(SealError::Replayed(_)))));
        assert_eq!(mailbox.open("twin/v1/other/dn/command", &mut order.clone()).err(), Some(MailError::Topic));
    }
}
