//! Image datasets as a board stores them, copies them to its twin, splits and augments them. No LibTorch.
//!
//! Everything random here is a pure function of its arguments, in integer arithmetic over ChaCha words, so that a
//! board and its twin draw alike to the bit whatever processors they have. The one exception is
//! [`partition`]'s Dirichlet split, which only the host makes.
#![forbid(unsafe_code)]

pub mod augment;
pub mod blobs;
pub mod bundle;
pub mod cifar;
pub mod classes;
pub mod delta;
pub mod digits;
mod draw;
pub mod error;
pub mod folder;
pub mod image_set;
pub mod manifest;
pub mod normalisation;
pub mod order;
pub mod partition;
pub mod picture;
pub mod states;
pub mod waiting;

pub use classes::ClassList;
pub use error::DataError;
pub use image_set::{IMAGE_BYTES, Image, ImageSet, Part, SIDE, SampleHash};
pub use normalisation::{Normalisation, PixelStatistics};
