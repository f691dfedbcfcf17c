//! What `all-local` and `all-host` share: the site is given, students follow from the dual prices, shares from
//! Problem 3.

use super::dual::relax;
use crate::scheduler::cost::{Choice, Load};
use crate::scheduler::decision::Decision;
use crate::scheduler::loads::Loads;
use crate::scheduler::objective::SharedCost;
use crate::scheduler::problem::Scenario;
use twin_shared::model::Site;

/// The scenario's loads with only one site left to every device, where the device can have it.
struct AtSite<'a> {
    scenario: &'a Scenario,
    site: Site,
}

impl Loads for AtSite<'_> {
    fn devices(&self) -> usize {
        self.scenario.devices().len()
    }

    fn visit(&self, device: usize, mut visit: impl FnMut(Choice, Load)) {
        let site = if self.scenario.devices()[device].can_train() { self.site } else { Site::Host };
        self.scenario.for_each_load(device, |choice, load| {
            if choice.site == site {
                visit(choice, load);
            }
        });
    }

    fn group(&self, device: usize) -> usize {
        Loads::group(self.scenario, device)
    }

    fn cap(&self, device: usize) -> f64 {
        self.scenario.cap(device)
    }
}

/// Every device at `site`, with a student near the best for that; boards that cannot train stay on the host.
pub(crate) fn decide_at(scenario: &Scenario, policy: &'static str, site: Site) -> Decision {
    let relaxed = relax(scenario, &AtSite { scenario, site }, &SharedCost::new(scenario));
    Decision::of_choices(scenario, policy, &relaxed.choices)
}
