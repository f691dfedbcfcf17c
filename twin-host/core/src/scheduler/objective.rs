//! Eq. (6) as a function of the discrete choice alone: with every share at its best, the shared terms depend on
//! Σ√A and Σ√B only, and convexly. This is what searches and bounds are made of.

use super::problem::Scenario;

/// What the sum of compute roots and those of channel roots cost: Φ(U) + Σ_g Ψ_g(V_g).
#[derive(Debug, Clone)]
pub struct SharedCost {
    /// α / f_ser: Φ(U) = `compute` U².
    pub(crate) compute: f64,
    pub(crate) channels: Vec<ChannelCost>,
    /// α, for capped links.
    pub(crate) delay_weight: f64,
}

/// Ψ of one channel: `slope` V while bandwidth is left over, `curve` V² + `rent` once it is all in use; smooth.
#[derive(Debug, Clone, Copy)]
pub struct ChannelCost {
    /// 2 √(α δ).
    pub(crate) slope: f64,
    /// α / b_max.
    curve: f64,
    /// δ b_max.
    rent: f64,
    /// V at which the budget is used up: b_max √(δ / α).
    knee: f64,
}

impl SharedCost {
    /// The costs of a scenario's budgets.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Self {
        let (alpha, delta) = (scenario.weights.delay, scenario.weights.bandwidth);
        let channel = |budget: f64| ChannelCost {
            slope: 2.0 * alpha.sqrt() * delta.sqrt(),
            curve: alpha / budget,
            rent: delta * budget,
            knee: budget * (delta / alpha).sqrt(),
        };
        Self {
            compute: alpha / scenario.frequency.0,
            channels: scenario.bandwidths.iter().map(|budget| channel(budget.0)).collect(),
            delay_weight: alpha,
        }
    }

    /// The costs where every budget is multiplied by `share`: those of a sample of the devices.
    #[must_use]
    pub(crate) fn scaled(&self, share: f64) -> Self {
        let scaled = |cost: &ChannelCost| ChannelCost {
            slope: cost.slope,
            curve: cost.curve / share,
            rent: cost.rent * share,
            knee: cost.knee * share,
        };
        Self {
            compute: self.compute / share,
            channels: self.channels.iter().map(scaled).collect(),
            delay_weight: self.delay_weight,
        }
    }

    /// Φ(U).
    #[inline]
    #[must_use]
    pub fn of_compute(&self, root_sum: f64) -> f64 {
        self.compute * root_sum * root_sum
    }

    /// Φ'(U): the price of compute at which U is what the host can serve.
    #[inline]
    pub(crate) fn compute_price(&self, root_sum: f64) -> f64 {
        2.0 * self.compute * root_sum
    }

    /// Φ*(λ), the conjugate.
    #[inline]
    pub(crate) fn compute_conjugate(&self, price: f64) -> f64 {
        price * (price / (4.0 * self.compute))
    }
}

impl ChannelCost {
    /// Ψ(V).
    #[inline]
    #[must_use]
    pub fn of(&self, root_sum: f64) -> f64 {
        if root_sum <= self.knee { self.slope * root_sum } else { self.curve * root_sum * root_sum + self.rent }
    }

    /// What it costs when all of the budget is given out in proportion to weights w, from Σ B / w and Σ w.
    #[inline]
    pub(crate) fn in_proportion(&self, over_weights: f64, weights: f64) -> f64 {
        if weights > 0.0 { self.curve * over_weights * weights + self.rent } else { 0.0 }
    }

    /// Ψ'(V).
    #[inline]
    pub(crate) fn price(&self, root_sum: f64) -> f64 {
        self.slope.max(2.0 * self.curve * root_sum)
    }

    /// Ψ*(ν) for ν at least `slope`.
    #[inline]
    pub(crate) fn conjugate(&self, price: f64) -> f64 {
        price * (price / (4.0 * self.curve)) - self.rent
    }

    /// The V that the price ν clears: the derivative of the conjugate.
    #[inline]
    pub(crate) fn cleared(&self, price: f64) -> f64 {
        price / (2.0 * self.curve)
    }
}
