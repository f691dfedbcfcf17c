//! The embedded broker under honest clients, hostile ones and slow ones.
//!
//! What the broker crate is known to get wrong by default, or once got wrong, has a test here each, so that a change
//! of its version shows at once.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod attacks;
mod flow;
mod idle;
mod life;
mod malformed;
mod mosquitto;
mod raw;
mod stage;
