//! The best prices of a large fleet, without asking every device again and again.
//!
//! A sample of the devices says about where the best prices are. Nearly all devices answer alike everywhere near
//! there, which one pass over the fleet finds out: for uncapped links a price is linear in (λ, ν), so a choice that is
//! the cheapest at the worst corner of a window for each alternative is the cheapest in all of it. Their loads are
//! added up once, and the search goes on over the few that are still open. Should the best prices lie outside of the
//! window, they are looked for in the whole plane.

use super::cost::Load;
use super::loads::{LoadTable, Loads, Picked};
use super::objective::SharedCost;
use super::prices::{Prices, Settled, Window, plane_search, price_of};

/// Fewest devices of a sample.
const SAMPLE: usize = 2_048;
/// A sample is this part of the devices.
const PART: usize = 32;
/// Half the width of a window, relative to the prices, times the root of the sample's size: the loads of a fleet
/// scatter about as much as they are large, so this is some five standard errors.
const WIDTH: f64 = 5.0;
/// Open devices whose loads are kept in a table; the loads of more are computed as they are asked for.
const TABLE: usize = 1 << 16;

/// The prices of (nearly) the best bound on one channel.
pub(crate) fn narrowed_prices(loads: &impl Loads, costs: &SharedCost) -> Prices {
    let all = loads.devices();
    if all <= 2 * SAMPLE {
        return plane_search(loads, costs, Settled::default(), Window::whole(loads, costs), None);
    }
    let count = SAMPLE.max(all / PART);
    let sample = LoadTable::of(loads, (0..count).map(|index| index * all / count));
    let guess = narrowed_prices(&sample, &costs.scaled(count as f64 / all as f64));
    let window = around(&guess, costs, WIDTH / (count as f64).sqrt());
    let (settled, open, capped) = settle(loads, costs, window);
    let window = Window { capped, ..window };
    let found = if open.len() <= TABLE {
        let table = LoadTable::of(loads, open.iter().map(|&device| device as usize));
        plane_search(&table, costs, settled, window, Some(&guess))
    } else {
        plane_search(&Picked { loads, devices: &open }, costs, settled, window, Some(&guess))
    };
    if is_inside(&found, window, costs) {
        return found;
    }
    plane_search(loads, costs, Settled::default(), Window::whole(loads, costs), Some(&found))
}

fn around(guess: &Prices, costs: &SharedCost, width: f64) -> Window {
    let slope = costs.channels[0].slope;
    let [compute, channel] =
        [guess.compute, guess.channels[0]].map(|price| [price * (1.0 - width), price * (1.0 + width)]);
    Window { compute, channel: channel.map(|price| price.max(slope)), capped: false }
}

/// Whether prices lie inside of a window, not at an edge beyond which better ones may be. Below its slope a channel
/// has no prices.
fn is_inside(found: &Prices, window: Window, costs: &SharedCost) -> bool {
    let within = |price: f64, [low, high]: [f64; 2], lowest: f64| {
        let margin = 1e-3 * (high - low);
        price < high - margin && (price > low + margin || low <= lowest)
    };
    within(found.compute, window.compute, 0.0) && within(found.channels[0], window.channel, costs.channels[0].slope)
}

/// Adds up the devices whose cheapest choice is the same everywhere in the window; the others, and whether a link has
/// a cap (which makes its price no line, so that such devices stay open).
fn settle(loads: &impl Loads, costs: &SharedCost, window: Window) -> (Settled, Vec<u32>, bool) {
    let middle = |[low, high]: [f64; 2]| 0.5 * (low + high);
    let (compute, channel) = (middle(window.compute), middle(window.channel));
    let half = |[low, high]: [f64; 2]| 0.5 * (high - low);
    let (compute_reach, channel_reach) = (half(window.compute), half(window.channel));
    let mut settled = Settled::default();
    let mut open = Vec::new();
    let mut capped = false;
    let mut answers: Vec<(f64, Load)> = Vec::new();
    for device in 0..loads.devices() {
        let is_capped = loads.cap(device) < f64::INFINITY;
        capped |= is_capped;
        answers.clear();
        let mut least = 0;
        loads.visit(device, |_, load| {
            let price = price_of(load, compute, channel, f64::INFINITY, costs.delay_weight);
            if answers.get(least).is_some_and(|(best, _)| price < *best) {
                least = answers.len();
            }
            answers.push((price, load));
        });
        let (price, load) = answers[least];
        let certain = !is_capped
            && answers.iter().enumerate().all(|(index, (other, theirs))| {
                let swing = compute_reach * (theirs.compute_root - load.compute_root).abs()
                    + channel_reach * (theirs.channel_root - load.channel_root).abs();
                index == least || other - price > swing
            });
        if certain {
            settled.fixed += load.fixed;
            settled.compute += load.compute_root;
            settled.channel += load.channel_root;
        } else {
            open.push(u32::try_from(device).expect("a fleet has fewer devices than u32::MAX"));
        }
    }
    (settled, open, capped)
}
