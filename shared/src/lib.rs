//! The words that a board's agent, the twin host and the trainer share.
//!
//! Without the `std` feature the crate is `no_std` and free of allocation outside [`wire`]'s sealing: a
//! microcontroller may speak the wire. Large bodies are borrowed, never copied into messages.
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "std")]
pub mod compress;
#[cfg(feature = "std")]
pub mod config;
pub mod id;
pub mod model;
#[cfg(feature = "std")]
pub mod pacing;
#[cfg(feature = "std")]
pub mod pipe;
pub mod plan;
#[cfg(feature = "std")]
pub mod transfer;
pub mod units;
pub mod wire;
