//! `exact`: branch and bound over students and sites, with proof.
//!
//! It starts from `dual`. With D the dual bound, ρ the reduced costs at its prices, and U*, V* the sums that those
//! prices clear, every decision costs
//! `D + Σρ + [Φ(U) - Φ(U*) - λ (U - U*)] + [Ψ(V) - Ψ(V*) - ν (V - V*)]`; the brackets are never negative and grow
//! with the square of the distance. So a partial decision is bounded by its Σρ so far and by how near the rest can
//! still bring U and V, in constant time a node. Devices alike in everything are taken in one order only.

use super::dual::relax;
use super::{Policy, PolicyError};
use crate::scheduler::candidates::{OpenDevice, open_devices};
use crate::scheduler::cost::Choice;
use crate::scheduler::decision::Decision;
use crate::scheduler::loads::LoadTable;
use crate::scheduler::objective::{ChannelCost, SharedCost};
use crate::scheduler::prices::Prices;
use crate::scheduler::problem::Scenario;
use crate::scheduler::rounding::Tally;
use rand_chacha::ChaCha8Rng;

/// The policy `exact`.
#[derive(Debug, Clone, Copy)]
pub struct Exact {
    /// Nodes after which it gives the best it has, with the dual's bound in place of a proof.
    pub node_limit: u64,
}

impl Default for Exact {
    fn default() -> Self {
        Self { node_limit: 50_000_000 }
    }
}

impl Policy for Exact {
    fn name(&self) -> &'static str {
        "exact"
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        let table = LoadTable::new(scenario);
        let costs = SharedCost::new(scenario);
        let relaxed = relax(scenario, &table, &costs);
        let incumbent = Decision::of_choices(scenario, self.name(), &relaxed.choices);
        let resolution = RESOLUTION * incumbent.objective.abs().max(incumbent.terms.cost());
        let gap = incumbent.objective - relaxed.bound;
        if gap <= resolution {
            return Ok(incumbent.certified(relaxed.bound));
        }
        let (open, _) = open_devices(&table, &costs, &relaxed.prices, gap, usize::MAX);
        let mut search = Search::new(scenario, &costs, &relaxed.prices, open, relaxed.choices);
        search.best = incumbent.objective;
        search.resolution = resolution;
        let finished = search.run(relaxed.bound, self.node_limit);
        let best = Decision::of_choices(scenario, self.name(), &search.best_choices);
        let proven = if finished { best.objective - resolution } else { relaxed.bound };
        Ok(best.certified(proven.max(relaxed.bound)))
    }
}

/// Relative difference of objectives that counts as none.
const RESOLUTION: f64 = 1e-11;

/// What the devices from some depth on can still add.
#[derive(Debug, Clone)]
struct Reach {
    compute: [f64; 2],
    /// Of one channel each.
    channels: Vec<[f64; 2]>,
}

/// One level of the search: a device and how far its candidates have been tried.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    next: usize,
    taken: usize,
}

struct Search<'a> {
    scenario: &'a Scenario,
    costs: &'a SharedCost,
    /// U* and V*: what the dual prices clear.
    cleared: (f64, Vec<f64>),
    prices: &'a Prices,
    open: Vec<OpenDevice>,
    /// Whether a device is the same as the one before it.
    twin_of_previous: Vec<bool>,
    reach: Vec<Reach>,
    /// With caps the sums have no closed form: leaves are evaluated whole, channels do not bound.
    capped: bool,
    choices: Vec<Choice>,
    best_choices: Vec<Choice>,
    best: f64,
    resolution: f64,
}

impl<'a> Search<'a> {
    fn new(
        scenario: &'a Scenario,
        costs: &'a SharedCost,
        prices: &'a Prices,
        mut open: Vec<OpenDevice>,
        choices: Vec<Choice>,
    ) -> Self {
        // Where the candidates differ most is decided first; equal devices come to lie side by side.
        let spread = |device: &OpenDevice| device.candidates.iter().map(|c| c.reduced).sum::<f64>();
        let signature = |device: &OpenDevice| -> Vec<u64> {
            let loads = device.candidates.iter().map(|c| c.load);
            loads.flat_map(|l| [l.compute_root.to_bits(), l.channel_root.to_bits(), l.fixed.to_bits()]).collect()
        };
        open.sort_by(|a, b| {
            let by_spread = spread(b).total_cmp(&spread(a)).then(a.candidates.len().cmp(&b.candidates.len()));
            by_spread.then_with(|| signature(a).cmp(&signature(b))).then(a.group.cmp(&b.group))
        });
        let alike = |a: &OpenDevice, b: &OpenDevice| {
            let cap = |device: &OpenDevice| scenario.devices()[device.device].bandwidth_cap().0.to_bits();
            a.group == b.group && a.candidates == b.candidates && (!scenario.is_capped() || cap(a) == cap(b))
        };
        let twin_of_previous =
            (0..open.len()).map(|depth| depth > 0 && alike(&open[depth - 1], &open[depth])).collect();
        let mut reach = vec![Reach { compute: [0.0; 2], channels: vec![[0.0; 2]; costs.channels.len()] }];
        for device in open.iter().rev() {
            let mut next = reach[reach.len() - 1].clone();
            let span = |root: fn(&crate::scheduler::cost::Load) -> f64| {
                let roots = device.candidates.iter().map(|c| root(&c.load));
                roots.fold([f64::INFINITY, 0.0f64], |[low, high], root| [low.min(root), high.max(root)])
            };
            let (compute, channel) = (span(|l| l.compute_root), span(|l| l.channel_root));
            for end in 0..2 {
                next.compute[end] += compute[end];
                next.channels[device.group][end] += channel[end];
            }
            reach.push(next);
        }
        reach.reverse();
        let channels = costs.channels.iter().zip(&prices.channels).map(|(c, &price)| c.cleared(price)).collect();
        Self {
            scenario,
            costs,
            cleared: (prices.compute / (2.0 * costs.compute), channels),
            prices,
            open,
            twin_of_previous,
            reach,
            capped: scenario.is_capped(),
            best_choices: choices.clone(),
            choices,
            best: f64::INFINITY,
            resolution: 0.0,
        }
    }

    /// Runs to the end, or until `nodes` are used up (then false).
    fn run(&mut self, bound: f64, mut nodes: u64) -> bool {
        if self.open.is_empty() {
            return true;
        }
        // The devices that are no longer open keep their choice and their part of the sums.
        let mut tally = Tally::new(self.scenario, &self.choices);
        for open in &self.open {
            let load = self.scenario.load(open.device, self.choices[open.device]);
            tally.compute -= load.compute_root;
            tally.channels[open.group] -= load.channel_root;
            tally.fixed -= load.fixed;
        }
        let mut tallies = vec![tally; self.open.len() + 1];
        let mut bounds = vec![bound; self.open.len() + 1];
        let mut levels = vec![Level::default(); self.open.len() + 1];
        let mut depth = 0;
        loop {
            if depth == self.open.len() {
                self.finish(&tallies[depth]);
                depth -= 1;
                continue;
            }
            let level = levels[depth];
            let (open, from_twin) = (&self.open[depth], self.twin_of_previous[depth]);
            let first = if from_twin { levels[depth - 1].taken } else { 0 };
            let index = level.next.max(first);
            let limit = self.best - self.resolution;
            // By rising reduced cost: once one is too dear, so are all after it.
            let candidate = open.candidates.get(index).filter(|c| bounds[depth] + c.reduced < limit);
            let Some(candidate) = candidate else {
                levels[depth].next = 0;
                if depth == 0 {
                    return true;
                }
                depth -= 1;
                continue;
            };
            levels[depth] = Level { next: index + 1, taken: index };
            nodes = match nodes.checked_sub(1) {
                Some(left) => left,
                None => return false,
            };
            let (done, rest) = tallies.split_at_mut(depth + 1);
            let (from, to) = (&done[depth], &mut rest[0]);
            to.compute = from.compute + candidate.load.compute_root;
            to.channels.copy_from_slice(&from.channels);
            to.channels[open.group] += candidate.load.channel_root;
            to.fixed = from.fixed + candidate.load.fixed;
            bounds[depth + 1] = bounds[depth] + candidate.reduced;
            self.choices[open.device] = candidate.choice;
            let away = distance_cost(self, &tallies[depth + 1], &self.reach[depth + 1]);
            if bounds[depth + 1] + away < limit {
                depth += 1;
            }
        }
    }

    /// A complete decision: keeps it if it is better.
    fn finish(&mut self, tally: &Tally) {
        let objective = if self.capped {
            Decision::of_choices(self.scenario, "exact", &self.choices).objective
        } else {
            tally.objective(self.costs)
        };
        if objective < self.best {
            self.best = objective;
            self.best_choices.clone_from(&self.choices);
        }
    }
}

/// The brackets of the module's formula at the nearest point that the rest can reach.
fn distance_cost(search: &Search<'_>, tally: &Tally, reach: &Reach) -> f64 {
    let nearest = |sum: f64, [low, high]: [f64; 2], target: f64| target.clamp(sum + low, sum + high);
    let at = nearest(tally.compute, reach.compute, search.cleared.0);
    let off = at - search.cleared.0;
    let mut cost = search.costs.of_compute(off);
    if !search.capped {
        for (group, channel) in search.costs.channels.iter().enumerate() {
            let at = nearest(tally.channels[group], reach.channels[group], search.cleared.1[group]);
            cost += bracket(channel, at, search.cleared.1[group], search.prices.channels[group]);
        }
    }
    cost
}

/// Ψ(V) - Ψ(V*) - ν (V - V*).
fn bracket(channel: &ChannelCost, at: f64, cleared: f64, price: f64) -> f64 {
    (channel.of(at) - channel.of(cleared) - price * (at - cleared)).max(0.0)
}
