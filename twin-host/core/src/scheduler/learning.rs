//! Training a Q-table over a distribution of scenarios, Eq. (22).

use super::cost::Choice;
use super::family::{Family, index_below, uniform};
use super::mdp::{Action, ActionSpace, Bins, Episode, Ledger, Quantiser, nearest_choice, quantiles};
use super::objective::SharedCost;
use super::policy::PolicyError;
use super::problem::{Scenario, ScenarioError};
use super::q_table::{Form, QTable, action_count};
use super::rounding::Tally;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::HashMap;
use twin_shared::model::Site;

/// How a table is trained. The learning rate is Eq. (22)'s α, apart from the objective's weight of the same letter.
#[derive(Debug, Clone, PartialEq)]
pub struct QConfig {
    /// One device a step, or all at once.
    pub joint: bool,
    /// Episodes of training.
    pub episodes: u64,
    /// Scenarios drawn for training; episodes go round them.
    pub draws: usize,
    /// Quantisation of states.
    pub bins: Bins,
    /// Levels of f and of b in an action; 1 leaves the shares to Problem 3.
    pub levels: u8,
    /// A cell visited n times learns at the rate max(this, 1/n).
    pub learning_rate_floor: f64,
    /// ε at the first episode; it falls linearly.
    pub exploration_start: f64,
    /// ε from three quarters of the episodes on.
    pub exploration_end: f64,
}

impl QConfig {
    /// The sequential form, for families of unequal boards.
    #[must_use]
    pub fn sequential() -> Self {
        Self {
            joint: false,
            episodes: 1_000_000,
            draws: 20_000,
            bins: Bins { frequency: 10, efficiency: 4, data_scale: 6, compute_sum: 5, channel_sum: 3, positions: 1 },
            levels: 1,
            learning_rate_floor: 0.002,
            exploration_start: 1.0,
            exploration_end: 0.05,
        }
    }

    /// The joint form, as in the paper; only boards' frequencies and gains tell states apart.
    #[must_use]
    pub fn joint() -> Self {
        let bins = Bins { frequency: 2, efficiency: 2, data_scale: 1, compute_sum: 1, channel_sum: 1, positions: 1 };
        Self { joint: true, bins, ..Self::sequential() }
    }

    /// The sequential form with shares in the action, the paper's "Q-learning only".
    #[must_use]
    pub fn only(levels: u8) -> Self {
        Self { levels, ..Self::sequential() }
    }

    /// The same, for this family: where every draw has the same devices in the same places, as around a live
    /// scenario, places are told apart; where devices are drawn alike, what is learnt of one serves all.
    #[must_use]
    pub fn suited_to(mut self, family: &Family) -> Self {
        if !self.joint {
            self.bins.positions = match family {
                Family::Around { .. } => 15,
                Family::Paper(_) | Family::Fleet { .. } => 1,
            };
        }
        self
    }

    /// The same, with work bounded to that of `decisions` single devices, for use on the spot.
    #[must_use]
    pub fn within(mut self, decisions: u64, devices: usize) -> Self {
        let devices = devices.max(1) as u64;
        self.episodes = self.episodes.min(decisions / devices).max(1);
        self.draws = self.draws.min((decisions / 40 / devices) as usize).max(1);
        self
    }
}

/// One point of the convergence curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Episodes so far.
    pub episodes: u64,
    /// Mean of Eq. (6) per device over the episodes since the point before, exploration included.
    pub objective: f64,
    /// ε at that time.
    pub exploration: f64,
    /// States met so far.
    pub states: usize,
}

/// A trained table and how it came about.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The table.
    pub table: QTable,
    /// A hundred points, evenly spaced.
    pub curve: Vec<CurvePoint>,
}

/// Why training cannot start.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainingError {
    /// The distribution cannot be drawn from.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The form does not suit the scenarios.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Trains on draws of `family`, each passed through `adapt` (which may narrow what devices may do). `progress` hears
/// the episodes done, a hundred times.
///
/// # Errors
/// If the family cannot be drawn from, `adapt` refuses a draw, or the joint form has too many actions.
pub fn train(
    family: &Family,
    adapt: impl Fn(Scenario) -> Result<Scenario, PolicyError>,
    config: &QConfig,
    rng: &mut ChaCha8Rng,
    progress: &mut dyn FnMut(u64),
) -> Result<Trained, TrainingError> {
    let draws = (0..config.draws.max(1)).map(|_| Ok(adapt(family.draw(rng)?)?));
    let draws: Vec<Scenario> = draws.collect::<Result<_, TrainingError>>()?;
    let models = draws[0].models.len() as u8;
    let space = ActionSpace { models, levels: config.levels.clamp(1, 16) };
    let form = if config.joint { Form::Joint { devices: family.devices() } } else { Form::Sequential };
    let actions = action_count(form, space)?;
    let nominal = best_constant_of(&draws);
    let quantiser = fit(&draws, nominal, config.bins);
    let episodes: Vec<Episode> = draws.iter().map(|draw| Episode::new(draw, &quantiser, nominal)).collect();
    drop(draws);
    let table = QTable { form, space, quantiser, nominal, rows: HashMap::default(), cells: Vec::new(), actions };
    let channels = episodes[0].costs.channels.len();
    let mut learner = Learner { table, ledger: Ledger::new(channels), config, allowed: Vec::new() };
    let total = config.episodes.max(1);
    let window = total.div_ceil(100);
    let (mut curve, mut sum) = (Vec::with_capacity(100), 0.0);
    for done in 1..=total {
        let fall = (done as f64 / (0.75 * total as f64)).min(1.0);
        let exploration = config.exploration_start + (config.exploration_end - config.exploration_start) * fall;
        let episode = &episodes[index_below(rng, episodes.len())];
        let objective = match form {
            Form::Sequential => learner.sequential(episode, exploration, rng),
            Form::Joint { devices } => learner.joint(episode, devices, exploration, rng),
        };
        sum += objective / episode.own_keys.len() as f64;
        if done % window == 0 || done == total {
            let since = if done % window == 0 { window } else { done % window };
            let objective = sum / since as f64;
            curve.push(CurvePoint { episodes: done, objective, exploration, states: learner.table.states() });
            sum = 0.0;
            progress(done);
        }
    }
    Ok(Trained { table: learner.table, curve })
}

struct Learner<'a> {
    table: QTable,
    ledger: Ledger,
    config: &'a QConfig,
    /// Permitted actions of the device at hand, with the place of their loads.
    allowed: Vec<(u32, u32)>,
}

impl Learner<'_> {
    /// Eq. (22) for one cell.
    fn learn(&mut self, place: usize, target: f64) {
        let cell = &mut self.table.cells[place];
        cell.visits = cell.visits.saturating_add(1);
        let rate = self.config.learning_rate_floor.max(1.0 / f64::from(cell.visits));
        cell.value += (rate * (target - f64::from(cell.value))) as f32;
    }

    /// Lists the actions that an episode permits a device.
    fn list_allowed(&mut self, episode: &Episode, device: usize) {
        let (space, levels) = (self.table.space, self.table.space.levels);
        self.allowed.clear();
        for (place, &(choice, _)) in episode.table.of_device(device).iter().enumerate() {
            let first = space.index(Action { choice, frequency_level: 0, bandwidth_level: 0 }) as u32;
            let all = first..first + u32::from(levels) * u32::from(levels);
            self.allowed.extend(all.map(|action| (action, place as u32)));
        }
    }

    /// The value of the best permitted action: what was never tried counts as no better than the nominal answer.
    fn best_allowed(&self, start: usize) -> (usize, f64) {
        let mut best = (0, f64::NEG_INFINITY);
        for (index, &(action, _)) in self.allowed.iter().enumerate() {
            let value = f64::from(self.table.cells[start + action as usize].value);
            if value > best.1 {
                best = (index, value);
            }
        }
        best
    }

    /// One episode, device after device; Eq. (6) at its end.
    fn sequential(&mut self, episode: &Episode, exploration: f64, rng: &mut ChaCha8Rng) -> f64 {
        let space = self.table.space;
        let count = episode.own_keys.len();
        self.ledger.clear();
        for (device, &(choice, load)) in episode.nominal.iter().enumerate() {
            self.ledger.enter(1.0, space, group(episode, device), load, space.middle(choice));
        }
        let mut objective = self.ledger.objective(space, &episode.costs);
        // The cell and payment of the step before, which waits for this state's value.
        let mut waiting: Option<(usize, f64)> = None;
        for device in 0..count {
            let group = group(episode, device);
            let (stand_in, load) = episode.nominal[device];
            self.ledger.enter(-1.0, space, group, load, space.middle(stand_in));
            let (compute, channel) = self.ledger.roots(group);
            let state = self.table.quantiser.state(episode.own_keys[device], device, count, compute, channel);
            let start = self.table.row_start(state);
            self.list_allowed(episode, device);
            let (best, value) = self.best_allowed(start);
            if let Some((place, payment)) = waiting {
                self.learn(place, payment + value);
            }
            let explores = uniform(rng) < exploration;
            let (action, place) = self.allowed[if explores { index_below(rng, self.allowed.len()) } else { best }];
            let (_, load) = episode.table.of_device(device)[place as usize];
            self.ledger.enter(1.0, space, group, load, space.action(action as usize));
            let reached = self.ledger.objective(space, &episode.costs);
            waiting = Some((start + action as usize, objective - reached));
            objective = reached;
        }
        if let Some((place, payment)) = waiting {
            self.learn(place, payment);
        }
        objective
    }

    /// One episode of one step; Eq. (6) at its end.
    fn joint(&mut self, episode: &Episode, devices: usize, exploration: f64, rng: &mut ChaCha8Rng) -> f64 {
        let space = self.table.space;
        self.ledger.clear();
        for (device, &(choice, load)) in episode.nominal.iter().enumerate() {
            self.ledger.enter(1.0, space, group(episode, device), load, space.middle(choice));
        }
        let nominal = self.ledger.objective(space, &episode.costs);
        let start = self.table.row_start(episode.joint_state);
        let explores = uniform(rng) < exploration;
        let action = if explores { None } else { self.best_joint(start, episode, devices) };
        let action = action.unwrap_or_else(|| {
            (0..devices).rev().fold(0, |index, device| {
                self.list_allowed(episode, device);
                let (own, _) = self.allowed[index_below(rng, self.allowed.len())];
                index * space.count() + own as usize
            })
        });
        self.ledger.clear();
        for device in 0..devices {
            let own = self.table.joint_action(action, device);
            let load = load_of(episode, device, own.choice).expect("only permitted actions are taken");
            self.ledger.enter(1.0, space, group(episode, device), load, own);
        }
        let objective = self.ledger.objective(space, &episode.costs);
        self.learn(start + action, nominal - objective);
        objective
    }

    /// The best action tried so far in a state.
    fn best_joint(&self, start: usize, episode: &Episode, devices: usize) -> Option<usize> {
        let row = &self.table.cells[start..start + self.table.actions];
        let mut best: Option<(f32, usize)> = None;
        for (index, cell) in row.iter().enumerate() {
            let better = cell.visits > 0 && best.is_none_or(|(value, _)| cell.value > value);
            // States tell boards' permissions apart, so what was tried here is permitted, but for mixed words alike.
            let permitted =
                || (0..devices).all(|d| load_of(episode, d, self.table.joint_action(index, d).choice).is_some());
            if better && permitted() {
                best = Some((cell.value, index));
            }
        }
        best.map(|(_, index)| index)
    }
}

fn group(episode: &Episode, device: usize) -> usize {
    use super::loads::Loads;
    episode.table.group(device)
}

fn load_of(episode: &Episode, device: usize, choice: Choice) -> Option<super::cost::Load> {
    let entries = episode.table.of_device(device);
    entries.iter().find(|(known, _)| *known == choice).map(|&(_, load)| load)
}

/// The constant answer with the least mean of Eq. (6) over these scenarios, each device coming as near as it can.
#[must_use]
pub fn best_constant_of(scenarios: &[Scenario]) -> Choice {
    let models = scenarios.first().map_or(0, |scenario| scenario.models.len());
    let constants = (0..models as u8).flat_map(|model| [Site::Local, Site::Host].map(|site| Choice { model, site }));
    let mean =
        |constant: Choice| -> f64 { scenarios.iter().map(|scenario| constant_objective(scenario, constant)).sum() };
    let best = constants.map(|constant| (mean(constant), constant)).min_by(|a, b| a.0.total_cmp(&b.0));
    best.expect("a checked scenario has a student").1
}

/// Eq. (6) of a constant answer, links taken as uncapped.
pub(crate) fn constant_objective(scenario: &Scenario, constant: Choice) -> f64 {
    let choices: Vec<Choice> =
        (0..scenario.devices.len()).map(|device| nearest_choice(scenario, device, constant)).collect();
    Tally::new(scenario, &choices).objective(&SharedCost::new(scenario))
}

/// Edges of the bins at quantiles of the draws; sums as the nominal answer makes them, spread as choices spread them.
fn fit(draws: &[Scenario], nominal: Choice, bins: Bins) -> Quantiser {
    let devices = || draws.iter().flat_map(|draw| &draw.devices);
    let of = |value: fn(&super::problem::Device) -> f64, bins| {
        let mut values: Vec<f64> = devices().map(value).collect();
        quantiles(&mut values, bins)
    };
    let frequency = of(|device| device.frequency.0, bins.frequency);
    let efficiency = of(|device| device.efficiency.0, bins.efficiency);
    let data_scale = of(|device| device.data_scale, bins.data_scale);
    let (mut compute_sums, mut channel_sums) = (Vec::new(), Vec::new());
    for draw in draws {
        let choices: Vec<Choice> = (0..draw.devices.len()).map(|d| nearest_choice(draw, d, nominal)).collect();
        let tally = Tally::new(draw, &choices);
        for (device, &choice) in choices.iter().enumerate() {
            let own = draw.load(device, choice);
            compute_sums.push(tally.compute - own.compute_root);
            channel_sums.push(tally.channels[draw.devices[device].group()] - own.channel_root);
        }
    }
    Quantiser {
        frequency,
        efficiency,
        data_scale,
        compute_sum: quantiles(&mut compute_sums, bins.compute_sum),
        channel_sum: quantiles(&mut channel_sums, bins.channel_sum),
        positions: bins.positions,
    }
}
