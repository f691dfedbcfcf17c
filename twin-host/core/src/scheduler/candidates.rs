//! Which choices can still be part of a better decision: with reduced costs ρ at the dual prices, any decision costs
//! at least the bound plus the sum of its ρ, so a choice whose ρ alone exceeds the gap is out.

use super::cost::{Choice, Load};
use super::loads::Loads;
use super::objective::SharedCost;
use super::prices::{Prices, price_of};

/// A choice that is still open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) choice: Choice,
    pub(crate) load: Load,
    /// What it costs at the dual prices above the device's cheapest.
    pub(crate) reduced: f64,
}

/// The open choices of a device with more than one.
#[derive(Debug, Clone)]
pub(crate) struct OpenDevice {
    pub(crate) device: usize,
    pub(crate) group: usize,
    /// By rising reduced cost.
    pub(crate) candidates: Vec<Candidate>,
}

/// Devices with more than one choice whose reduced cost is at most `gap`. At most `limit` choices are listed in all,
/// the first found; the flag says whether that was everything.
pub(crate) fn open_devices(
    loads: &impl Loads,
    costs: &SharedCost,
    prices: &Prices,
    gap: f64,
    limit: usize,
) -> (Vec<OpenDevice>, bool) {
    let mut open = Vec::new();
    let mut listed = 0;
    let mut scratch: Vec<Candidate> = Vec::new();
    for device in 0..loads.devices() {
        let (group, cap) = (loads.group(device), loads.cap(device));
        scratch.clear();
        let mut least = f64::INFINITY;
        loads.visit(device, |choice, load| {
            let reduced = price_of(load, prices.compute, prices.channels[group], cap, costs.delay_weight);
            least = least.min(reduced);
            scratch.push(Candidate { choice, load, reduced });
        });
        scratch.retain_mut(|candidate| {
            candidate.reduced -= least;
            candidate.reduced <= gap
        });
        if scratch.len() < 2 {
            continue;
        }
        if listed + scratch.len() > limit {
            return (open, false);
        }
        listed += scratch.len();
        scratch.sort_by(|a, b| a.reduced.total_cmp(&b.reduced));
        open.push(OpenDevice { device, group, candidates: scratch.clone() });
    }
    (open, true)
}
