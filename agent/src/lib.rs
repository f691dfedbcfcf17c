//! The resident agent of a board: it reports what the board can honestly say, trains when it may, and stays small.
#![forbid(unsafe_code)]

pub mod backlog;
pub mod cli;
pub mod config;
pub mod guard;
pub mod sampler;
pub mod service;
