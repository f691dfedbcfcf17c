//! Losses, one a file.

pub mod cross_entropy;
pub mod kd;
pub mod simkd;
