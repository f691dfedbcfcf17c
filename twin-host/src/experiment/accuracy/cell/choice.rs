//! Learning rates by validation: every candidate is tried for a quarter of the epochs, and the one that answers most
//! of the twins' held-out samples right is taken. Nobody trains on those, and the test set plays no part.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use twin_shared::pipe::{Part, Score};

use crate::experiment::accuracy::data::Data;
use crate::experiment::accuracy::work::Work;

/// A candidate, and how it did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Candidate {
    pub(super) learning_rate: f64,
    /// Epochs between two averagings; 1 where nothing is averaged.
    pub(super) local_epochs: u32,
    /// Percent right on the held-out samples of all twins; none when it was not tried.
    pub(super) held_top1: Option<f64>,
}

impl Candidate {
    pub(super) const fn new(learning_rate: f64, local_epochs: u32) -> Self {
        Self { learning_rate, local_epochs, held_top1: None }
    }
}

/// Epochs of a trial.
pub(super) fn trial_epochs(epochs: u32) -> u32 {
    (epochs / 4).max(1)
}

/// The candidates as far as they were tried in `file`, or untried.
pub(super) fn known(file: &Path, fresh: Vec<Candidate>) -> anyhow::Result<Vec<Candidate>> {
    let name = || file.display().to_string();
    let written = match std::fs::read_to_string(file) {
        Ok(written) => written,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(fresh),
        Err(error) => return Err(error).with_context(name),
    };
    let tried: Vec<Candidate> = serde_json::from_str(&written).with_context(name)?;
    let is_same =
        |(a, b): (&Candidate, &Candidate)| (a.learning_rate, a.local_epochs) == (b.learning_rate, b.local_epochs);
    anyhow::ensure!(
        tried.len() == fresh.len() && tried.iter().zip(&fresh).all(is_same),
        "{} holds trials of other candidates; remove it, or name another --out",
        name()
    );
    Ok(tried)
}

/// The best of them; of equals the first.
pub(super) fn best(candidates: &[Candidate]) -> anyhow::Result<Candidate> {
    let score = |candidate: &Candidate| candidate.held_top1.unwrap_or(0.0);
    let chosen = candidates.iter().copied().reduce(|a, b| if score(&b) > score(&a) { b } else { a });
    chosen.context("at least one learning rate and one number of local epochs are needed")
}

/// Percent of all twins' held-out samples that a network answers right.
pub(super) async fn held_top1(
    work: &mut Work,
    data: &Data,
    weights: &Path,
    teacher: Option<&Path>,
) -> anyhow::Result<Option<f64>> {
    let mut held = Score::default();
    for dataset in &data.devices {
        let score = work.score(weights, teacher, dataset, Part::Held, Vec::new()).await?.full_top1;
        held = Score { correct: held.correct + score.correct, total: held.total + score.total };
    }
    Ok(held.fraction().map(|fraction| 100.0 * fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_taken_and_trials_are_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("choice.json");
        let fresh = vec![Candidate::new(0.1, 1), Candidate::new(0.5, 1)];
        assert_eq!(known(&file, fresh.clone()).unwrap(), fresh);
        assert_eq!(best(&fresh).unwrap(), fresh[0]);
        let mut tried = fresh.clone();
        tried[0].held_top1 = Some(40.0);
        std::fs::write(&file, serde_json::to_string(&tried).unwrap()).unwrap();
        assert_eq!(known(&file, fresh.clone()).unwrap(), tried);
        tried[1].held_top1 = Some(41.0);
        assert!((best(&tried).unwrap().learning_rate - 0.5).abs() < 1e-12);
        assert!(known(&file, vec![Candidate::new(0.1, 1)]).is_err());
        std::fs::write(&file, "[{").unwrap();
        assert!(known(&file, fresh).is_err());
        assert!(best(&[]).is_err());
    }
}
