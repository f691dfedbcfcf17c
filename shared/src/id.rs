//! Identities: devices, jobs, boots, and versions named by their content's hash.

use core::fmt;
use serde::{Deserialize, Serialize};

/// A device's one name: certificate CN, MQTT user name, client id and topic segment alike.
///
/// `[a-z0-9]`, with `-` inside, 1 to 32 bytes. Nothing else can be a topic segment, so a name can never reach
/// another device's topics.
///
/// ```
/// use twin_shared::id::DeviceId;
/// assert!("board-1".parse::<DeviceId>().is_ok());
/// for bad in ["", "Board", "a/b", "a+", "#", "-a", "a-", "é", "x23456789012345678901234567890123"] {
///     assert!(bad.parse::<DeviceId>().is_err(), "{bad}");
/// }
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "heapless::String<32>", into = "heapless::String<32>")]
pub struct DeviceId(heapless::String<32>);

/// Why a text is not a device's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device name has 1 to 32 characters of a-z, 0-9 and, inside, '-'")]
pub struct InvalidDeviceId;

impl DeviceId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::str::FromStr for DeviceId {
    type Err = InvalidDeviceId;

    fn from_str(text: &str) -> Result<Self, InvalidDeviceId> {
        let inner = !text.starts_with('-') && !text.ends_with('-');
        let charset = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if text.is_empty() || !inner || !charset {
            return Err(InvalidDeviceId);
        }
        heapless::String::try_from(text).map(Self).map_err(|_| InvalidDeviceId)
    }
}

impl TryFrom<heapless::String<32>> for DeviceId {
    type Error = InvalidDeviceId;

    fn try_from(text: heapless::String<32>) -> Result<Self, InvalidDeviceId> {
        text.as_str().parse()
    }
}

impl From<DeviceId> for heapless::String<32> {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number_id!(
    /// A training job of the host: one teacher, its students, their epochs.
    JobId);
number_id!(
    /// One epoch of one device's student within a job, counted from 0. It fences out late writers.
    RoundId);

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The BLAKE3 hash of these bytes.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(*blake3::hash(bytes).as_bytes())
            }

            /// Reads 64 hexadecimal digits.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
            }
        }

        /// 64 hexadecimal digits; with a precision, that many of them.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self:.12})", stringify!($name))
            }
        }
    };
}

hash_id!(
    /// The BLAKE3 hash of a blob: a dataset, a block of labels, a student state as it lies on disk.
    BlobHash);
hash_id!(
    /// A student state by the hash of its canonical list of tensors.
    ModelVersion);
hash_id!(
    /// A dataset by the hash of its bytes.
    DatasetVersion);

/// 128 random bits drawn at each start of a program: messages of an earlier life are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub [u8; 16]);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({self})")
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_wire_is_checked() {
        let foreign = postcard::to_allocvec("../etc").expect("a text serialises");
        assert!(postcard::from_bytes::<DeviceId>(&foreign).is_err());
        let fine = postcard::to_allocvec("board1").expect("a text serialises");
        assert_eq!(postcard::from_bytes::<DeviceId>(&fine).expect("valid").as_str(), "board1");
    }

    #[test]
    fn a_hash_reads_what_it_prints() {
        let hash = BlobHash::of(b"twin");
        assert_eq!(BlobHash::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(BlobHash::from_hex("abc"), None);
    }
}
