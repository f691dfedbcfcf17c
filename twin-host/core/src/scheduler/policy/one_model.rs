//! What `fl-min` and `fl-max` share: federated averaging can train only one student for all.

use super::PolicyError;
use crate::scheduler::problem::Scenario;

/// Which of the students that every device may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extreme {
    /// The one with the least work.
    Least,
    /// The one with the most.
    Most,
}

impl Extreme {
    fn policy(self) -> &'static str {
        match self {
            Self::Least => "fl-min",
            Self::Most => "fl-max",
        }
    }

    /// The scenario in which every device may have that one student only.
    ///
    /// # Errors
    /// If no student suits every device.
    pub fn restrict(self, mut scenario: Scenario) -> Result<Scenario, PolicyError> {
        let common = scenario.devices.iter().fold(u32::MAX, |mask, device| mask & device.allowed);
        let allowed = (0..scenario.models.len()).filter(|model| common >> model & 1 == 1);
        let by_work = |a: &usize, b: &usize| scenario.models[*a].work.0.total_cmp(&scenario.models[*b].work.0);
        let chosen = match self {
            Self::Least => allowed.min_by(by_work),
            Self::Most => allowed.max_by(by_work),
        };
        let chosen = chosen.ok_or(PolicyError::NoCommonModel { policy: self.policy() })?;
        for device in &mut scenario.devices {
            device.allowed = 1 << chosen;
        }
        Ok(scenario)
    }
}
