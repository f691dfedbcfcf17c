//! The closed form of Problem 3.

use crate::conic;
use proptest::prelude::*;
use twin_core::scheduler::allocate::{WaterFilling, share_bandwidth, share_compute};

/// Σ w² / s + price Σ s.
fn cost(price: f64, weights: &[f64], shares: &[f64]) -> f64 {
    weights.iter().zip(shares).map(|(w, s)| w * w / s + price * s).sum()
}

fn capped(total: f64, alpha: f64, price: f64, roots: &[f64], caps: &[f64]) -> Vec<f64> {
    let mut shares = roots.to_vec();
    WaterFilling::default().share(total, alpha, price, &mut shares, caps);
    shares
}

/// How far shares are from satisfying the conditions of optimality, relative to the price of what they serve:
/// α v² / b² = δ + π + κ with π ≥ 0 only if the budget is used up and κ ≥ 0 only at the cap.
fn residual(total: f64, alpha: f64, price: f64, roots: &[f64], caps: &[f64], shares: &[f64]) -> f64 {
    let marginal = |i: usize| alpha * (roots[i] / shares[i]).powi(2);
    let free: Vec<usize> = (0..roots.len()).filter(|&i| shares[i] < caps[i] * (1.0 - 1e-12)).collect();
    let used: f64 = shares.iter().sum();
    let feasible = (used / total - 1.0).max(0.0);
    let level = free.iter().map(|&i| marginal(i)).fold(price, f64::max);
    let free_spread = free.iter().map(|&i| (level - marginal(i)) / level).fold(0.0, f64::max);
    let at_cap = (0..roots.len()).filter(|i| !free.contains(i));
    let capped_below = at_cap.map(|i| ((level - marginal(i)) / level).max(0.0)).fold(0.0, f64::max);
    let slack_priced = if level > price * (1.0 + 1e-9) && !free.is_empty() { (1.0 - used / total).abs() } else { 0.0 };
    feasible.max(free_spread).max(capped_below).max(slack_priced)
}

/// Whether the conic solver can be trusted: at a price so high that less than a thousandth of the budget is bought it
/// works on numbers too far apart, and has answered with costs below the optimum. The conditions of optimality, which
/// are checked in any case, then have to do alone.
fn within_the_oracles_reach(total: f64, shares: &[f64]) -> bool {
    shares.iter().sum::<f64>() >= 1e-3 * total
}

fn roots(decades: f64) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((-decades..decades).prop_map(|e| 10f64.powf(e)), 1..12)
}

fn price() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), (-6.0..4.0f64).prop_map(|e| 10f64.powf(e))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn compute_agrees_with_the_conic_solver(roots in roots(1.5), total in 0.1..100.0f64) {
        let mut shares = roots.clone();
        share_compute(total, &mut shares);
        let uncapped = vec![f64::INFINITY; roots.len()];
        let oracle = conic::shares(total, 0.0, &roots, &uncapped).expect("a program of this size is solved");
        let (ours, theirs) = (cost(0.0, &roots, &shares), cost(0.0, &roots, &oracle));
        prop_assert!((ours - theirs).abs() <= 1e-6 * theirs, "{ours} {theirs}");
        for (a, b) in shares.iter().zip(&oracle) {
            prop_assert!((a - b).abs() <= 1e-4 * a.max(1e-3 * total), "{shares:?} {oracle:?}");
        }
    }

    #[test]
    fn bandwidth_agrees_with_the_conic_solver(
        roots in roots(1.5), total in 0.1..100.0f64, alpha in 0.01..10.0f64, price in price(),
    ) {
        let mut shares = roots.clone();
        share_bandwidth(total, alpha, price, &mut shares);
        let uncapped = vec![f64::INFINITY; roots.len()];
        prop_assert!(residual(total, alpha, price, &roots, &uncapped, &shares) < 1e-9);
        if within_the_oracles_reach(total, &shares) {
            let weights: Vec<f64> = roots.iter().map(|v| alpha.sqrt() * v).collect();
            let oracle = conic::shares(total, price, &weights, &uncapped).expect("a program of this size is solved");
            let (ours, theirs) = (cost(price, &weights, &shares), cost(price, &weights, &oracle));
            prop_assert!((ours - theirs).abs() <= 1e-6 * theirs, "{ours} {theirs}");
        }
    }

    #[test]
    fn water_filling_agrees_with_the_conic_solver(
        capped_roots in prop::collection::vec(
            ((-1.5..1.5f64).prop_map(|e| 10f64.powf(e)), prop::option::of((-1.5..0.5f64).prop_map(|e| 10f64.powf(e)))),
            1..12,
        ),
        total in 0.1..100.0f64, alpha in 0.01..10.0f64, price in price(),
    ) {
        let roots: Vec<f64> = capped_roots.iter().map(|(v, _)| *v).collect();
        let caps: Vec<f64> = capped_roots.iter().map(|(_, cap)| cap.map_or(f64::INFINITY, |part| part * total)).collect();
        let shares = capped(total, alpha, price, &roots, &caps);
        prop_assert!(residual(total, alpha, price, &roots, &caps, &shares) < 1e-9);
        if within_the_oracles_reach(total, &shares) {
            let weights: Vec<f64> = roots.iter().map(|v| alpha.sqrt() * v).collect();
            let oracle = conic::shares(total, price, &weights, &caps).expect("a program of this size is solved");
            let (ours, theirs) = (cost(price, &weights, &shares), cost(price, &weights, &oracle));
            prop_assert!((ours - theirs).abs() <= 1e-6 * theirs, "{ours} {theirs}");
        }
    }

    #[test]
    fn extreme_ratios_keep_the_conditions_of_optimality(
        roots in roots(30.0), caps in prop::collection::vec((-30.0..30.0f64).prop_map(|e| 10f64.powf(e)), 12),
        total in (-20.0..20.0f64).prop_map(|e| 10f64.powf(e)), price in price(),
    ) {
        let caps = &caps[..roots.len()];
        for caps in [caps, &vec![f64::INFINITY; roots.len()]] {
            let shares = capped(total, 0.01, price, &roots, caps);
            prop_assert!(shares.iter().all(|s| s.is_finite() && *s > 0.0), "{shares:?}");
            prop_assert!(residual(total, 0.01, price, &roots, caps, &shares) < 1e-9, "{shares:?}");
        }
        let mut compute = roots.clone();
        share_compute(total, &mut compute);
        prop_assert!(compute.iter().all(|s| s.is_finite() && *s > 0.0));
        prop_assert!((compute.iter().sum::<f64>() / total - 1.0).abs() < 1e-12);
    }

    #[test]
    fn without_caps_water_filling_is_the_closed_form(roots in roots(3.0), total in 0.1..100.0f64, price in price()) {
        let mut closed = roots.clone();
        share_bandwidth(total, 1.0, price, &mut closed);
        let filled = capped(total, 1.0, price, &roots, &vec![f64::INFINITY; roots.len()]);
        for (a, b) in closed.iter().zip(&filled) {
            prop_assert!((a - b).abs() <= 1e-12 * a);
        }
    }
}

#[test]
fn a_free_budget_is_given_out_whole_and_a_dear_one_is_not() {
    let mut free = [1.0, 3.0];
    share_bandwidth(8.0, 1.0, 0.0, &mut free);
    assert_eq!(free, [2.0, 6.0]);
    let mut slack = [1.0, 3.0];
    share_bandwidth(8.0, 1.0, 1.0, &mut slack);
    assert_eq!(slack, [1.0, 3.0]);
    let mut one = [5.0];
    share_compute(10.0, &mut one);
    assert_eq!(one, [10.0]);
}

#[test]
fn what_a_capped_link_cannot_use_goes_to_the_others() {
    assert_eq!(capped(9.0, 1.0, 0.0, &[1.0, 1.0, 1.0], &[1.0, f64::INFINITY, f64::INFINITY]), [1.0, 4.0, 4.0]);
    assert_eq!(capped(9.0, 1.0, 0.0, &[1.0, 2.0], &[1.0, 2.0]), [1.0, 2.0]);
}
