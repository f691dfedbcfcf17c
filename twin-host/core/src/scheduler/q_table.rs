//! The Q-table of Eq. (22): a hash table from quantised states to the values of actions, and the greedy decision.

use super::cost::{Choice, Load};
use super::decision::Decision;
use super::loads::Loads;
use super::mdp::{Action, ActionSpace, Ledger, Quantiser, mixed, nearest_choice};
use super::policy::PolicyError;
use super::problem::Scenario;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use twin_shared::model::Site;

/// Whether devices are decided one after another or all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One device a step; any number of devices.
    Sequential,
    /// All devices in one step, as in the paper; the actions are a power of the devices.
    Joint {
        /// Devices of every scenario.
        devices: usize,
    },
}

/// Most actions of a joint table: 8^5 and a little more.
pub(crate) const MOST_JOINT_ACTIONS: u64 = 40_000;

/// States are well mixed words or packed fields: one multiplication spreads them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StateHasher(u64);

impl Hasher for StateHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mixed(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mixed(word);
    }
}

/// Values and visits of one action in one state.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cell {
    pub(crate) value: f32,
    pub(crate) visits: u32,
}

/// A trained table.
#[derive(Debug, Clone)]
pub struct QTable {
    pub(crate) form: Form,
    pub(crate) space: ActionSpace,
    pub(crate) quantiser: Quantiser,
    /// The best constant answer of the training draws: what devices to come are taken to do, and what an unknown
    /// state answers.
    pub(crate) nominal: Choice,
    pub(crate) rows: HashMap<u64, u32, BuildHasherDefault<StateHasher>>,
    /// `actions` cells a row.
    pub(crate) cells: Vec<Cell>,
    pub(crate) actions: usize,
}

/// The table as a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    form: Form,
    space: ActionSpace,
    quantiser: Quantiser,
    nominal_model: u8,
    nominal_site: Site,
    /// State, then value and visits of every action; by rising state.
    rows: Vec<(u64, Vec<(f32, u32)>)>,
}

/// Why a stored table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A row of another length than the actions.
    #[error("state {state} has {found} actions, the table has {expected}")]
    RowLength {
        /// The state.
        state: u64,
        /// Its cells.
        found: usize,
        /// The table's actions.
        expected: usize,
    },
    /// A value that is no number.
    #[error("state {state} holds a value that is not a finite number")]
    NotFinite {
        /// The state.
        state: u64,
    },
    /// No students, no levels, or more than can be.
    #[error("the table's actions ({models} students, {levels} levels, {devices} devices) are out of range")]
    Actions {
        /// Students.
        models: u8,
        /// Levels.
        levels: u8,
        /// Devices of a joint table, else 1.
        devices: usize,
    },
}

/// Actions of a table: one device's, or their power for the joint form.
pub(crate) fn action_count(form: Form, space: ActionSpace) -> Result<usize, PolicyError> {
    match form {
        Form::Sequential => Ok(space.count()),
        Form::Joint { devices } => {
            let power = u32::try_from(devices).ok().and_then(|n| (space.count() as u64).checked_pow(n));
            let actions = power.unwrap_or(u64::MAX);
            if actions > MOST_JOINT_ACTIONS {
                return Err(PolicyError::TooManyActions { devices, actions, most: MOST_JOINT_ACTIONS });
            }
            Ok(actions as usize)
        }
    }
}

impl QTable {
    /// States that training met.
    #[must_use]
    pub fn states(&self) -> usize {
        self.rows.len()
    }

    /// Fraction of the met states' actions that training tried.
    #[must_use]
    pub fn tried_fraction(&self) -> f64 {
        let tried = self.cells.iter().filter(|cell| cell.visits > 0).count();
        tried as f64 / self.cells.len().max(1) as f64
    }

    /// The cells of a state, if training met it.
    #[inline]
    pub(crate) fn row(&self, state: u64) -> Option<&[Cell]> {
        let start = *self.rows.get(&state)? as usize * self.actions;
        Some(&self.cells[start..start + self.actions])
    }

    /// The place of a state's cells, made on first use.
    #[inline]
    pub(crate) fn row_start(&mut self, state: u64) -> usize {
        let next = (self.cells.len() / self.actions) as u32;
        let row = *self.rows.entry(state).or_insert(next);
        if row == next {
            self.cells.resize(self.cells.len() + self.actions, Cell::default());
        }
        row as usize * self.actions
    }

    fn check(&self, scenario: &Scenario) -> Result<(), PolicyError> {
        let (trained, given) = (usize::from(self.space.models), scenario.models.len());
        if trained != given {
            return Err(PolicyError::OtherModels { trained, given });
        }
        match self.form {
            Form::Joint { devices } if devices != scenario.devices.len() => {
                Err(PolicyError::OtherDevices { trained: devices, given: scenario.devices.len() })
            }
            Form::Joint { .. } | Form::Sequential => Ok(()),
        }
    }

    /// The table's decision, greedy.
    ///
    /// # Errors
    /// If the table was trained for another number of students, or (joint form) of devices.
    pub fn decide(&self, scenario: &Scenario, policy: &'static str) -> Result<Decision, PolicyError> {
        self.decide_counting(scenario, policy).map(|(decision, _)| decision)
    }

    /// The table's decision, and the fraction of its steps that were in a state that training had met.
    ///
    /// # Errors
    /// As [`QTable::decide`].
    pub fn decide_counting(&self, scenario: &Scenario, policy: &'static str) -> Result<(Decision, f64), PolicyError> {
        self.check(scenario)?;
        let mut answers = Vec::with_capacity(scenario.devices.len());
        let known = match self.form {
            Form::Sequential => self.answer_in_turn(scenario, &mut answers),
            Form::Joint { .. } => self.answer_at_once(scenario, &mut answers),
        };
        let decision = if self.space.levels > 1 {
            self.levelled(scenario, policy, &answers)
        } else {
            let choices: Vec<Choice> = answers.iter().map(|action| action.choice).collect();
            Decision::of_choices(scenario, policy, &choices)
        };
        Ok((decision, known))
    }

    fn answer_in_turn(&self, scenario: &Scenario, answers: &mut Vec<Action>) -> f64 {
        let count = scenario.devices.len();
        let mut ledger = Ledger::new(scenario.bandwidths.len());
        let nominal: Vec<(Action, Load)> = (0..count)
            .map(|device| {
                let action = self.space.middle(nearest_choice(scenario, device, self.nominal));
                (action, scenario.load(device, action.choice))
            })
            .collect();
        for (device, &(action, load)) in nominal.iter().enumerate() {
            ledger.enter(1.0, self.space, scenario.group(device), load, action);
        }
        let mut known = 0;
        for (device, &(stand_in, load)) in nominal.iter().enumerate() {
            let group = scenario.group(device);
            ledger.enter(-1.0, self.space, group, load, stand_in);
            let (compute, channel) = ledger.roots(group);
            let own = self.quantiser.own_key(&scenario.devices[device]);
            let state = self.quantiser.state(own, device, count, compute, channel);
            let best = self.row(state).and_then(|row| self.best_of(row, scenario, device));
            known += usize::from(best.is_some());
            let action = best.unwrap_or(stand_in);
            ledger.enter(1.0, self.space, group, scenario.load(device, action.choice), action);
            answers.push(action);
        }
        known as f64 / count.max(1) as f64
    }

    fn best_of(&self, row: &[Cell], scenario: &Scenario, device: usize) -> Option<Action> {
        let mut best: Option<(f32, usize)> = None;
        for (index, cell) in row.iter().enumerate() {
            let better = cell.visits > 0 && best.is_none_or(|(value, _)| cell.value > value);
            if better && scenario.permits(device, self.space.action(index).choice) {
                best = Some((cell.value, index));
            }
        }
        best.map(|(_, index)| self.space.action(index))
    }

    fn answer_at_once(&self, scenario: &Scenario, answers: &mut Vec<Action>) -> f64 {
        let count = scenario.devices.len();
        let row = self.row(self.quantiser.joint_state(scenario));
        let mut best: Option<(f32, usize)> = None;
        for (index, cell) in row.into_iter().flatten().enumerate() {
            let better = cell.visits > 0 && best.is_none_or(|(value, _)| cell.value > value);
            let permitted = || (0..count).all(|d| scenario.permits(d, self.joint_action(index, d).choice));
            if better && permitted() {
                best = Some((cell.value, index));
            }
        }
        answers.extend((0..count).map(|device| match best {
            Some((_, index)) => self.joint_action(index, device),
            None => self.space.middle(nearest_choice(scenario, device, self.nominal)),
        }));
        f64::from(u8::from(best.is_some()))
    }

    /// One device's part of a joint action: a digit of its index.
    #[inline]
    pub(crate) fn joint_action(&self, index: usize, device: usize) -> Action {
        let base = self.space.count();
        let shifted = (0..device).fold(index, |rest, _| rest / base);
        self.space.action(shifted % base)
    }

    /// Shares in proportion to the levels' weights, normalised to the budgets.
    fn levelled(&self, scenario: &Scenario, policy: &'static str, answers: &[Action]) -> Decision {
        let mut frequencies: Vec<f64> = answers.iter().map(|a| self.space.weight(a.frequency_level)).collect();
        let mut bandwidths: Vec<f64> = answers.iter().map(|a| self.space.weight(a.bandwidth_level)).collect();
        let total: f64 = frequencies.iter().sum();
        for share in &mut frequencies {
            *share *= scenario.frequency.0 / total;
        }
        let mut sums = vec![0.0; scenario.bandwidths.len()];
        for (device, share) in bandwidths.iter().enumerate() {
            sums[scenario.group(device)] += share;
        }
        for (device, share) in bandwidths.iter_mut().enumerate() {
            let group = scenario.group(device);
            *share = (*share * (scenario.bandwidths[group].0 / sums[group])).min(scenario.cap(device));
        }
        let choices: Vec<Choice> = answers.iter().map(|action| action.choice).collect();
        Decision::of_shares(scenario, policy, &choices, &frequencies, &bandwidths)
    }
}

impl Serialize for QTable {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut states: Vec<u64> = self.rows.keys().copied().collect();
        states.sort_unstable();
        let cells = |state: u64| self.row(state).into_iter().flatten().map(|cell| (cell.value, cell.visits)).collect();
        Stored {
            form: self.form,
            space: self.space,
            quantiser: self.quantiser.clone(),
            nominal_model: self.nominal.model,
            nominal_site: self.nominal.site,
            rows: states.into_iter().map(|state| (state, cells(state))).collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for QTable {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(Stored::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl TryFrom<Stored> for QTable {
    type Error = TableError;

    fn try_from(stored: Stored) -> Result<Self, TableError> {
        let ActionSpace { models, levels } = stored.space;
        let devices = match stored.form {
            Form::Sequential => 1,
            Form::Joint { devices } => devices,
        };
        let out_of_range = TableError::Actions { models, levels, devices };
        let sound = models > 0 && levels > 0 && levels <= 16 && stored.nominal_model < models && devices > 0;
        if !sound || usize::from(models) > super::problem::MAX_MODELS {
            return Err(out_of_range);
        }
        let actions = action_count(stored.form, stored.space).map_err(|_| out_of_range)?;
        let mut table = Self {
            form: stored.form,
            space: stored.space,
            quantiser: stored.quantiser,
            nominal: Choice { model: stored.nominal_model, site: stored.nominal_site },
            rows: HashMap::default(),
            cells: Vec::new(),
            actions,
        };
        for (state, cells) in stored.rows {
            if cells.len() != actions {
                return Err(TableError::RowLength { state, found: cells.len(), expected: actions });
            }
            if cells.iter().any(|(value, _)| !value.is_finite()) {
                return Err(TableError::NotFinite { state });
            }
            let start = table.row_start(state);
            for (cell, (value, visits)) in table.cells[start..].iter_mut().zip(cells) {
                *cell = Cell { value, visits };
            }
        }
        Ok(table)
    }
}
