//! Eq. (22)'s Markov decision process: states by quantisation, actions, and what an episode is worth.
//!
//! In the sequential form devices are decided one after another. The state is the device's own bins (f_loc, e and
//! data scale, with what it may do), its position, and binned Σ√A and Σ√B of the others: of those decided what they
//! took, of those to come what the nominal answer would take, so that a state knows how full the budgets are going to
//! be. The return of an episode is minus Eq. (6) with the shares at their best; it is paid out as it comes about,
//! each step earning what it lowers Eq. (6) while the rest is at the nominal answer. These payments add up to the
//! return less a constant of the scenario, so the best policy is the same and its values are far less noisy.
//!
//! In the joint form, as in the paper, the state is the bins of all devices, the action all their choices at once,
//! and the episode one step.

use super::cost::{Choice, Load};
use super::loads::LoadTable;
use super::objective::SharedCost;
use super::problem::{Device, Scenario};
use serde::{Deserialize, Serialize};
use twin_shared::model::Site;

/// How finely the state is quantised: bins of each quantity, at most 15. One bin leaves the quantity out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bins {
    /// f_loc.
    pub frequency: u8,
    /// e, which rises with h.
    pub efficiency: u8,
    /// Data scale.
    pub data_scale: u8,
    /// Σ√A of the other devices (sequential form).
    pub compute_sum: u8,
    /// Σ√B of the other devices (sequential form).
    pub channel_sum: u8,
    /// Positions told apart (sequential form).
    pub positions: u8,
}

/// Edges between bins, at quantiles of the training draws: every bin is met equally often.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Quantiser {
    pub(crate) frequency: Vec<f64>,
    pub(crate) efficiency: Vec<f64>,
    pub(crate) data_scale: Vec<f64>,
    pub(crate) compute_sum: Vec<f64>,
    pub(crate) channel_sum: Vec<f64>,
    pub(crate) positions: u8,
}

/// Edges that split `values` into `bins` parts of equal number; `values` is left sorted.
pub(crate) fn quantiles(values: &mut [f64], bins: u8) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let bins = usize::from(bins.clamp(1, 15));
    let mut edges: Vec<f64> = (1..bins).filter_map(|part| values.get(part * values.len() / bins).copied()).collect();
    edges.dedup();
    edges
}

#[inline]
fn bin(edges: &[f64], value: f64) -> u64 {
    edges.iter().map(|&edge| u64::from(value >= edge)).sum()
}

impl Quantiser {
    /// The part of a state that does not change within an episode: own bins and what the device may do.
    #[inline]
    pub(crate) fn own_key(&self, device: &Device) -> u64 {
        let bins = bin(&self.frequency, device.frequency.0) << 8
            | bin(&self.efficiency, device.efficiency.0) << 4
            | bin(&self.data_scale, device.data_scale);
        bins << 33 | u64::from(device.can_train) << 32 | u64::from(device.allowed)
    }

    /// A sequential state: 12 bits of own bins and 33 of permissions, 4 of position, 8 of sums.
    #[inline]
    pub(crate) fn state(&self, own: u64, position: usize, devices: usize, compute_sum: f64, channel_sum: f64) -> u64 {
        let positions = usize::from(self.positions.clamp(1, 15));
        let position = if devices <= positions { position } else { position * positions / devices };
        (own << 4 | position as u64) << 8
            | bin(&self.compute_sum, compute_sum) << 4
            | bin(&self.channel_sum, channel_sum)
    }

    /// A joint state: the bins of every device, in order.
    pub(crate) fn joint_state(&self, scenario: &Scenario) -> u64 {
        scenario.devices.iter().fold(0, |state, device| mixed(state ^ self.own_key(device)))
    }
}

/// A permutation of 64-bit words that spreads every input bit over the output.
#[inline]
pub(crate) fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let word = (word ^ (word >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ (word >> 32)
}

/// What an action says about one device: its choice, and where shares are learned too, levels of f and b.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) choice: Choice,
    pub(crate) frequency_level: u8,
    pub(crate) bandwidth_level: u8,
}

/// The actions of one device: students × sites × levels × levels; one level leaves the shares to Problem 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActionSpace {
    pub(crate) models: u8,
    pub(crate) levels: u8,
}

impl ActionSpace {
    pub(crate) fn count(self) -> usize {
        2 * usize::from(self.models) * usize::from(self.levels) * usize::from(self.levels)
    }

    #[inline]
    pub(crate) fn action(self, index: usize) -> Action {
        let levels = usize::from(self.levels);
        let choice = index / (levels * levels);
        let site = if choice.is_multiple_of(2) { Site::Local } else { Site::Host };
        Action {
            choice: Choice { model: (choice / 2) as u8, site },
            frequency_level: (index / levels % levels) as u8,
            bandwidth_level: (index % levels) as u8,
        }
    }

    #[inline]
    pub(crate) fn index(self, action: Action) -> usize {
        let levels = usize::from(self.levels);
        let choice = usize::from(action.choice.model) * 2 + usize::from(action.choice.site == Site::Host);
        (choice * levels + usize::from(action.frequency_level)) * levels + usize::from(action.bandwidth_level)
    }

    /// The share's weight of a level, before shares are normalised to the budget.
    #[inline]
    pub(crate) fn weight(self, level: u8) -> f64 {
        f64::from(level + 1) / f64::from(self.levels)
    }

    /// A choice with middling levels.
    pub(crate) fn middle(self, choice: Choice) -> Action {
        Action { choice, frequency_level: self.levels / 2, bandwidth_level: self.levels / 2 }
    }
}

/// A constant answer, given by every device as nearly as it can: its student, or the largest one below it that the
/// device may have (the smallest it may have if there is none below); on the board only where the board can train.
#[must_use]
pub fn nearest_choice(scenario: &Scenario, device: usize, wanted: Choice) -> Choice {
    let board = &scenario.devices[device];
    let site = if board.can_train { wanted.site } else { Site::Host };
    if board.allows(usize::from(wanted.model)) {
        return Choice { site, ..wanted };
    }
    let work = |model: u8| scenario.models[usize::from(model)].work.0;
    let limit = work(wanted.model);
    let allowed = || (0..scenario.models.len() as u8).filter(|&model| board.allows(usize::from(model)));
    let below = allowed().filter(|&m| work(m) <= limit).max_by(|&a, &b| work(a).total_cmp(&work(b)));
    let model = below.or_else(|| allowed().min_by(|&a, &b| work(a).total_cmp(&work(b))));
    Choice { model: model.expect("a checked scenario allows every device a student"), site }
}

/// Running sums from which Eq. (6) follows, with shares at their best or at levels.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    compute_roots: f64,
    channel_roots: Vec<f64>,
    /// Σ A / w and Σ w, where levels w set the shares.
    compute_levels: [f64; 2],
    channel_levels: Vec<[f64; 2]>,
    fixed: f64,
}

impl Ledger {
    pub(crate) fn new(channels: usize) -> Self {
        Self {
            compute_roots: 0.0,
            channel_roots: vec![0.0; channels],
            compute_levels: [0.0; 2],
            channel_levels: vec![[0.0; 2]; channels],
            fixed: 0.0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.compute_roots = 0.0;
        self.channel_roots.fill(0.0);
        self.compute_levels = [0.0; 2];
        self.channel_levels.fill([0.0; 2]);
        self.fixed = 0.0;
    }

    /// Adds (`sign` 1) or takes away (-1) one device's action.
    #[inline]
    pub(crate) fn enter(&mut self, sign: f64, space: ActionSpace, group: usize, load: Load, action: Action) {
        self.compute_roots += sign * load.compute_root;
        self.channel_roots[group] += sign * load.channel_root;
        self.fixed += sign * load.fixed;
        if space.levels > 1 {
            let (f, b) = (space.weight(action.frequency_level), space.weight(action.bandwidth_level));
            self.compute_levels[0] += sign * load.compute_root * load.compute_root / f;
            self.compute_levels[1] += sign * f;
            let channel = &mut self.channel_levels[group];
            channel[0] += sign * load.channel_root * load.channel_root / b;
            channel[1] += sign * b;
        }
    }

    /// Eq. (6) of what is entered.
    #[inline]
    pub(crate) fn objective(&self, space: ActionSpace, costs: &SharedCost) -> f64 {
        let shared = if space.levels > 1 {
            let channels = costs.channels.iter().zip(&self.channel_levels);
            costs.compute * self.compute_levels[0] * self.compute_levels[1]
                + channels.map(|(cost, sums)| cost.in_proportion(sums[0], sums[1])).sum::<f64>()
        } else {
            let channels = costs.channels.iter().zip(&self.channel_roots);
            costs.of_compute(self.compute_roots) + channels.map(|(cost, &sum)| cost.of(sum)).sum::<f64>()
        };
        shared + self.fixed
    }

    /// Σ√A and one channel's Σ√B.
    #[inline]
    pub(crate) fn roots(&self, group: usize) -> (f64, f64) {
        (self.compute_roots, self.channel_roots[group])
    }
}

/// A scenario made ready for many episodes.
#[derive(Debug, Clone)]
pub(crate) struct Episode {
    pub(crate) table: LoadTable,
    pub(crate) costs: SharedCost,
    pub(crate) own_keys: Vec<u64>,
    pub(crate) joint_state: u64,
    pub(crate) nominal: Vec<(Choice, Load)>,
}

impl Episode {
    pub(crate) fn new(scenario: &Scenario, quantiser: &Quantiser, nominal: Choice) -> Self {
        let devices = 0..scenario.devices.len();
        Self {
            table: LoadTable::new(scenario),
            costs: SharedCost::new(scenario),
            own_keys: scenario.devices.iter().map(|device| quantiser.own_key(device)).collect(),
            joint_state: quantiser.joint_state(scenario),
            nominal: devices
                .map(|device| nearest_choice(scenario, device, nominal))
                .enumerate()
                .map(|(device, choice)| (choice, scenario.load(device, choice)))
                .collect(),
        }
    }
}
