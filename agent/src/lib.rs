//! The resident agent of a board: it reports what the board can honestly say, trains when it may, and stays small.
#![forbid(unsafe_code)]

pub mod backlog;
pub mod calibration;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connect;
pub mod courier;
pub mod dataset;
pub mod diag;
pub mod durable;
pub mod guard;
pub mod hook;
pub mod identity;
pub mod keys;
pub mod lock;
pub mod mailbox;
pub mod models;
pub mod outbox;
pub mod pace;
pub mod renewal;
pub mod run;
pub mod sampler;
pub mod service;
pub mod session;
pub mod trainer;
pub mod transport;
pub mod workspace;

/// Does work that takes long off the event loop's thread, and waits for it.
async fn off_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
