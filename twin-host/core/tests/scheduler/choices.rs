//! Searches over students and sites against plain enumeration.

use proptest::prelude::*;
use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::loads::LoadTable;
use twin_core::scheduler::policy::{Dual, Exact, Policy};
use twin_core::scheduler::{Choice, Decision, Device, DeviceDecision, Link, Scenario};

/// The best decision by trying every one.
pub(crate) fn enumerate(scenario: &Scenario) -> Decision {
    let table = LoadTable::new(scenario);
    let count = scenario.devices().len();
    let mut at = vec![0; count];
    let mut best: Option<Decision> = None;
    loop {
        let choices: Vec<Choice> = (0..count).map(|device| table.of_device(device)[at[device]].0).collect();
        let decision = Decision::of_choices(scenario, "enumeration", &choices);
        if best.as_ref().is_none_or(|best| decision.objective < best.objective) {
            best = Some(decision);
        }
        let Some(next) = (0..count).find(|&device| at[device] + 1 < table.of_device(device).len()) else {
            return best.expect("there is at least one decision");
        };
        at[next] += 1;
        at[..next].fill(0);
    }
}

pub(crate) fn fleet(devices: usize, seed: u64) -> Scenario {
    Family::fleet(devices).and_then(|family| family.draw(&mut generator(seed, 0))).expect("the family is sound")
}

pub(crate) fn paper(devices: usize, seed: u64) -> Scenario {
    Family::paper(devices).and_then(|family| family.draw(&mut generator(seed, 0))).expect("the family is sound")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn exact_is_the_best_of_all_and_dual_bounds_it(seed: u64, devices in 1usize..4) {
        for scenario in [fleet(devices, seed), paper(devices, seed)] {
            let best = enumerate(&scenario);
            let rng = &mut generator(0, 0);
            let exact = Exact::default().decide(&scenario, rng).expect("exact answers everything");
            let dual = Dual.decide(&scenario, rng).expect("dual answers everything");
            let tolerance = 1e-9 * best.objective.abs().max(1.0);
            prop_assert!((exact.objective - best.objective).abs() <= tolerance);
            let bound = dual.certificate.expect("dual always has one").lower_bound;
            prop_assert!(bound <= best.objective + tolerance && dual.objective >= best.objective - tolerance);
            prop_assert!(exact.certificate.expect("exact always has one").gap <= 1e-9);
        }
    }
}

#[test]
fn gaps_close_as_fleets_grow() {
    for (devices, seeds, most) in [(20, 0..40, 1e-3), (100, 0..10, 1e-4), (10_000, 0..1, 1e-6)] {
        for seed in seeds {
            for scenario in [fleet(devices, seed), paper(devices, seed)] {
                let decision = Dual.decide(&scenario, &mut generator(0, 0)).expect("dual answers everything");
                let gap = decision.certificate.expect("dual always has one").gap;
                assert!(gap <= most, "{devices} devices, seed {seed}: gap {gap}");
            }
        }
    }
}

#[test]
fn exact_proves_twelve_devices_and_devices_all_alike() {
    for seed in 0..20 {
        let decision = Exact::default().decide(&fleet(12, seed), &mut generator(0, 0)).expect("exact answers");
        assert!(decision.certificate.expect("exact always has one").gap <= 1e-9, "seed {seed}");
    }
    let one = fleet(1, 3);
    let alike: Vec<_> = vec![(one.devices()[0].frequency(), Link::Efficiency(one.devices()[0].efficiency())); 24];
    let alike = paper(24, 0).with_boards(&alike).expect("the values come from a checked scenario");
    let decision = Exact::default().decide(&alike, &mut generator(0, 0)).expect("exact answers");
    assert!(decision.certificate.expect("exact always has one").gap <= 1e-9);
}

#[test]
fn a_device_of_a_million_takes_less_than_two_hundred_bytes() {
    // The scenario's entry, the decision's, its two shares on the way there, and the choice in the search.
    let shares = 2 * size_of::<f64>();
    let bytes = size_of::<Device>() + size_of::<DeviceDecision>() + shares + 2 * size_of::<Choice>();
    assert!(bytes <= 200, "{bytes}");
}
