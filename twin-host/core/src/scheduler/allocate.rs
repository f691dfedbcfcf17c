//! Problem 3 in closed form: the shares of compute and bandwidth for a given choice of students and sites.
//!
//! The β term is constant in f (time times compute is work), so f and b separate. With roots `u_i = √A_i` and
//! `v_i = √B_i` the stationary points are `f_i ∝ u_i` and `b_i = t v_i`, where `t = √(α / (δ + π))` falls with the
//! budget's shadow price π. All functions work in place, over roots that must be positive and finite: what comes in
//! as roots goes out as shares.

/// `f_i = f_ser √A_i / Σ √A_j`: the whole of `total` is always given out, whatever its price. O(N).
pub fn share_compute(total: f64, roots: &mut [f64]) {
    let sum: f64 = roots.iter().sum();
    let per_root = total / sum;
    for root in roots {
        *root *= per_root;
    }
}

/// `b_i = √(α B_i / δ) min(1, b_max / Σ √(α B_j / δ))`; with `price` (δ) zero, all of `total` in proportion to `√B_i`.
/// O(N).
pub fn share_bandwidth(total: f64, delay_weight: f64, price: f64, roots: &mut [f64]) {
    let sum: f64 = roots.iter().sum();
    let per_root = unconstrained(delay_weight, price).min(total / sum);
    for root in roots {
        *root *= per_root;
    }
}

/// Capped water-filling, with its scratch memory kept for the next call.
#[derive(Debug, Default)]
pub struct WaterFilling {
    order: Vec<u32>,
    /// Sum of the roots from each place of `order` to the end.
    rest: Vec<f64>,
}

impl WaterFilling {
    /// As [`share_bandwidth`] with `b_i ≤ caps[i]` (infinite for none). O(N log N).
    ///
    /// Devices saturate in the order of `caps[i] / √B_i` as t rises; t is where the budget is used up, or at the
    /// price's own limit.
    ///
    /// # Panics
    /// If there is not one cap a root, or there are more than 2^32 of them.
    pub fn share(&mut self, total: f64, delay_weight: f64, price: f64, roots: &mut [f64], caps: &[f64]) {
        assert_eq!(roots.len(), caps.len(), "every root has its cap");
        let count = u32::try_from(roots.len()).expect("a channel serves fewer than 2^32 devices");
        let ratio = |device: u32| caps[device as usize] / roots[device as usize];
        self.order.clear();
        self.order.extend(0..count);
        self.order.sort_unstable_by(|&a, &b| ratio(a).total_cmp(&ratio(b)));
        // Summed from the far end: a difference of running sums would lose small roots behind large ones.
        self.rest.clear();
        self.rest.extend(self.order.iter().rev().scan(0.0, |sum, &device| {
            *sum += roots[device as usize];
            Some(*sum)
        }));
        self.rest.reverse();
        let limit = unconstrained(delay_weight, price);
        let mut left = total;
        let mut per_root = limit;
        for (&device, &rest) in self.order.iter().zip(&self.rest) {
            let tight = (left / rest).min(limit);
            if tight <= ratio(device) {
                per_root = tight;
                break;
            }
            left -= caps[device as usize];
        }
        for (root, &cap) in roots.iter_mut().zip(caps) {
            *root = (*root * per_root).min(cap);
        }
    }
}

/// t where bandwidth is worth exactly its price δ; without a price no amount is too much.
fn unconstrained(delay_weight: f64, price: f64) -> f64 {
    if price > 0.0 { (delay_weight / price).sqrt() } else { f64::INFINITY }
}
