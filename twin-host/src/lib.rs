//! The twin host: broker, twins, scheduler, training, experiments.

pub mod broker;
pub mod enroll;
