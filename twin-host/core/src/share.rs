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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// While all have work, each one's cost is its share of the whole within a step of the most expensive,
        /// which is below 5 % after enough steps; unequal step costs included.
        #[test]
        fn shares_hold(
            flows in proptest::collection::vec((0.1f64..10.0, 0.2f64..3.0), 2..6),
            noise in proptest::collection::vec(0.5f64..1.5, 64),
        ) {
            let mut share = FairShare::default();
            for (flow, (weight, _)) in flows.iter().enumerate() {
                share.set_weight(flow, *weight);
            }
            let mut spent = vec![0.0; flows.len()];
            for step in 0..20_000 {
                let flow = share.next(0..flows.len()).expect("all have work");
                let cost = flows[flow].1 * noise[step % noise.len()];
                spent[flow] += cost;
                share.charge(&flow, cost);
            }
            let total: f64 = spent.iter().sum();
            let weights: f64 = flows.iter().map(|flow| flow.0).sum();
            for (flow, (weight, _)) in flows.iter().enumerate() {
                let (got, due) = (spent[flow] / total, weight / weights);
                prop_assert!((got / due - 1.0).abs() < 0.05, "flow {flow}: {got} of {due}");
            }
        }
    }
}
