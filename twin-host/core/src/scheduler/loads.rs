//! The loads of all choices, computed as they are asked for or kept in a table.

use super::cost::{Choice, Load};
use super::problem::Scenario;
use twin_shared::model::Site;

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

/// As [`Scenario`], for passes over very many devices: the roots that all devices share are taken once, which leaves
/// one root a student and two a device. A load differs from the scenario's own by rounding only.
#[derive(Debug)]
pub(crate) struct FleetLoads<'a> {
    scenario: &'a Scenario,
    teacher_root: f64,
    /// By student.
    students: Vec<StudentRoots>,
}

#[derive(Debug, Clone, Copy)]
struct StudentRoots {
    /// √(μ_t + μ_m).
    both: f64,
    /// √θ_m.
    state: f64,
    /// η_o Acc_own + η_a Acc_avg.
    credit: f64,
}

impl<'a> FleetLoads<'a> {
    pub(crate) fn new(scenario: &'a Scenario) -> Self {
        let (w, teacher) = (&scenario.weights, scenario.teacher.work.0);
        let students = scenario.models.iter().map(|model| StudentRoots {
            both: (teacher + model.work.0).sqrt(),
            state: model.state.0.sqrt(),
            credit: w.accuracy_own * model.accuracy.own + w.accuracy_avg * model.accuracy.avg,
        });
        Self { scenario, teacher_root: teacher.sqrt(), students: students.collect() }
    }
}

impl Loads for FleetLoads<'_> {
    fn devices(&self) -> usize {
        self.scenario.devices.len()
    }

    #[inline]
    fn visit(&self, device: usize, mut visit: impl FnMut(Choice, Load)) {
        let board = &self.scenario.devices[device];
        if !board.measured.is_empty() {
            return self.scenario.for_each_load(device, visit);
        }
        let (w, scale) = (&self.scenario.weights, board.data_scale);
        let (root_scale, over_efficiency) = (scale.sqrt(), board.efficiency.0.recip());
        let root_over_efficiency = over_efficiency.sqrt();
        let teacher = self.scenario.teacher.work.0 * scale;
        let labels = self.scenario.teacher.label_bits.0 * scale;
        let local_weight = w.delay * scale / board.frequency.0;
        let mut left = board.allowed;
        while left != 0 {
            let index = left.trailing_zeros() as u8;
            left &= left - 1;
            let (model, roots) = (&self.scenario.models[usize::from(index)], self.students[usize::from(index)]);
            if board.can_train {
                let load = Load {
                    compute_root: self.teacher_root * root_scale,
                    channel_root: ((model.state.0 + labels) * over_efficiency).sqrt(),
                    fixed: local_weight * model.work.0 + w.compute * teacher - roots.credit,
                };
                visit(Choice { model: index, site: Site::Local }, load);
            }
            let load = Load {
                compute_root: roots.both * root_scale,
                channel_root: roots.state * root_over_efficiency,
                fixed: w.compute * (teacher + model.work.0 * scale) - roots.credit,
            };
            visit(Choice { model: index, site: Site::Host }, load);
        }
    }

    #[inline]
    fn group(&self, device: usize) -> usize {
        Loads::group(self.scenario, device)
    }

    #[inline]
    fn cap(&self, device: usize) -> f64 {
        self.scenario.cap(device)
    }
}

/// Computed once and kept: for small scenarios and samples that are visited many times.
#[derive(Debug, Clone)]
pub struct LoadTable {
    /// Where each device's choices start in `entries`; one more at the end.
    starts: Vec<u32>,
    entries: Vec<(Choice, Load)>,
    places: Vec<(usize, f64)>,
}

impl LoadTable {
    /// The loads of every device.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        Self::of(scenario, 0..scenario.devices.len())
    }

    /// The loads of some devices, in this order.
    pub(crate) fn of(loads: &impl Loads, devices: impl ExactSizeIterator<Item = usize>) -> Self {
        let mut table = Self {
            starts: Vec::with_capacity(devices.len() + 1),
            entries: Vec::new(),
            places: Vec::with_capacity(devices.len()),
        };
        table.starts.push(0);
        for device in devices {
            loads.visit(device, |choice, load| table.entries.push((choice, load)));
            table.starts.push(u32::try_from(table.entries.len()).expect("tables are kept for thousands of devices"));
            table.places.push((loads.group(device), loads.cap(device)));
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
        self.places[device].0
    }

    #[inline]
    fn cap(&self, device: usize) -> f64 {
        self.places[device].1
    }
}

/// Some of the devices of other loads, computed afresh on every visit.
#[derive(Debug)]
pub(crate) struct Picked<'a, L> {
    pub(crate) loads: &'a L,
    pub(crate) devices: &'a [u32],
}

impl<L: Loads> Loads for Picked<'_, L> {
    fn devices(&self) -> usize {
        self.devices.len()
    }

    #[inline]
    fn visit(&self, device: usize, visit: impl FnMut(Choice, Load)) {
        self.loads.visit(self.devices[device] as usize, visit);
    }

    #[inline]
    fn group(&self, device: usize) -> usize {
        self.loads.group(self.devices[device] as usize)
    }

    #[inline]
    fn cap(&self, device: usize) -> f64 {
        self.loads.cap(self.devices[device] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::family::{Family, generator};

    #[test]
    fn fleet_loads_are_the_scenarios_own_up_to_rounding() {
        let scenario = Family::fleet(300).and_then(|family| family.draw(&mut generator(3, 0))).expect("sound");
        let fleet = FleetLoads::new(&scenario);
        for device in 0..scenario.devices.len() {
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            scenario.visit(device, |choice, load| expected.push((choice, load)));
            fleet.visit(device, |choice, load| found.push((choice, load)));
            assert_eq!(expected.len(), found.len());
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-14 * (1.0 + a.abs().max(b.abs()));
            for ((choice, a), (same, b)) in expected.into_iter().zip(found) {
                assert_eq!(choice, same);
                let alike = near(a.compute_root, b.compute_root) && near(a.fixed, b.fixed);
                assert!(alike && (a.channel_root / b.channel_root - 1.0).abs() < 1e-14, "{a:?} {b:?}");
            }
        }
    }
}
