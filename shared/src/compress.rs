//! Student states in few bytes: what changed since a state that both sides hold, in few bits a number. No IO.
//!
//! The side that trained encodes and the other decodes, and both then hold the same state to the bit: the *adopted*
//! one, base + dequantised difference, not the one that came out of training. What the quantisation left out is the
//! sender's **residual**, which it adds to the next difference (error feedback), so that nothing is lost for good.
//!
//! A state is a safetensors file of f32 tensors. Matrices and convolutions are *coarse*: their differences are
//! quantised. Tensors of one dimension (parameters of norms, biases, running statistics) are *exact*: they travel as
//! f32 whatever the compression. All of it goes through zstd, which finds that small codes are the most frequent.
//!
//! ```text
//! delta file:  "TWDELTA1" · About (postcard) · zstd(prefix of the state's file · exact values · codes)
//! ```

mod codes;
mod delta;
mod layout;

pub use crate::plan::Compression;
pub use delta::{About, Encoded, decode, encode, is_delta};

/// Why a state is not encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// Not a safetensors file of f32 tensors.
    #[error("not a student state: {0}")]
    NotState(String),
    /// Base and fresh state, or residual and state, have other tensors.
    #[error("{0} has other tensors than the state")]
    OtherNetwork(&'static str),
    /// A difference that is no finite number.
    #[error("the difference of tensor {0:?} is not finite")]
    NotFinite(String),
    /// Not a delta file, a damaged one, or one that claims more than its state can have.
    #[error("not a delta: {0}")]
    NotDelta(&'static str),
    /// What came out is not what was encoded: the base is another one.
    #[error("the decoded state is {found:.12}…, the delta is of {expected:.12}…")]
    OtherState {
        /// What came out.
        found: crate::id::BlobHash,
        /// What was encoded.
        expected: crate::id::BlobHash,
    },
}

#[cfg(test)]
mod tests;
