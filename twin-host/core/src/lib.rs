//! The twin host's decisions as pure code: no clock, no file, no socket, no global. Time and chance come in as
//! arguments, effects go out as values.

pub mod coordinator;
pub mod experience;
pub mod scheduler;
pub mod share;
pub mod twin;
