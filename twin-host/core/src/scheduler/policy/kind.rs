//! Policies by name, trained on the spot where they need a table.

use super::one_model::Extreme;
use super::{AllHost, AllLocal, BestConstant, Dual, Exact, FlMax, FlMin, Policy, QLearning, QLearningOnly, Random};
use crate::scheduler::family::Family;
use crate::scheduler::learning::{CurvePoint, QConfig, TrainingError, train};
use crate::scheduler::q_table::QTable;
use rand_chacha::ChaCha8Rng;

/// Every policy that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// Q-learning, sequential, with convex allocation.
    QLearning,
    /// Q-learning in the paper's joint form, with convex allocation.
    QLearningJoint,
    /// Q-learning with levels of f and b in the action.
    QLearningOnly,
    /// The least student for all.
    FlMin,
    /// The largest student for all.
    FlMax,
    /// Branch and bound.
    Exact,
    /// Lagrangian relaxation.
    Dual,
    /// All on the boards.
    AllLocal,
    /// All on the host.
    AllHost,
    /// One answer for all.
    BestConstant,
    /// Chance.
    Random,
}

/// A name that no policy has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy {0:?}; known: {known}", known = PolicyKind::ALL.map(PolicyKind::name).join(", "))]
pub struct UnknownPolicy(pub String);

/// Levels of f and b of `q-learning-only` unless told otherwise.
pub const LEVELS: u8 = 3;

impl PolicyKind {
    /// Every policy, the paper's first.
    pub const ALL: [Self; 11] = [
        Self::QLearning,
        Self::QLearningJoint,
        Self::QLearningOnly,
        Self::FlMin,
        Self::FlMax,
        Self::Exact,
        Self::Dual,
        Self::AllLocal,
        Self::AllHost,
        Self::BestConstant,
        Self::Random,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QLearning => "q-learning",
            Self::QLearningJoint => "q-learning-joint",
            Self::QLearningOnly => "q-learning-only",
            Self::FlMin => "fl-min",
            Self::FlMax => "fl-max",
            Self::Exact => "exact",
            Self::Dual => "dual",
            Self::AllLocal => "all-local",
            Self::AllHost => "all-host",
            Self::BestConstant => "best-constant",
            Self::Random => "random",
        }
    }

    /// How the policy's table is trained, if it has one.
    #[must_use]
    pub fn training(self) -> Option<QConfig> {
        match self {
            Self::QLearning => Some(QConfig::sequential()),
            Self::QLearningJoint => Some(QConfig::joint()),
            Self::QLearningOnly => Some(QConfig::only(LEVELS)),
            Self::FlMin | Self::FlMax => Some(QConfig { episodes: 300_000, ..QConfig::sequential() }),
            Self::Exact | Self::Dual | Self::AllLocal | Self::AllHost | Self::BestConstant | Self::Random => None,
        }
    }

    /// The policy with a table that was trained earlier; `None` where the policy has no table.
    #[must_use]
    pub fn with_table(self, table: QTable) -> Option<Box<dyn Policy + Send + Sync>> {
        match self {
            Self::QLearning | Self::QLearningJoint => Some(Box::new(QLearning { table })),
            Self::QLearningOnly => Some(Box::new(QLearningOnly { table })),
            Self::FlMin => Some(Box::new(FlMin { table })),
            Self::FlMax => Some(Box::new(FlMax { table })),
            Self::Exact | Self::Dual | Self::AllLocal | Self::AllHost | Self::BestConstant | Self::Random => None,
        }
    }

    /// The policy, its table (if it has one) trained over `family` by `config`, or by its own [`Self::training`] if
    /// there is none; and the training's curve.
    ///
    /// # Errors
    /// If the table cannot be trained on such scenarios.
    pub fn prepare(
        self,
        family: &Family,
        config: Option<&QConfig>,
        rng: &mut ChaCha8Rng,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Box<dyn Policy + Send + Sync>, Vec<CurvePoint>), TrainingError> {
        let own = || self.training().unwrap_or_else(QConfig::sequential).suited_to(family);
        let config = &config.cloned().unwrap_or_else(own);
        let mut learn = |extreme: Option<Extreme>| match extreme {
            None => train(family, Ok, config, rng, progress),
            Some(extreme) => train(family, |scenario| extreme.restrict(scenario), config, rng, progress),
        };
        Ok(match self {
            Self::QLearning | Self::QLearningJoint => {
                let trained = learn(None)?;
                (Box::new(QLearning { table: trained.table }), trained.curve)
            }
            Self::QLearningOnly => {
                let trained = learn(None)?;
                (Box::new(QLearningOnly { table: trained.table }), trained.curve)
            }
            Self::FlMin => {
                let trained = learn(Some(Extreme::Least))?;
                (Box::new(FlMin { table: trained.table }), trained.curve)
            }
            Self::FlMax => {
                let trained = learn(Some(Extreme::Most))?;
                (Box::new(FlMax { table: trained.table }), trained.curve)
            }
            Self::Exact => (Box::new(Exact::default()), Vec::new()),
            Self::Dual => (Box::new(Dual), Vec::new()),
            Self::AllLocal => (Box::new(AllLocal), Vec::new()),
            Self::AllHost => (Box::new(AllHost), Vec::new()),
            Self::BestConstant => (Box::new(BestConstant), Vec::new()),
            Self::Random => (Box::new(Random), Vec::new()),
        })
    }
}

impl std::str::FromStr for PolicyKind {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnknownPolicy(text.into()))
    }
}

impl std::fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
