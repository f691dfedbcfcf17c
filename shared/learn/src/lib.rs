//! Networks, distillation, and training over twins, on LibTorch.
//!
//! A twin's images and labels are opened in [`samples`] and are reachable nowhere else: what leaves is gradients,
//! pooled moments, features by position, counts and scores.
#![forbid(unsafe_code)]

pub mod calibrate;
pub mod checkpoint;
mod compressed;
pub mod count;
pub mod device;
pub mod distill;
pub mod epoch;
pub mod error;
pub mod evaluate;
pub mod fedavg;
pub mod fedsgd;
pub mod init;
pub mod labels;
pub mod model;
pub mod place;
pub mod precision;
pub mod run;
pub mod samples;
pub mod sgd;
pub mod tensor_file;
pub mod zoo;

pub use error::LearnError;
pub use model::Model;
pub use place::Place;
pub use run::{Progress, Run};
pub use samples::TwinSamples;
