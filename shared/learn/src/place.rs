//! Where a network computes, and in what number format.

use tch::{Device, Kind};

/// A device, and the number format of convolutions on it: f32, or bf16 over f32 weights. Norms keep f32 statistics,
/// and losses, gradients of weights and updates are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Where tensors live.
    pub device: Device,
    /// What convolutions compute in.
    pub compute: Kind,
}

/// In f32.
impl From<Device> for Place {
    fn from(device: Device) -> Self {
        Self { device, compute: Kind::Float }
    }
}
