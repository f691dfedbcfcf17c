//! Experiments: one module for each table or figure, from draws to files.

pub(crate) mod accuracy;
pub(crate) mod bytes;
pub(crate) mod demo;
pub(crate) mod field;
pub(crate) mod scheduling;
