//! `all-host`: every student is trained on the host.

use super::one_site::decide_at;
use super::{Policy, PolicyError};
use crate::scheduler::decision::Decision;
use crate::scheduler::problem::Scenario;
use rand_chacha::ChaCha8Rng;
use twin_shared::model::Site;

/// The policy `all-host`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllHost;

impl Policy for AllHost {
    fn name(&self) -> &'static str {
        "all-host"
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        Ok(decide_at(scenario, self.name(), Site::Host))
    }
}
