//! `all-local`: every student is trained on its own board (on the host where the board cannot train).

use super::one_site::decide_at;
use super::{Policy, PolicyError};
use crate::scheduler::decision::Decision;
use crate::scheduler::problem::Scenario;
use rand_chacha::ChaCha8Rng;
use twin_shared::model::Site;

/// The policy `all-local`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllLocal;

impl Policy for AllLocal {
    fn name(&self) -> &'static str {
        "all-local"
    }

    fn decide(&self, scenario: &Scenario, _rng: &mut ChaCha8Rng) -> Result<Decision, PolicyError> {
        Ok(decide_at(scenario, self.name(), Site::Local))
    }
}
