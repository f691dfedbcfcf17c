//! Messages to bytes and back. Reading is strict: every byte must belong to the message.

use serde::{Deserialize, Serialize};

/// Why bytes are not the message expected, or a message does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The message does not fit the buffer.
    #[error("the message does not fit into {0} bytes")]
    TooLong(usize),
    /// The bytes are not this message.
    #[error("not such a message")]
    Malformed,
    /// Bytes are left over.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// Writes a message to the start of `buffer` and returns its bytes.
///
/// # Errors
/// When it does not fit.
pub fn encode<'b, T: Serialize>(message: &T, buffer: &'b mut [u8]) -> Result<&'b mut [u8], CodecError> {
    let room = buffer.len();
    postcard::to_slice(message, buffer).map_err(|_| CodecError::TooLong(room))
}

/// Reads a message that fills `bytes` exactly; large bodies stay borrowed.
///
/// # Errors
/// When the bytes are not such a message, or more.
pub fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, CodecError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(CodecError::Trailing(rest.len())),
        Err(_) => Err(CodecError::Malformed),
    }
}
