//! The answer: for every device a student, a site, its shares and what they cost; and how far from the best it may be.

use super::allocate::{WaterFilling, share_bandwidth, share_compute};
use super::cost::{Choice, CostTerms, Delay};
use super::problem::{Accuracy, Scenario};
use serde::Serialize;
use twin_shared::units::{Gigahertz, Hertz, Seconds};

/// One device's part of a decision, in the scenario's order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeviceDecision {
    /// m_i and x_i.
    pub choice: Choice,
    /// f_i.
    pub frequency: Gigahertz,
    /// b_i.
    pub bandwidth: Hertz,
    /// The epoch's delay by term.
    pub delay: Delay,
}

/// A proof of quality: no choice whatever is better than `lower_bound`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Certificate {
    /// A value below every achievable objective.
    pub lower_bound: f64,
    /// (objective - lower bound) / max(|objective|, sum of the cost terms); 0 if proven best.
    pub gap: f64,
}

impl Certificate {
    /// The certificate of a decision with this objective and sum of cost terms. A bound above the objective by
    /// rounding is lowered to it.
    #[must_use]
    pub fn new(objective: f64, cost: f64, lower_bound: f64) -> Self {
        let lower_bound = lower_bound.min(objective);
        let scale = objective.abs().max(cost);
        let gap = if scale > 0.0 { (objective - lower_bound) / scale } else { 0.0 };
        Self { lower_bound, gap }
    }
}

/// A decision for a whole scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Name of the policy that made it.
    pub policy: &'static str,
    /// One entry a device, in the scenario's order.
    pub devices: Vec<DeviceDecision>,
    /// Eq. (6), summed over devices.
    pub objective: f64,
    /// The terms of Eq. (6), summed over devices.
    pub terms: CostTerms,
    /// How far from the best it may be, if the policy can say.
    pub certificate: Option<Certificate>,
}

impl Decision {
    /// The decision that gives these choices their best shares (Problem 3).
    #[must_use]
    pub fn of_choices(scenario: &Scenario, policy: &'static str, choices: &[Choice]) -> Self {
        let mut frequencies = Vec::with_capacity(choices.len());
        let mut bandwidths = Vec::with_capacity(choices.len());
        for (device, &choice) in choices.iter().enumerate() {
            let load = scenario.load(device, choice);
            frequencies.push(load.compute_root);
            bandwidths.push(load.channel_root);
        }
        share_compute(scenario.frequency.0, &mut frequencies);
        share_channels(scenario, &mut bandwidths);
        Self::of_shares(scenario, policy, choices, &frequencies, &bandwidths)
    }

    /// The decision with shares as given, in GHz and Hz.
    #[must_use]
    pub fn of_shares(
        scenario: &Scenario,
        policy: &'static str,
        choices: &[Choice],
        frequencies: &[f64],
        bandwidths: &[f64],
    ) -> Self {
        let mut terms = CostTerms::default();
        let mut devices = Vec::with_capacity(choices.len());
        for (device, &choice) in choices.iter().enumerate() {
            let (frequency, bandwidth) = (Gigahertz(frequencies[device]), Hertz(bandwidths[device]));
            let own = scenario.cost_terms(device, choice, frequency, bandwidth);
            terms.delay += own.delay;
            terms.compute += own.compute;
            terms.bandwidth += own.bandwidth;
            terms.accuracy += own.accuracy;
            let delay = scenario.delay(device, choice, frequency, bandwidth);
            devices.push(DeviceDecision { choice, frequency, bandwidth, delay });
        }
        Self { policy, devices, objective: terms.objective(), terms, certificate: None }
    }

    /// The same with a lower bound attached.
    #[must_use]
    pub fn certified(mut self, lower_bound: f64) -> Self {
        self.certificate = Some(Certificate::new(self.objective, self.terms.cost(), lower_bound));
        self
    }

    /// The choices alone.
    #[must_use]
    pub fn choices(&self) -> Vec<Choice> {
        self.devices.iter().map(|device| device.choice).collect()
    }

    /// Mean over devices of the delay as Eq. (6) counts it.
    #[must_use]
    pub fn average_delay(&self) -> Seconds {
        self.mean_delay().total()
    }

    /// Mean over devices of each term of the delay.
    #[must_use]
    pub fn mean_delay(&self) -> Delay {
        let share = 1.0 / self.devices.len().max(1) as f64;
        let mean = |term: fn(&Delay) -> Seconds| self.devices.iter().map(|d| term(&d.delay)).sum::<Seconds>() * share;
        Delay {
            teacher: mean(|d| d.teacher),
            label: mean(|d| d.label),
            student: mean(|d| d.student),
            model: mean(|d| d.model),
        }
    }

    /// Means over devices of Acc_own and Acc_avg.
    #[must_use]
    pub fn mean_accuracy(&self, scenario: &Scenario) -> Accuracy {
        let mut sum = Accuracy { own: 0.0, avg: 0.0 };
        for (device, decided) in self.devices.iter().enumerate() {
            let accuracy = scenario.accuracy(device, decided.choice);
            sum.own += accuracy.own;
            sum.avg += accuracy.avg;
        }
        let count = self.devices.len().max(1) as f64;
        Accuracy { own: sum.own / count, avg: sum.avg / count }
    }
}

/// Shares every channel's budget among its devices, in place: roots √B in, Hz out.
fn share_channels(scenario: &Scenario, roots: &mut [f64]) {
    let (alpha, delta) = (scenario.weights.delay, scenario.weights.bandwidth);
    let capped = scenario.is_capped();
    if let [only] = scenario.bandwidths.as_slice()
        && !capped
    {
        return share_bandwidth(only.0, alpha, delta, roots);
    }
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); scenario.bandwidths.len()];
    for (index, device) in scenario.devices.iter().enumerate() {
        members[device.group()].push(index);
    }
    let mut filling = WaterFilling::default();
    for (members, budget) in members.iter().zip(&scenario.bandwidths) {
        let mut own: Vec<f64> = members.iter().map(|&device| roots[device]).collect();
        let caps: Vec<f64> = members.iter().map(|&device| scenario.devices[device].bandwidth_cap().0).collect();
        filling.share(budget.0, alpha, delta, &mut own, &caps);
        for (&device, share) in members.iter().zip(own) {
            roots[device] = share;
        }
    }
}
