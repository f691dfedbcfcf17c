//! The scheduler against oracles: a conic solver, plain enumeration, and properties that hold whatever the input.

#[path = "../oracle/conic.rs"]
mod conic;

mod allocation;
mod choices;
mod learned;
mod robust;
