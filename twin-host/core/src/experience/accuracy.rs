//! How good a device's students become: from configuration at first, from held-out samples as they are scored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twin_shared::model::Architecture;
use twin_shared::pipe::Score;

use crate::scheduler::Accuracy;

/// What configuration expects weighs as much as so many scored samples.
const EXPECTED_SAMPLES: f64 = 50.0;

/// What a student scored on samples that nobody trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// On the held-out samples of the device's own twin.
    pub own: Score,
    /// On those of all twins that were asked, its own included.
    pub all: Score,
    /// Epochs it had done.
    pub epochs: u32,
    /// Epochs it was to do.
    pub of: u32,
}

/// What a student is expected to reach, and by how many scored samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Acc_own and Acc_avg.
    pub accuracy: Accuracy,
    /// Samples of its own twin behind it; 0 is configuration alone.
    pub own_samples: u32,
    /// Samples of all twins behind it.
    pub all_samples: u32,
}

/// The latest scores of a device's students.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Accuracies {
    latest: BTreeMap<Architecture, Scored>,
}

impl Accuracies {
    /// A student was scored.
    pub fn scored(&mut self, architecture: Architecture, scored: Scored) {
        self.latest.insert(architecture, scored);
    }

    /// The latest scores of a student.
    #[must_use]
    pub fn of(&self, architecture: Architecture) -> Option<&Scored> {
        self.latest.get(&architecture)
    }

    /// What a student is expected to reach: the mean of what configuration expects, as if it were 50 samples, and of
    /// the samples scored. A student in the middle of its training is not yet what it will be, so its scores can
    /// raise the expectation and not lower it.
    #[must_use]
    pub fn estimate(&self, architecture: Architecture, expected: Accuracy) -> Estimate {
        let Some(scored) = self.of(architecture) else {
            return Estimate { accuracy: expected, own_samples: 0, all_samples: 0 };
        };
        let finished = scored.epochs >= scored.of;
        let blend = |expected: f64, score: Score| {
            // A score above its total cannot be; a fraction stays one whatever was stored.
            let correct = f64::from(score.correct.min(score.total));
            let mean = (EXPECTED_SAMPLES * expected + correct) / (EXPECTED_SAMPLES + f64::from(score.total));
            if finished { mean } else { mean.max(expected) }
        };
        Estimate {
            accuracy: Accuracy { own: blend(expected.own, scored.own), avg: blend(expected.avg, scored.all) },
            own_samples: scored.own.total,
            all_samples: scored.all.total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VGG: Architecture = Architecture::Vgg8;
    const EXPECTED: Accuracy = Accuracy { own: 0.8, avg: 0.2 };

    fn scored(own: (u32, u32), all: (u32, u32), epochs: u32) -> Scored {
        let score = |(correct, total)| Score { correct, total };
        Scored { own: score(own), all: score(all), epochs, of: 10 }
    }

    #[test]
    fn configuration_stands_until_something_is_scored() {
        let estimate = Accuracies::default().estimate(VGG, EXPECTED);
        assert_eq!((estimate.accuracy, estimate.own_samples), (EXPECTED, 0));
    }

    #[test]
    fn a_finished_student_counts_both_ways() {
        let mut accuracies = Accuracies::default();
        accuracies.scored(VGG, scored((20, 50), (100, 150), 10));
        let estimate = accuracies.estimate(VGG, EXPECTED);
        assert!((estimate.accuracy.own - 0.6).abs() < 1e-12, "{estimate:?}");
        assert!((estimate.accuracy.avg - 110.0 / 200.0).abs() < 1e-12, "{estimate:?}");
        assert_eq!((estimate.own_samples, estimate.all_samples), (50, 150));
    }

    #[test]
    fn an_unfinished_student_only_raises() {
        let mut accuracies = Accuracies::default();
        accuracies.scored(VGG, scored((1, 50), (149, 150), 3));
        let estimate = accuracies.estimate(VGG, EXPECTED).accuracy;
        assert_eq!(estimate.own, EXPECTED.own);
        assert!(estimate.avg > 0.7, "{estimate:?}");
    }

    proptest! {
        #[test]
        fn an_estimate_is_a_fraction_and_follows_the_samples(
            own in 0.0..=1.0f64, correct in any::<u32>(), total in any::<u32>(), epochs in 0u32..20,
        ) {
            let mut accuracies = Accuracies::default();
            accuracies.scored(VGG, scored((correct, total), (correct, total), epochs));
            let estimate = accuracies.estimate(VGG, Accuracy { own, avg: own }).accuracy.own;
            prop_assert!((0.0..=1.0).contains(&estimate));
            let fraction = f64::from(correct.min(total)) / f64::from(total.max(1));
            let (low, high) = (own.min(fraction), own.max(fraction));
            prop_assert!(total == 0 || (low - 1e-12..=high + 1e-12).contains(&estimate));
        }
    }
}
