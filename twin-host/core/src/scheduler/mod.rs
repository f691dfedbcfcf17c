//! Who trains which student where, and with how much of the host's compute and of the channel: Eq. (1)-(6).
//!
//! A [`Scenario`] is the validated question, a [`Decision`] the answer, a [`policy::Policy`] the way from one to the
//! other. For a given choice of students and sites the shares have a closed form ([`allocate`]); what a decision is
//! worth depends on the choices only through two sums of square roots and a separable rest, which is what the exact
//! search, the Lagrangian bound and the Q-table all live on.

pub mod allocate;
mod candidates;
mod check;
pub mod cost;
pub mod decision;
pub mod family;
pub mod hysteresis;
pub mod learning;
pub mod loads;
pub mod mdp;
pub mod moves;
mod narrow;
pub mod objective;
pub mod policy;
mod polygon;
mod prices;
pub mod problem;
pub mod q_table;
mod rounding;
pub mod scenario_file;

pub use cost::{Choice, CostTerms, Delay, Load, Pipeline};
pub use decision::{Certificate, Decision, DeviceDecision};
pub use problem::{Accuracy, Device, Link, Radio, Scenario, ScenarioError, ScenarioSpec, Weights};
pub use scenario_file::RawScenario;
