//! `dual`: Lagrangian relaxation of the two shared budgets, from four devices to millions.
//!
//! Two prices decouple the devices; each answers with its cheapest choice. The best pair of prices gives a lower bound
//! on Eq. (6), and because two shared sums can leave at most two devices undecided between choices (Shapley-Folkman),
//! the answers are within a few devices' worth of it: the gap falls as 1/N² relative to the whole. Changes of one or
//! two devices then close most of it.

use super::{Policy, PolicyError};
use crate::scheduler::cost::Choice;
use crate::scheduler::decision::Decision;
use crate::scheduler::loads::{FleetLoads, LoadTable, Loads};
use crate::scheduler::objective::SharedCost;
use crate::scheduler::prices::{Prices, Response, best_prices};
use crate::scheduler::problem::Scenario;
use crate::scheduler::rounding::improve;
use rand_chacha::ChaCha8Rng;

/// The policy `dual`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dual;

/// The relaxation's answer.
pub(crate) struct Relaxed {
    pub(crate) prices: Prices,
    /// No decision is better than this.
    pub(crate) bound: f64,
    /// A good decision, by single and paired changes from the answers at `prices`.
    pub(crate) choices: Vec<Choice>,
}

/// Devices up to which the loads are worth keeping: beyond, computing them afresh is as fast and costs no memory.
const TABLE: usize = 16_384;

/// Solves the relaxation over these loads, which must be the scenario's own.
pub(crate) fn relax(scenario: &Scenario, loads: &impl Loads, costs: &SharedCost) -> Relaxed {
    let prices = best_prices(loads, costs);
    let mut response = Response::default();
    let mut choices = Vec::with_capacity(loads.devices());
    prices.respond(loads, costs, &mut response, Some(&mut choices));
    improve(scenario, loads, costs, &prices, &response, &mut choices);
    Relaxed { prices, bound: response.bound, choices }
}

impl Policy for Dual {
    fn name(&self) -> &'static str {
        "dual"
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        let costs = SharedCost::new(scenario);
        let relaxed = if scenario.devices().len() <= TABLE {
            relax(scenario, &LoadTable::new(scenario), &costs)
        } else {
            relax(scenario, &FleetLoads::new(scenario), &costs)
        };
        Ok(Decision::of_choices(scenario, self.name(), &relaxed.choices).certified(relaxed.bound))
    }
}
