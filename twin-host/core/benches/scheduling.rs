//! How fast decisions are: `cargo bench -p twin-core --bench scheduling`. The conic solver and plain enumeration run
//! on the same instances, side by side.

#[path = "../tests/oracle/conic.rs"]
mod conic;

use divan::{Bencher, black_box};
use twin_core::scheduler::allocate::{share_bandwidth, share_compute};
use twin_core::scheduler::cost::Choice;
use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::learning::{QConfig, train};
use twin_core::scheduler::loads::LoadTable;
use twin_core::scheduler::policy::{Dual, Exact, Policy};
use twin_core::scheduler::{Decision, Scenario};
use twin_shared::model::Site;

fn main() {
    divan::main();
}

fn fleet(devices: usize) -> Scenario {
    Family::fleet(devices).and_then(|family| family.draw(&mut generator(7, 0))).expect("the family is sound")
}

/// √A and √B of all devices on the host with the second student, which every device may have.
fn roots(scenario: &Scenario) -> (Vec<f64>, Vec<f64>) {
    let choice = Choice { model: 1, site: Site::Host };
    let loads = (0..scenario.devices().len()).map(|device| scenario.load(device, choice));
    loads.map(|load| (load.compute_root, load.channel_root)).unzip()
}

/// Problem 3 in closed form, both budgets.
#[divan::bench(args = [4, 100, 1_000])]
fn closed_form(bencher: Bencher<'_, '_>, devices: usize) {
    let scenario = fleet(devices);
    let (compute, channel) = roots(&scenario);
    let (mut f, mut b) = (compute.clone(), channel.clone());
    let (total, budget) = (scenario.frequency().0, scenario.bandwidths()[0].0);
    let (alpha, delta) = (scenario.weights().delay, scenario.weights().bandwidth);
    bencher.bench_local(|| {
        f.copy_from_slice(&compute);
        b.copy_from_slice(&channel);
        share_compute(total, black_box(&mut f));
        share_bandwidth(budget, alpha, delta, black_box(&mut b));
    });
}

/// Problem 3 by the conic solver, both budgets.
#[divan::bench(args = [4, 100, 1_000], sample_count = 5, sample_size = 1)]
fn conic_solver(bencher: Bencher<'_, '_>, devices: usize) {
    let scenario = fleet(devices);
    let (compute, channel) = roots(&scenario);
    let root_alpha = scenario.weights().delay.sqrt();
    let scaled = |roots: &[f64]| -> Vec<f64> { roots.iter().map(|root| root * root_alpha).collect() };
    let (compute, channel) = (scaled(&compute), scaled(&channel));
    let caps = vec![f64::INFINITY; devices];
    bencher.bench_local(|| {
        let f = conic::shares(scenario.frequency().0, 0.0, &compute, &caps);
        let b = conic::shares(scenario.bandwidths()[0].0, scenario.weights().bandwidth, &channel, &caps);
        (f, b)
    });
}

#[divan::bench(args = [4, 12, 100])]
fn exact(bencher: Bencher<'_, '_>, devices: usize) {
    let scenario = fleet(devices);
    let rng = &mut generator(0, 0);
    bencher.bench_local(|| Exact::default().decide(black_box(&scenario), rng));
}

/// All 4,096 joint choices of four unrestricted devices, with the closed form for each.
#[divan::bench]
fn enumeration_4(bencher: Bencher<'_, '_>) {
    let scenario = Family::paper(4).and_then(|f| f.draw(&mut generator(7, 0))).expect("the family is sound");
    let table = LoadTable::new(&scenario);
    bencher.bench_local(|| {
        let mut best = f64::INFINITY;
        for joint in 0..4096usize {
            let choices: [Choice; 4] =
                std::array::from_fn(|device| table.of_device(device)[joint >> (3 * device) & 7].0);
            best = best.min(Decision::of_choices(&scenario, "enumeration", &choices).objective);
        }
        best
    });
}

/// `exact` on the scenario that is enumerated.
#[divan::bench]
fn exact_4_as_enumerated(bencher: Bencher<'_, '_>) {
    let scenario = Family::paper(4).and_then(|f| f.draw(&mut generator(7, 0))).expect("the family is sound");
    let rng = &mut generator(0, 0);
    bencher.bench_local(|| Exact::default().decide(black_box(&scenario), rng));
}

/// A trained table's decision for four devices, shares and delays included.
#[divan::bench]
fn q_table_4(bencher: Bencher<'_, '_>) {
    let family = Family::fleet(4).expect("four is a number of devices");
    let config = QConfig { episodes: 200_000, ..QConfig::sequential() };
    let table = train(&family, Ok, &config, &mut generator(1, 0), &mut |_| {}).expect("it trains").table;
    let scenario = fleet(4);
    bencher.bench_local(|| table.decide(black_box(&scenario), "q-learning"));
}

#[divan::bench(args = [1_000, 10_000], sample_count = 10, sample_size = 1)]
fn dual(bencher: Bencher<'_, '_>, devices: usize) {
    let scenario = fleet(devices);
    let rng = &mut generator(0, 0);
    bencher.bench_local(|| Dual.decide(black_box(&scenario), rng));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn dual_1_000_000(bencher: Bencher<'_, '_>) {
    let scenario = fleet(1_000_000);
    let rng = &mut generator(0, 0);
    bencher.bench_local(|| Dual.decide(black_box(&scenario), rng));
}
