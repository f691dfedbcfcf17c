//! The seal around every payload: a broker without access rules, or a curious one, learns sizes and times only,
//! and can forge or replay nothing.
//!
//! A payload is a plain header (version, channel, sender's boot, sequence number, sender's time), the message
//! encrypted with ChaCha20-Poly1305, and the 16-byte tag. The key is derived by HKDF-SHA256 from the device's key,
//! with the boot id as salt and the direction as info; the nonce is the sequence number; topic and header are
//! associated data. A boot id is random and a sequence number is used once in a boot, so no nonce repeats under a key.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce as CipherNonce, Tag};
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::codec::{self, CodecError};
use super::topic::{Channel, Direction, Topic};
use super::{VersionRange, WIRE_VERSIONS};
use crate::id::BootId;

/// Bytes that a seal adds at most: header (1 + 1 + 16 + 10 + 10) and tag (16).
pub const MAX_OVERHEAD: usize = 54;

const TAG: usize = 16;

/// The secret that a device and the host share from enrolment on. Never printed, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DeviceKey([u8; 32]);

impl DeviceKey {
    /// A key of these bytes, which must be random.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for writing it to its file and nothing else.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What the device shows to a plain broker as its password: derived, so that it gives the key to nobody.
    #[must_use]
    pub fn broker_password(&self) -> [u8; 32] {
        let mut password = [0; 32];
        self.derive(&[], b"twinstill v1 broker password", &mut password);
        password
    }

    /// The key after this one: of what was agreed on with these shares, and of this one, so that nobody gets it who
    /// lacks either.
    pub(super) fn successor(&self, agreed: &[u8; 32], board: &[u8; 32], host: &[u8; 32]) -> Self {
        let mut next = [0; 32];
        let info: [&[u8]; 3] = [b"twinstill v1 next key", board, host];
        Hkdf::<Sha256>::new(Some(&self.0), agreed)
            .expand_multi_info(&info, &mut next)
            .expect("32 bytes are one block of the hash");
        let key = Self(next);
        next.zeroize();
        key
    }

    fn cipher(&self, direction: Direction, boot: BootId) -> ChaCha20Poly1305 {
        let info: &[u8] = match direction {
            Direction::Up => b"twinstill v1 up",
            Direction::Down => b"twinstill v1 down",
        };
        let mut subkey = [0; 32];
        self.derive(&boot.0, info, &mut subkey);
        let cipher = ChaCha20Poly1305::new(&Key::from(subkey));
        subkey.zeroize();
        cipher
    }

    fn derive(&self, salt: &[u8], info: &[u8], out: &mut [u8; 32]) {
        Hkdf::<Sha256>::new(Some(salt), &self.0).expand(info, out).expect("32 bytes are one block of the hash");
    }
}

impl core::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DeviceKey(…)")
    }
}

/// The readable part of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Wire version of the message.
    pub version: u8,
    /// The channel's number: a payload moved to another channel is refused before it is opened.
    pub channel: u8,
    /// The sender's boot.
    pub boot: BootId,
    /// Counts the sender's payloads from 0.
    pub sequence: u64,
    /// The sender's clock since its boot, milliseconds. For people and plots; nothing is decided by it.
    pub time_ms: u64,
}

/// Why a payload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Longer than its channel allows.
    #[error("{length} bytes on {channel:?}, which takes at most {limit}")]
    TooLong {
        /// The payload's length.
        length: usize,
        /// The channel.
        channel: Channel,
        /// Its limit.
        limit: usize,
    },
    /// No envelope at all.
    #[error("not an envelope")]
    Malformed,
    /// A version that this side does not speak.
    #[error("wire version {found}, this side speaks {} to {}", known.oldest, known.newest)]
    Version {
        /// The payload's version.
        found: u8,
        /// Ours.
        known: VersionRange,
    },
    /// Sealed for another channel.
    #[error("an envelope of channel {found} on {channel:?}")]
    Channel {
        /// The number in the header.
        found: u8,
        /// Where it came.
        channel: Channel,
    },
    /// From a boot of the sender that is not its current one.
    #[error("from boot {0}, not the sender's present one")]
    Boot(BootId),
    /// Seen before, or too old to tell.
    #[error("sequence number {0} again, or too old")]
    Replayed(u64),
    /// Not made with the device's key for this topic.
    #[error("the seal does not fit: forged, damaged or meant for another topic")]
    Forged,
    /// The message inside is not the channel's.
    #[error("inside the seal: {0}")]
    Body(#[from] CodecError),
}

/// Seals what one side sends in one boot.
pub struct Sealer {
    cipher: ChaCha20Poly1305,
    boot: BootId,
    next: u64,
    version: u8,
}

impl Sealer {
    /// A sealer for everything that goes in this direction until the program ends.
    #[must_use]
    pub fn new(key: &DeviceKey, direction: Direction, boot: BootId) -> Self {
        Self { cipher: key.cipher(direction, boot), boot, next: 0, version: WIRE_VERSIONS.oldest }
    }

    /// From now on messages are of the newest version that the other side speaks too. Until then they are of the
    /// oldest; retained documents are always, since anybody may read them later.
    pub fn speak(&mut self, theirs: VersionRange) {
        if let Some(version) = WIRE_VERSIONS.common(theirs) {
            self.version = version;
        }
    }

    /// Seals a message into `buffer` and returns the payload.
    ///
    /// # Errors
    /// When the payload does not fit the buffer or its channel.
    pub fn seal<'b, T: Serialize>(
        &mut self,
        topic: &Topic,
        time_ms: u64,
        message: &T,
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], SealError> {
        let header = Header {
            version: if topic.channel.delivery().retained { WIRE_VERSIONS.oldest } else { self.version },
            channel: topic.channel as u8,
            boot: self.boot,
            sequence: self.next,
            time_ms,
        };
        let start = codec::encode(&header, buffer)?.len();
        let (head, rest) = buffer.split_at_mut(start);
        let body = codec::encode(message, rest)?;
        let end = body.len();
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce(self.next), associated(topic, head).as_slice(), body.into())
            .map_err(|_| SealError::Malformed)?;
        let room = rest.len();
        rest.get_mut(end..end + TAG).ok_or(CodecError::TooLong(room))?.copy_from_slice(&tag);
        let length = start + end + TAG;
        let limit = topic.channel.max_payload();
        if length > limit {
            return Err(SealError::TooLong { length, channel: topic.channel, limit });
        }
        self.next += 1;
        Ok(&buffer[..length])
    }
}

/// A payload opened: its header and the message's bytes, for [`codec::decode`].
#[derive(Debug)]
pub struct Opened<'b> {
    /// The header, now known to be the sender's.
    pub header: Header,
    /// The message.
    pub body: &'b [u8],
}

/// Opens what the other side sends: knows its present boot and which sequence numbers it has used.
pub struct Opener {
    key: DeviceKey,
    direction: Direction,
    current: Option<(BootId, ChaCha20Poly1305, ReplayWindow)>,
}

impl Opener {
    /// An opener for one direction of a device's channels. Until a boot is adopted only documents can be opened.
    #[must_use]
    pub const fn new(key: DeviceKey, direction: Direction) -> Self {
        Self { key, direction, current: None }
    }

    /// The boot that messages must come from.
    #[must_use]
    pub fn boot(&self) -> Option<BootId> {
        self.current.as_ref().map(|(boot, ..)| *boot)
    }

    /// From now on messages must come from this boot. The caller has seen an authentic state document of it that is
    /// newer than any before, by its own count of births.
    pub fn adopt(&mut self, boot: BootId) {
        if self.boot() != Some(boot) {
            self.current = Some((boot, self.key.cipher(self.direction, boot), ReplayWindow::default()));
        }
    }

    /// Opens a retained document or a will: of any boot, as often as the broker repeats it. The caller orders them
    /// by the version or birth count inside.
    ///
    /// # Errors
    /// When the payload is refused.
    pub fn open_document<'b>(&self, topic: &Topic, payload: &'b mut [u8]) -> Result<Opened<'b>, SealError> {
        let (header, start) = read_header(topic, payload)?;
        let cipher = self.key.cipher(self.direction, header.boot);
        unseal(&cipher, topic, header, start, payload)
    }

    /// Opens a message of the present boot, once.
    ///
    /// # Errors
    /// When the payload is refused; the state is as before then.
    pub fn open<'b>(&mut self, topic: &Topic, payload: &'b mut [u8]) -> Result<Opened<'b>, SealError> {
        let (header, start) = read_header(topic, payload)?;
        let Some((_, cipher, window)) = self.current.as_mut().filter(|(boot, ..)| *boot == header.boot) else {
            return Err(SealError::Boot(header.boot));
        };
        if window.has_seen(header.sequence) {
            return Err(SealError::Replayed(header.sequence));
        }
        let opened = unseal(cipher, topic, header, start, payload)?;
        window.mark(header.sequence);
        Ok(opened)
    }
}

/// Reads and checks the header; returns where the sealed body begins.
fn read_header(topic: &Topic, payload: &[u8]) -> Result<(Header, usize), SealError> {
    let (channel, limit) = (topic.channel, topic.channel.max_payload());
    if payload.len() > limit {
        return Err(SealError::TooLong { length: payload.len(), channel, limit });
    }
    let (header, rest) = postcard::take_from_bytes::<Header>(payload).map_err(|_| SealError::Malformed)?;
    if !WIRE_VERSIONS.contains(header.version) {
        return Err(SealError::Version { found: header.version, known: WIRE_VERSIONS });
    }
    if header.channel != channel as u8 {
        return Err(SealError::Channel { found: header.channel, channel });
    }
    if rest.len() < TAG {
        return Err(SealError::Malformed);
    }
    Ok((header, payload.len() - rest.len()))
}

fn unseal<'b>(
    cipher: &ChaCha20Poly1305,
    topic: &Topic,
    header: Header,
    start: usize,
    payload: &'b mut [u8],
) -> Result<Opened<'b>, SealError> {
    let (head, rest) = payload.split_at_mut(start);
    let (body, tag) = rest.split_at_mut(rest.len() - TAG);
    let tag = Tag::try_from(&*tag).map_err(|_| SealError::Malformed)?;
    cipher
        .decrypt_inout_detached(&nonce(header.sequence), associated(topic, head).as_slice(), (&mut *body).into(), &tag)
        .map_err(|_| SealError::Forged)?;
    Ok(Opened { header, body })
}

fn nonce(sequence: u64) -> CipherNonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&sequence.to_be_bytes());
    nonce.into()
}

/// Topic and header, one after the other. A topic has at most 8 + 32 + 13 bytes, a header 38.
fn associated(topic: &Topic, header: &[u8]) -> heapless::Vec<u8, 128> {
    use core::fmt::Write as _;
    let mut text: heapless::String<64> = heapless::String::new();
    write!(text, "{topic}").expect("a topic has at most 53 bytes");
    let mut bytes = heapless::Vec::new();
    bytes.extend_from_slice(text.as_bytes()).expect("53 of 128 bytes");
    bytes.extend_from_slice(header).expect("38 of 75 bytes");
    bytes
}

/// Which of the last 1,024 sequence numbers were used: messages of different quality of service overtake each other,
/// but not by more.
#[derive(Default)]
struct ReplayWindow {
    /// One above the highest number seen.
    next: u64,
    seen: [u64; 16],
}

impl ReplayWindow {
    const SPAN: u64 = 1024;

    fn has_seen(&self, sequence: u64) -> bool {
        if sequence >= self.next {
            return sequence == u64::MAX;
        }
        self.next - sequence > Self::SPAN || self.seen[Self::word(sequence)] & Self::bit(sequence) != 0
    }

    fn mark(&mut self, sequence: u64) {
        if sequence >= self.next {
            // Numbers that are skipped take the places of old ones: clear them.
            if sequence - self.next >= Self::SPAN {
                self.seen = [0; 16];
            } else {
                for skipped in self.next..=sequence {
                    self.seen[Self::word(skipped)] &= !Self::bit(skipped);
                }
            }
            self.next = sequence + 1;
        }
        self.seen[Self::word(sequence)] |= Self::bit(sequence);
    }

    const fn word(sequence: u64) -> usize {
        ((sequence % Self::SPAN) / 64) as usize
    }

    const fn bit(sequence: u64) -> u64 {
        1 << (sequence % 64)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
