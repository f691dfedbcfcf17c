//! Answers by a model bundle in pure Rust: what a board without LibTorch answers by.
//!
//! The runtime is candle: it builds for every board of the fleet, 32-bit ones too. Batch norms are folded into the
//! convolutions before them when a network is built, in f64, so that logits stay within 1e-4 of the trainer's.
#![forbid(unsafe_code)]

mod answer;
mod layer;
mod network;
#[cfg(feature = "sample")]
pub mod sample;

pub use answer::{Answer, personal};
pub use network::{InferError, Network};
