//! Weighted fair queueing over mini-batch steps: what makes each device's share f_i of the host's compute real.
//!
//! A step cannot be interrupted and its cost is known only afterwards, so flows are served by virtual time: whoever
//! has had least, in proportion to its weight, is next, and what a step took is charged when it is done. A flow
//! without work leaves its share to the others and comes back at their time, so it cannot save up.

use std::collections::BTreeMap;

/// The state of all flows.
#[derive(Debug, Clone)]
pub struct FairShare<K> {
    flows: BTreeMap<K, Flow>,
    /// Virtual time of the flow served last: where those begin that come back from idling.
    now: f64,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    weight: f64,
    /// Cost so far over weight.
    served: f64,
    busy: bool,
}

impl<K> Default for FairShare<K> {
    fn default() -> Self {
        Self { flows: BTreeMap::new(), now: 0.0 }
    }
}

impl<K: Ord + Clone> FairShare<K> {
    /// Sets a flow's weight; only ratios matter. A weight that is no positive number counts as the smallest.
    pub fn set_weight(&mut self, flow: K, weight: f64) {
        let weight = if weight > 0.0 && weight.is_finite() { weight } else { f64::MIN_POSITIVE.sqrt() };
        let now = self.now;
        let entry = self.flows.entry(flow).or_insert(Flow { weight, served: now, busy: false });
        entry.weight = weight;
    }

    /// Forgets a flow.
    pub fn remove(&mut self, flow: &K) {
        self.flows.remove(flow);
    }

    /// The next flow to serve, of those that have work. An unknown flow has weight 1.
    pub fn next(&mut self, has_work: impl IntoIterator<Item = K>) -> Option<K> {
        let mut working: Vec<K> = has_work.into_iter().collect();
        working.sort();
        for flow in &working {
            let now = self.now;
            let entry = self.flows.entry(flow.clone()).or_insert(Flow { weight: 1.0, served: now, busy: false });
            if !entry.busy {
                entry.busy = true;
                entry.served = entry.served.max(now);
            }
        }
        for (flow, entry) in &mut self.flows {
            entry.busy &= working.binary_search(flow).is_ok();
        }
        let least =
            self.flows.iter().filter(|(_, entry)| entry.busy).min_by(|a, b| a.1.served.total_cmp(&b.1.served))?;
        let (flow, served) = (least.0.clone(), least.1.served);
        self.now = self.now.max(served);
        Some(flow)
    }

    /// Charges what a step of this flow took, in any unit, the same for all.
    pub fn charge(&mut self, flow: &K, cost: f64) {
        if let Some(entry) = self.flows.get_mut(flow) {
            entry.served += cost.max(0.0) / entry.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_idle_flow_saves_nothing_up() {
        let mut share = FairShare::default();
        share.set_weight("a", 1.0);
        share.set_weight("b", 1.0);
        for _ in 0..100 {
            assert_eq!(share.next(["a"]), Some("a"));
            share.charge(&"a", 1.0);
        }
        let served: Vec<_> = (0..4)
            .map(|_| {
                let flow = share.next(["a", "b"]).expect("both have work");
                share.charge(&flow, 1.0);
                flow
            })
            .collect();
        assert_eq!(served.iter().filter(|flow| **flow == "b").count(), 2, "{served:?}");
    }

    #[test]
    fn nobody_with_work_is_nobody_next() {
        let mut share: FairShare<u8> = FairShare::default();
        share.set_weight(1, 1.0);
        assert_eq!(share.next([]), None);
    }

    /// Runs `steps` steps with the flows that `busy` names at each; what each flow has got after each step.
    fn served(
        share: &mut FairShare<usize>,
        costs: &[f64],
        steps: usize,
        busy: impl Fn(usize) -> Vec<usize>,
    ) -> Vec<Vec<f64>> {
        let mut spent = vec![0.0; costs.len()];
        (0..steps)
            .map(|step| {
                if let Some(flow) = share.next(busy(step)) {
                    // Costs differ from step to step as well as from flow to flow.
                    let cost = costs[flow] * (0.5 + (step * 7919 % 101) as f64 / 101.0);
                    spent[flow] += cost;
                    share.charge(&flow, cost);
                }
                spent.clone()
            })
            .collect()
    }

    /// A fleet's weights and mean step costs: an unequal one of two to five flows.
    fn flows() -> impl Strategy<Value = Vec<(f64, f64)>> {
        proptest::collection::vec((0.1f64..10.0, 0.2f64..3.0), 2..6)
    }

    fn weighted(flows: &[(f64, f64)]) -> (FairShare<usize>, Vec<f64>) {
        let mut share = FairShare::default();
        for (flow, (weight, _)) in flows.iter().enumerate() {
            share.set_weight(flow, *weight);
        }
        (share, flows.iter().map(|flow| flow.1).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// While all have work, each one's cost is its share of the whole within 5 %, with unequal step costs.
        #[test]
        fn shares_hold(flows in flows()) {
            let (mut share, costs) = weighted(&flows);
            let all = flows.len();
            let spent = served(&mut share, &costs, 20_000, |_| (0..all).collect()).pop().expect("steps");
            let total: f64 = spent.iter().sum();
            let weights: f64 = flows.iter().map(|flow| flow.0).sum();
            for (flow, (weight, _)) in flows.iter().enumerate() {
                let (got, due) = (spent[flow] / total, weight / weights);
                prop_assert!((got / due - 1.0).abs() < 0.05, "flow {flow}: {got} of {due}");
            }
        }

        /// Flows come and go. Over every interval in which two of them have work throughout, what they got over their
        /// weights differs by no more than two of the longest steps over the weights (the bound of start-time fair
        /// queueing), whatever the others do; so over long intervals shares hold within 5 %.
        #[test]
        fn idle_flows_do_not_bend_the_shares_of_the_others(
            flows in flows(),
            from in 0usize..5_000,
            periods in proptest::collection::vec((50usize..3_000, 1usize..10), 5),
        ) {
            let (mut share, costs) = weighted(&flows);
            // Flow 0 and 1 are compared from `from` on; before, flow 1 idles, and the others come and go all the time.
            let busy = |step: usize| {
                let here = |flow: usize| match flow {
                    0 => true,
                    1 => step >= from,
                    other => (step / periods[other].0).is_multiple_of(periods[other].1),
                };
                (0..flows.len()).filter(|flow| here(*flow)).collect()
            };
            let spent = served(&mut share, &costs, 25_000, busy);
            let longest = |flow: usize| 1.5 * costs[flow] / flows[flow].0;
            let most = longest(0) + longest(1);
            for (start, end) in [(from, 24_999), (from, from + 500), (from + 2_000, from + 9_000)] {
                let got = |flow: usize| (spent[end][flow] - spent[start][flow]) / flows[flow].0;
                prop_assert!((got(0) - got(1)).abs() <= 2.0 * most, "{start}..{end}: {} and {}", got(0), got(1));
            }
        }

        /// What one does not use goes to the others, in proportion to their weights; nothing is left unserved while
        /// somebody has work.
        #[test]
        fn an_unused_share_goes_to_the_others(flows in flows(), idle in 0usize..5) {
            let idle = idle % flows.len();
            let (mut share, costs) = weighted(&flows);
            let others: Vec<usize> = (0..flows.len()).filter(|flow| *flow != idle).collect();
            let spent = served(&mut share, &costs, 20_000, |_| others.clone());
            prop_assert_eq!(spent[19_999][idle], 0.0);
            let steps_without_service = spent.windows(2).filter(|pair| pair[0] == pair[1]).count();
            prop_assert_eq!(steps_without_service, 0);
            let total: f64 = spent[19_999].iter().sum();
            let weights: f64 = others.iter().map(|flow| flows[*flow].0).sum();
            for flow in others {
                let (got, due) = (spent[19_999][flow] / total, flows[flow].0 / weights);
                prop_assert!((got / due - 1.0).abs() < 0.05, "flow {flow}: {got} of {due}");
            }
        }
    }
}
