//! The loads of all choices, computed as they are asked for or kept in a table.

use super::cost::{Choice, Load};
use super::problem::Scenario;

/// Devices and what each of their permitted choices would ask of the budgets.
pub trait Loads {
    /// How many devices there are.
    fn devices(&self) -> usize;
    /// Calls `visit` with every permitted choice of a device, at least one.
    fn visit(&self, device: usize, visit: impl FnMut(Choice, Load));
    /// The channel that a device shares.
    fn group(&self, device: usize) -> usize;
    /// Most bandwidth of use to a device, in Hz; infinite for no cap.
    fn cap(&self, device: usize) -> f64;
}

/// Computed afresh on every visit: no memory, for fleets of any size.
impl Loads for Scenario {
    fn devices(&self) -> usize {
        self.devices.len()
    }

    #[inline]
    fn visit(&self, device: usize, visit: impl FnMut(Choice, Load)) {
        self.for_each_load(device, visit);
    }

    #[inline]
    fn group(&self, device: usize) -> usize {
        self.devices[device].group()
    }

    #[inline]
    fn cap(&self, device: usize) -> f64 {
        let device = &self.devices[device];
        if device.rate_cap.0.is_finite() { device.bandwidth_cap().0 } else { f64::INFINITY }
    }
}

/// Computed once and kept: for small scenarios and samples that are visited many times.
#[derive(Debug, Clone)]
pub struct LoadTable {
    /// Where each device's choices start in `entries`; one more at the end.
    starts: Vec<u32>,
    entries: Vec<(Choice, Load)>,
    places: Vec<(u32, f64)>,
}

impl LoadTable {
    /// The loads of every device.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self::of(scenario, 0..scenario.devices.len())
    }

    /// The loads of some devices.
    pub(crate) fn of(scenario: &Scenario, devices: impl ExactSizeIterator<Item = usize>) -> Self {
        let mut table = Self {
            starts: Vec::with_capacity(devices.len() + 1),
            entries: Vec::with_capacity(devices.len() * 2 * scenario.models.len()),
            places: Vec::with_capacity(devices.len()),
        };
        table.starts.push(0);
        for device in devices {
            scenario.for_each_load(device, |choice, load| table.entries.push((choice, load)));
            table.starts.push(u32::try_from(table.entries.len()).expect("tables are kept for thousands of devices"));
            table.places.push((u32::from(scenario.devices[device].group), scenario.cap(device)));
        }
        table
    }

    /// A device's permitted choices and their loads.
    #[inline]
    #[must_use]
    pub fn of_device(&self, device: usize) -> &[(Choice, Load)] {
        &self.entries[self.starts[device] as usize..self.starts[device + 1] as usize]
    }
}

impl Loads for LoadTable {
    fn devices(&self) -> usize {
        self.places.len()
    }

    #[inline]
    fn visit(&self, device: usize, mut visit: impl FnMut(Choice, Load)) {
        for &(choice, load) in self.of_device(device) {
            visit(choice, load);
        }
    }

    #[inline]
    fn group(&self, device: usize) -> usize {
        self.places[device].0 as usize
    }

    #[inline]
    fn cap(&self, device: usize) -> f64 {
        self.places[device].1
    }
}
