//! What Q-learning reaches on draws it was not trained on.

use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::learning::{QConfig, best_constant_of, train};
use twin_core::scheduler::policy::{BestConstant, Exact, Policy};
use twin_core::scheduler::{Decision, Scenario};

fn draws(family: &Family, seed: u64, count: u64) -> Vec<Scenario> {
    (0..count).map(|draw| family.draw(&mut generator(seed, draw)).expect("the family is sound")).collect()
}

fn mean(scenarios: &[Scenario], decide: impl Fn(&Scenario) -> Decision) -> f64 {
    scenarios.iter().map(|scenario| decide(scenario).objective).sum::<f64>() / scenarios.len() as f64
}

#[test]
fn on_the_fleet_most_of_the_best_constants_regret_is_closed() {
    let family = Family::fleet(4).expect("four is a number of devices");
    let trained = train(&family, Ok, &QConfig::sequential(), &mut generator(1, 0), &mut |_| {}).expect("it trains");
    let constant = best_constant_of(&draws(&family, 1, 1_000));
    let held_out = draws(&family, 2, 1_000);
    let exact = mean(&held_out, |s| Exact::default().decide(s, &mut generator(0, 0)).expect("exact answers"));
    let fixed = mean(&held_out, |s| BestConstant::with(s, constant));
    let own = mean(&held_out, |s| BestConstant.decide(s, &mut generator(0, 0)).expect("it answers"));
    let learned = mean(&held_out, |s| trained.table.decide(s, "q-learning").expect("the same students"));
    let closed = (fixed - learned) / (fixed - exact);
    println!(
        "exact {exact} fixed {fixed} own {own} q {learned}: {closed} of fixed, {} of own; {} states",
        (own - learned) / (own - exact),
        trained.table.states()
    );
    assert!(closed >= 0.75, "{closed}: exact {exact}, constant {fixed}, learned {learned}");
}
