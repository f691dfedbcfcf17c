//! What is compared with what: the methods, the measures, and a measure's uncertainty.

use super::super::result::{BoardResult, MethodScores};
use twin_shared::pipe::Score;

/// How a board came by its student.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Taught by the twins' common teacher.
    Distilled,
    /// The same student on the board's own data, without a teacher.
    Alone,
    /// The same student averaged over the boards.
    FedAvg,
}

impl Method {
    pub(super) const ALL: [Self; 3] = [Self::Distilled, Self::Alone, Self::FedAvg];

    /// In tables for people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Distilled => "distilled",
            Self::Alone => "alone",
            Self::FedAvg => "FedAvg",
        }
    }

    /// In files, and as a class on the page.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Distilled => "distilled",
            Self::Alone => "alone",
            Self::FedAvg => "fedavg",
        }
    }

    /// The final scores of a board's student.
    pub(super) const fn scores(self, board: &BoardResult) -> &MethodScores {
        match self {
            Self::Distilled => &board.distilled,
            Self::Alone => &board.alone,
            Self::FedAvg => &board.fedavg,
        }
    }
}

/// What is measured on the test set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// On the board's own classes.
    Own,
    /// On the board's own classes, logits adjusted by the board's label frequencies.
    Personal,
    /// On all classes.
    All,
    /// On the classes that the board holds none of.
    Unseen,
    /// On the board's own classes, among the best five.
    OwnTop5,
    /// On all classes, among the best five.
    AllTop5,
}

impl Measure {
    pub(super) const ALL: [Self; 6] =
        [Self::Own, Self::Personal, Self::All, Self::Unseen, Self::OwnTop5, Self::AllTop5];

    /// In tables for people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Own => "own classes",
            Self::Personal => "own, personalised",
            Self::All => "all classes",
            Self::Unseen => "unseen classes",
            Self::OwnTop5 => "own classes, best five",
            Self::AllTop5 => "all classes, best five",
        }
    }

    /// The column's name, as in `accuracy.csv`.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Own => "private_top1",
            Self::Personal => "private_top1_personal",
            Self::All => "full_top1",
            Self::Unseen => "unseen_top1",
            Self::OwnTop5 => "private_top5",
            Self::AllTop5 => "full_top5",
        }
    }

    pub(super) const fn of(self, scores: &MethodScores) -> Score {
        match self {
            Self::Own => scores.device.private_top1,
            Self::Personal => scores.device.private_personal,
            Self::All => scores.full_top1,
            Self::Unseen => scores.device.unseen_top1,
            Self::OwnTop5 => scores.device.private_top5,
            Self::AllTop5 => scores.full_top5,
        }
    }
}

/// A percentage with the ends of its 95 % Wilson interval, which unlike the normal one holds near 0 and 100 too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    pub(super) percent: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Share {
    /// `None` of no samples.
    pub(super) fn of(score: Score) -> Option<Self> {
        /// The normal distribution's 97.5 % quantile.
        const Z: f64 = 1.959_963_984_540_054;
        let fraction = score.fraction()?.min(1.0);
        let samples = f64::from(score.total);
        let spread = Z * Z / samples;
        let centre = (fraction + spread / 2.0) / (1.0 + spread);
        let half = Z / (1.0 + spread) * ((fraction * (1.0 - fraction) + spread / 4.0) / samples).sqrt();
        // At the ends rounding would put the bound a hair inside of the fraction itself.
        let low = (centre - half).clamp(0.0, fraction);
        let high = (centre + half).clamp(fraction, 1.0);
        Some(Self { percent: fraction * 100.0, low: low * 100.0, high: high * 100.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wilson_interval_is_that_of_the_books() {
        // 81 of 263: (0.2553, 0.3662), as in Newcombe (1998), table I.
        let share = Share::of(Score { correct: 81, total: 263 }).unwrap();
        assert!((share.low - 25.53).abs() < 0.005, "{share:?}");
        assert!((share.high - 36.62).abs() < 0.005, "{share:?}");
    }

    #[test]
    fn nothing_measured_is_no_share() {
        assert_eq!(Share::of(Score { correct: 0, total: 0 }), None);
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_share_and_stays_a_percentage(correct: u32, total in 1..u32::MAX) {
            let Share { percent, low, high } = Share::of(Score { correct, total }).unwrap();
            prop_assert!(0.0 <= low && low <= percent && percent <= high && high <= 100.0);
            prop_assert!(low < high);
        }
    }
}
