//! The twin host: broker, twins, scheduler, training, experiments.
#![forbid(unsafe_code)]

pub mod broker;
pub mod calibration;
mod cli;
pub mod config;
pub mod control;
pub mod decide;
mod durable;
pub mod enroll;
mod experiment;
pub mod export;
mod link;
mod recording;
pub mod serve;
pub mod store;
pub mod traffic;
pub mod train;

pub use cli::run;
pub use link::LinkCounts;
