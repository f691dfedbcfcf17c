//! What Q-learning reaches on draws it was not trained on, and that tables keep.

use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::learning::{QConfig, best_constant_of, train};
use twin_core::scheduler::mdp::Bins;
use twin_core::scheduler::policy::{BestConstant, Exact, Policy, PolicyError, QLearning};
use twin_core::scheduler::q_table::QTable;
use twin_core::scheduler::{Decision, Scenario};

fn draws(family: &Family, seed: u64, count: u64) -> Vec<Scenario> {
    (0..count).map(|draw| family.draw(&mut generator(seed, draw)).expect("the family is sound")).collect()
}

fn mean(scenarios: &[Scenario], decide: impl Fn(&Scenario) -> Decision) -> f64 {
    scenarios.iter().map(|scenario| decide(scenario).objective).sum::<f64>() / scenarios.len() as f64
}

/// A grid and a number of episodes that do for a test.
fn quick() -> QConfig {
    let bins = Bins { frequency: 5, efficiency: 3, data_scale: 3, compute_sum: 3, channel_sum: 2, positions: 1 };
    QConfig { bins, episodes: 200_000, draws: 10_000, ..QConfig::sequential() }
}

#[test]
fn on_the_fleet_most_of_the_best_constants_regret_is_closed() {
    let family = Family::fleet(4).expect("four is a number of devices");
    let table = train(&family, Ok, &quick(), &mut generator(1, 0), &mut |_| {}).expect("it trains").table;
    let constant = best_constant_of(&draws(&family, 1, 500));
    let held_out = draws(&family, 2, 500);
    let exact = mean(&held_out, |s| Exact::default().decide(s, &mut generator(0, 0)).expect("exact answers"));
    let fixed = mean(&held_out, |s| BestConstant::with(s, constant));
    let learned = mean(&held_out, |s| table.decide(s, "q-learning").expect("the same students"));
    let closed = (fixed - learned) / (fixed - exact);
    assert!(closed >= 0.75, "{closed}: exact {exact}, constant {fixed}, learned {learned}");
}

#[test]
fn a_table_for_a_live_scenario_is_trained_for_any_number_of_devices() {
    for devices in 1..=8 {
        let family = Family::fleet(devices).expect("it has devices");
        let scenario = family.draw(&mut generator(5, 0)).expect("the family is sound");
        let around = Family::around(scenario.clone());
        let config = QConfig::sequential().suited_to(&around).within(100_000, devices);
        let mut heard = 0;
        let trained = QLearning::train(&around, &config, &mut generator(1, 0), &mut |done| heard = done);
        let trained = trained.expect("it trains");
        assert_eq!(heard, config.episodes);
        assert_eq!(trained.curve.last().map(|point| point.episodes), Some(config.episodes));
        let learned = trained.table.decide(&scenario, "q-learning").expect("the same students").objective;
        let rng = &mut generator(0, 0);
        let best = Exact::default().decide(&scenario, rng).expect("exact answers").objective;
        assert!(learned >= best - 1e-9 * best.abs(), "{devices} devices: {learned} below the optimum {best}");
    }
}

#[test]
fn the_same_seed_learns_the_same_table_and_a_stored_one_decides_alike() {
    let family = Family::paper(3).expect("three is a number of devices");
    for config in [QConfig { episodes: 5_000, ..quick() }, QConfig { episodes: 5_000, ..QConfig::joint() }] {
        let learn = || train(&family, Ok, &config, &mut generator(9, 0), &mut |_| {}).expect("it trains").table;
        let text = serde_json::to_string(&learn()).expect("a table is plain data");
        assert_eq!(text, serde_json::to_string(&learn()).expect("a table is plain data"));
        let first = learn();
        let stored: QTable = serde_json::from_str(&text).expect("it was just written");
        for scenario in draws(&family, 2, 50) {
            assert_eq!(first.decide(&scenario, "q"), stored.decide(&scenario, "q"));
        }
        let broken = text.replacen("[[", "[", 1);
        assert!(serde_json::from_str::<QTable>(&broken).is_err());
    }
}

#[test]
fn a_table_refuses_what_it_was_not_trained_for() {
    let three = Family::paper(3).expect("three is a number of devices");
    let config = QConfig { episodes: 100, draws: 10, ..QConfig::joint() };
    let table = train(&three, Ok, &config, &mut generator(9, 0), &mut |_| {}).expect("it trains").table;
    let two = Family::paper(2).and_then(|f| f.draw(&mut generator(0, 0))).expect("two is a number of devices");
    assert_eq!(table.decide(&two, "q").err(), Some(PolicyError::OtherDevices { trained: 3, given: 2 }));
    let nine = Family::paper(9).expect("nine is a number of devices");
    assert!(train(&nine, Ok, &config, &mut generator(9, 0), &mut |_| {}).is_err());
}
