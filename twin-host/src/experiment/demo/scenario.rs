//! The demo's boards, as `demo/boards.toml` describes them.

use serde::Deserialize;
use twin_shared::config::{ConfigError, from_toml};
use twin_shared::id::DeviceId;
use twin_shared::units::{BitsPerSecond, Gigahertz};

/// The boards and the baselines.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scenario {
    /// Seed of the split.
    pub(crate) seed: u64,
    /// Images of each of its classes that a board holds.
    pub(crate) per_class: usize,
    /// Images of each class in the test set, at most.
    pub(crate) test_per_class: usize,
    /// The boards.
    pub(crate) boards: Vec<Board>,
    /// Learning rate of students alone.
    pub(crate) alone_learning_rate: f64,
    /// FedAvg's own constants.
    pub(crate) fedavg: FedAvg,
    /// Students are scored after every so many epochs.
    pub(crate) score_every: u32,
}

/// A board that is played.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Board {
    /// Its name.
    pub(crate) device: DeviceId,
    /// Its compute.
    pub(crate) frequency: Gigahertz,
    /// Its link, both ways.
    pub(crate) link: BitsPerSecond,
    /// The classes that it holds.
    pub(crate) classes: Vec<u16>,
}

/// FedAvg's own constants.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct FedAvg {
    /// Rounds of averaging.
    pub(crate) rounds: u32,
    /// Local epochs a round.
    pub(crate) local_epochs: u32,
    /// Learning rate.
    pub(crate) learning_rate: f64,
}

#[derive(Debug, Deserialize)]
struct Raw {
    seed: u64,
    per_class: usize,
    test_per_class: usize,
    boards: Vec<RawBoard>,
    alone: RawAlone,
    fedavg: FedAvg,
    scores: RawScores,
}

#[derive(Debug, Deserialize)]
struct RawAlone {
    learning_rate: f64,
}

#[derive(Debug, Deserialize)]
struct RawBoard {
    name: String,
    frequency_ghz: f64,
    link_bits_per_second: f64,
    classes: Vec<u16>,
}

#[derive(Debug, Deserialize)]
struct RawScores {
    every: u32,
}

impl Scenario {
    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = from_toml(text)?;
        let boards = raw.boards.into_iter().enumerate().map(|(k, board)| {
            let at = |key: &str| format!("boards[{k}].{key}");
            let device = board.name.parse().map_err(|error| ConfigError::value(at("name"), error))?;
            let (frequency, link) = (Gigahertz(board.frequency_ghz), BitsPerSecond(board.link_bits_per_second));
            if !frequency.is_positive_finite() {
                return Err(ConfigError::value(at("frequency_ghz"), "must be positive"));
            }
            if !link.is_positive_finite() {
                return Err(ConfigError::value(at("link_bits_per_second"), "must be positive"));
            }
            if board.classes.is_empty() {
                return Err(ConfigError::value(at("classes"), "must name at least one class"));
            }
            Ok(Board { device, frequency, link, classes: board.classes })
        });
        let boards = boards.collect::<Result<Vec<_>, _>>()?;
        if boards.is_empty() {
            return Err(ConfigError::value("boards", "must describe at least one board"));
        }
        Ok(Self {
            seed: raw.seed,
            per_class: raw.per_class.max(1),
            test_per_class: raw.test_per_class.max(1),
            boards,
            alone_learning_rate: raw.alone.learning_rate,
            fedavg: raw.fedavg,
            score_every: raw.scores.every.max(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = include_str!("../../../../demo/boards.toml");

    #[test]
    fn the_committed_scenario_is_valid() {
        let scenario = Scenario::parse(COMMITTED).expect("valid");
        assert_eq!(scenario.boards.len(), 4);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, named) in [
            ("name = \"pi4\"", "name = \"Pi4\"", "boards[2].name"),
            ("frequency_ghz = 0.9", "frequency_ghz = 0.0", "boards[1].frequency_ghz"),
            ("per_class", "per_clas", "per_clas"),
        ] {
            let error = Scenario::parse(&COMMITTED.replace(from, to)).expect_err(named).to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
