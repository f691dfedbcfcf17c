//! The Lagrangian dual of Eq. (6): at prices λ for √A and ν for √B every device decides alone, and what the devices
//! would pay, less the conjugates Φ*(λ) + Ψ*(ν), is a bound that no joint decision can beat.
//!
//! The bound is concave in the prices. With one channel its maximum is found in the plane: a quasi-Newton step where
//! it stays inside the region that earlier supergradients left, the region's centre of gravity otherwise, so progress
//! is quadratic where the bound is smooth (many devices) and linear at its kinks (few). With several channels the
//! bound separates over them once λ is fixed, and is maximised one price within the other.

use super::cost::{Choice, Load};
use super::loads::Loads;
use super::narrow::narrowed_prices;
use super::objective::SharedCost;
use super::polygon::Polygon;

/// Prices of the shared sums: λ and one ν a channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prices {
    pub(crate) compute: f64,
    pub(crate) channels: Vec<f64>,
}

/// What all devices together answer to prices.
#[derive(Debug, Clone, Default)]
pub(crate) struct Response {
    /// The dual bound at these prices.
    pub(crate) bound: f64,
    /// Σ √A of the answers.
    pub(crate) compute_sum: f64,
    /// Σ of the channel roots, each at most what its cap lets through at this price; per channel.
    pub(crate) channel_sums: Vec<f64>,
    /// Σ of the fixed parts.
    pub(crate) fixed: f64,
}

/// What a device pays for a load at these prices; a capped link pays for the time it is made to wait.
#[inline]
pub(crate) fn price_of(load: Load, compute: f64, channel: f64, cap: f64, delay_weight: f64) -> f64 {
    load.fixed + compute * load.compute_root + channel_term(load.channel_root, channel, cap, delay_weight)
}

/// min over b ≤ cap of α v² / b + ν² b / (4 α): the uncapped minimum is ν v.
#[inline]
fn channel_term(root: f64, price: f64, cap: f64, delay_weight: f64) -> f64 {
    if cap == f64::INFINITY || root <= cap * (price / (2.0 * delay_weight)) {
        return price * root;
    }
    delay_weight * root * (root / cap) + price * (price / (4.0 * delay_weight)) * cap
}

impl Prices {
    /// Lets every device answer with its cheapest choice; `chosen` receives them if given.
    pub(crate) fn respond(
        &self,
        loads: &impl Loads,
        costs: &SharedCost,
        into: &mut Response,
        mut chosen: Option<&mut Vec<Choice>>,
    ) {
        into.channel_sums.clear();
        into.channel_sums.resize(self.channels.len(), 0.0);
        let (mut paid, mut size, mut compute_sum, mut fixed) = (0.0, 0.0, 0.0, 0.0);
        if let Some(chosen) = &mut chosen {
            chosen.clear();
        }
        for device in 0..loads.devices() {
            let (group, cap) = (loads.group(device), loads.cap(device));
            let channel = self.channels[group];
            let mut best = f64::INFINITY;
            let mut answer = None;
            loads.visit(device, |choice, load| {
                let price = price_of(load, self.compute, channel, cap, costs.delay_weight);
                if price < best || answer.is_none() {
                    best = price;
                    answer = Some((choice, load));
                }
            });
            let (choice, load) = answer.expect("a checked scenario permits every device a choice");
            paid += best;
            size += best.abs();
            compute_sum += load.compute_root;
            let passed =
                if cap == f64::INFINITY { f64::INFINITY } else { cap * (channel / (2.0 * costs.delay_weight)) };
            into.channel_sums[group] += load.channel_root.min(passed);
            fixed += load.fixed;
            if let Some(chosen) = &mut chosen {
                chosen.push(choice);
            }
        }
        let conjugates: f64 = costs.channels.iter().zip(&self.channels).map(|(c, &price)| c.conjugate(price)).sum();
        let conjugates = conjugates + costs.compute_conjugate(self.compute);
        // What adding up so many numbers can at most have added by rounding is taken off: the bound stays one.
        let rounding = f64::EPSILON * loads.devices() as f64 * (size + conjugates.abs());
        into.bound = paid - conjugates - rounding;
        into.compute_sum = compute_sum;
        into.fixed = fixed;
    }
}

/// Largest and smallest sums that any answer can have, per price.
struct Extent {
    compute: [f64; 2],
    channels: Vec<[f64; 2]>,
    capped: bool,
}

impl Extent {
    fn new(loads: &impl Loads, channels: usize) -> Self {
        let mut extent = Self { compute: [0.0; 2], channels: vec![[0.0; 2]; channels], capped: false };
        for device in 0..loads.devices() {
            let (mut compute, mut channel) = ([f64::INFINITY, 0.0f64], [f64::INFINITY, 0.0f64]);
            loads.visit(device, |_, load| {
                compute = [compute[0].min(load.compute_root), compute[1].max(load.compute_root)];
                channel = [channel[0].min(load.channel_root), channel[1].max(load.channel_root)];
            });
            let group = &mut extent.channels[loads.group(device)];
            for end in 0..2 {
                extent.compute[end] += compute[end];
                group[end] += channel[end];
            }
            extent.capped |= loads.cap(device) < f64::INFINITY;
        }
        extent
    }

    /// The range in which the best price of compute lies.
    fn compute_range(&self, costs: &SharedCost) -> [f64; 2] {
        widened([costs.compute_price(self.compute[0]), costs.compute_price(self.compute[1])])
    }

    /// The range in which the best price of a channel lies; caps can idle a channel down to its slope.
    fn channel_range(&self, costs: &SharedCost, group: usize) -> [f64; 2] {
        let (cost, [low, high]) = (&costs.channels[group], self.channels[group]);
        // A channel without members clears at its lowest price.
        let high = cost.price(high).max(f64::MIN_POSITIVE * 1e20);
        let low = if self.capped { cost.slope.max(high * 1e-12) } else { cost.price(low) };
        let [low, high] = widened([low, high]);
        [low.max(cost.slope), high.max(cost.slope)]
    }
}

/// Leaves room for rounding at both ends.
fn widened([low, high]: [f64; 2]) -> [f64; 2] {
    [low * (1.0 - 1e-9), high * (1.0 + 1e-9)]
}

/// Relative to the shared costs: where a better bound would no longer show.
const TOLERANCE: f64 = 1e-9;
/// Supergradients before the best price found so far is taken; each but the quasi-Newton ones takes 37 % of the area.
const CUTS: u32 = 160;

/// The prices of (nearly) the best bound.
pub(crate) fn best_prices(loads: &impl Loads, costs: &SharedCost) -> Prices {
    if costs.channels.len() > 1 { prices_by_channel(loads, costs) } else { narrowed_prices(loads, costs) }
}

/// Where the best (λ, ν) is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) compute: [f64; 2],
    pub(crate) channel: [f64; 2],
    /// Whether a link has a cap.
    pub(crate) capped: bool,
}

impl Window {
    /// All that it can be.
    pub(crate) fn whole(loads: &impl Loads, costs: &SharedCost) -> Self {
        let extent = Extent::new(loads, 1);
        let (compute, channel) = (extent.compute_range(costs), extent.channel_range(costs, 0));
        Self { compute, channel, capped: extent.capped }
    }
}

/// Devices whose answer is the same everywhere in a window, by the sums of their loads: they pay
/// `fixed + λ compute + ν channel`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settled {
    pub(crate) fixed: f64,
    pub(crate) compute: f64,
    pub(crate) channel: f64,
}

/// Maximises the bound over (λ, ν) within a window, from an optional first guess.
pub(crate) fn plane_search(
    loads: &impl Loads,
    costs: &SharedCost,
    settled: Settled,
    window: Window,
    start: Option<&Prices>,
) -> Prices {
    let ranges = [window.compute, window.channel];
    let width = ranges.map(|[low, high]| high - low);
    let price = |x: [f64; 2], axis: usize| ranges[axis][0] + width[axis] * x[axis];
    let place = |prices: &Prices| {
        let given = [prices.compute, prices.channels[0]];
        [0, 1].map(|axis| if width[axis] > 0.0 { (given[axis] - ranges[axis][0]) / width[axis] } else { 0.5 })
    };
    let mut region = Polygon::unit();
    let mut point = start.map(place).filter(|&at| region.contains(at)).unwrap_or([0.5, 0.5]);
    // The conjugates' own curvature: what the bound's would be if no device changed its answer.
    let own_curvature = [width[0] * width[0] / (2.0 * costs.compute), width[1] * costs.channels[0].cleared(width[1])];
    let mut jacobian = [[-own_curvature[0], 0.0], [0.0, -own_curvature[1]]];
    let mut response = Response::default();
    let mut best = Prices { compute: price(point, 0), channels: vec![price(point, 1)] };
    let mut best_bound = f64::NEG_INFINITY;
    let mut previous: Option<([f64; 2], [f64; 2])> = None;
    for turn in 0..CUTS {
        let prices = Prices { compute: price(point, 0), channels: vec![price(point, 1)] };
        prices.respond(loads, costs, &mut response, None);
        let supply = [prices.compute / (2.0 * costs.compute), costs.channels[0].cleared(prices.channels[0])];
        let demand = [response.compute_sum + settled.compute, response.channel_sums[0] + settled.channel];
        let slope = [0, 1].map(|axis| (demand[axis] - supply[axis]) * width[axis]);
        let paid = settled.fixed + prices.compute * settled.compute + prices.channels[0] * settled.channel;
        let bound = response.bound + paid;
        if bound > best_bound {
            best_bound = bound;
            best = prices;
        }
        let shared = costs.of_compute(demand[0]) + costs.channels[0].of(demand[1]);
        let tolerance = TOLERANCE * shared.max(f64::MIN_POSITIVE);
        // Without caps the answers themselves are a decision, and their value closes the gap from above.
        let closed = !window.capped && shared + response.fixed + settled.fixed - best_bound <= tolerance;
        if closed || slope == [0.0, 0.0] || bound + region.reach(point, slope) - best_bound <= tolerance {
            break;
        }
        if let Some((from, old)) = previous {
            secant_update(
                &mut jacobian,
                [point[0] - from[0], point[1] - from[1]],
                [slope[0] - old[0], slope[1] - old[1]],
            );
        }
        previous = Some((point, slope));
        region.cut(point, slope);
        // Every third step is a centre, whatever the quasi-Newton model promises: the region must shrink.
        let step = if turn % 3 < 2 { solved(&jacobian, slope) } else { None };
        point = step
            .map(|step| [point[0] + step[0], point[1] + step[1]])
            .filter(|&next| region.contains(next))
            .unwrap_or_else(|| region.centroid());
    }
    best
}

/// Broyden's rank-one correction: the model agrees with the last step.
fn secant_update(jacobian: &mut [[f64; 2]; 2], step: [f64; 2], change: [f64; 2]) {
    let square = step[0] * step[0] + step[1] * step[1];
    if square <= 0.0 {
        return;
    }
    for (row, &changed) in jacobian.iter_mut().zip(&change) {
        let missed = changed - row[0] * step[0] - row[1] * step[1];
        row[0] += missed * step[0] / square;
        row[1] += missed * step[1] / square;
    }
}

/// The step to where the linear model's slope vanishes, if it is a model of something concave.
fn solved(jacobian: &[[f64; 2]; 2], slope: [f64; 2]) -> Option<[f64; 2]> {
    let [[a, b], [c, d]] = *jacobian;
    let determinant = a * d - b * c;
    let step = [(b * slope[1] - d * slope[0]) / determinant, (c * slope[0] - a * slope[1]) / determinant];
    (step[0].is_finite() && step[1].is_finite()).then_some(step)
}

/// Steps of each one-dimensional search: 0.618^70 is 2e-15.
const GOLDEN_STEPS: u32 = 70;
const HALVINGS: u32 = 50;

/// Maximises over λ by golden section; for each λ every channel's ν separately, by halving on the supergradient.
fn prices_by_channel(loads: &impl Loads, costs: &SharedCost) -> Prices {
    let extent = Extent::new(loads, costs.channels.len());
    let [mut low, mut high] = extent.compute_range(costs);
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let at = |compute: f64| channels_at(loads, costs, &extent, compute);
    let (mut a, mut b) = (high - golden * (high - low), low + golden * (high - low));
    let (mut at_a, mut at_b) = (at(a), at(b));
    for _ in 0..GOLDEN_STEPS {
        if at_a.0 >= at_b.0 {
            (high, b, at_b) = (b, a, at_a);
            a = high - golden * (high - low);
            at_a = at(a);
        } else {
            (low, a, at_a) = (a, b, at_b);
            b = low + golden * (high - low);
            at_b = at(b);
        }
        if high - low <= 1e-12 * high {
            break;
        }
    }
    if at_a.0 >= at_b.0 { at_a.1 } else { at_b.1 }
}

/// The best channel prices at a given λ, and the bound there. All channels are halved in step: they do not interact.
fn channels_at(loads: &impl Loads, costs: &SharedCost, extent: &Extent, compute: f64) -> (f64, Prices) {
    let mut ranges: Vec<[f64; 2]> = (0..costs.channels.len()).map(|group| extent.channel_range(costs, group)).collect();
    let mut prices = Prices { compute, channels: vec![0.0; ranges.len()] };
    let mut response = Response::default();
    for _ in 0..HALVINGS {
        for (price, range) in prices.channels.iter_mut().zip(&ranges) {
            *price = 0.5 * (range[0] + range[1]);
        }
        prices.respond(loads, costs, &mut response, None);
        let mut open = false;
        for (group, range) in ranges.iter_mut().enumerate() {
            let excess = response.channel_sums[group] - costs.channels[group].cleared(prices.channels[group]);
            range[usize::from(excess <= 0.0)] = prices.channels[group];
            open |= range[1] - range[0] > 1e-13 * range[1];
        }
        if !open {
            break;
        }
    }
    (response.bound, prices)
}
