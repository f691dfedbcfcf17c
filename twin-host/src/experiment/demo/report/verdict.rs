//! Whether the demo's claims held.

use super::super::result::DemoResult;
use super::comparison::{Measure, Method};
use twin_shared::pipe::Score;

/// For every board distillation is above the student alone, on all classes and on its own with the personalised
/// answer, and after every epoch of every board, of which there was one at least, board and twin were equal.
///
/// # Errors
///
/// A line, with its figures, for every claim that did not hold. A tie does not hold.
pub(crate) fn verdict(result: &DemoResult) -> Result<(), Vec<String>> {
    let mut failures = Vec::new();
    if result.boards.is_empty() {
        failures.push("no board took part".to_owned());
    }
    for board in &result.boards {
        if board.epochs.is_empty() {
            failures.push(format!("{}: no epoch was done", board.name));
        }
        for (measure, place) in
            [(Measure::All, "all classes"), (Measure::Personal, "its own classes with the personalised answer")]
        {
            let [distilled, alone] = [Method::Distilled, Method::Alone].map(|method| measure.of(method.scores(board)));
            if let Some(failing) = not_above(distilled, alone) {
                failures.push(format!("{}, on {place}: {failing}", board.name));
            }
        }
    }
    let (equal, done) = (result.equal_epochs, epochs_done(result));
    if u64::from(equal) != done {
        failures.push(format!("board and twin were found equal after {equal} epochs of the {done} that were done"));
    } else if done == 0 {
        failures.push("no epoch was done, so that nowhere were board and twin compared".to_owned());
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// Epochs over all boards.
pub(super) fn epochs_done(result: &DemoResult) -> u64 {
    result.boards.iter().map(|board| board.epochs.len() as u64).sum()
}

/// Why distillation's score is not above that of the student alone, if it is not.
fn not_above(distilled: Score, alone: Score) -> Option<String> {
    for (score, method) in [(distilled, "distillation"), (alone, "the student alone")] {
        if score.total == 0 {
            return Some(format!("{method} was not scored"));
        }
    }
    let (left, right) = (figures(distilled), figures(alone));
    if distilled.total != alone.total {
        return Some(format!("distillation {left} and the student alone {right} were scored on different samples"));
    }
    match distilled.correct.cmp(&alone.correct) {
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal => Some(format!("distillation {left} only ties with the student alone {right}")),
        std::cmp::Ordering::Less => Some(format!("distillation {left} is below the student alone {right}")),
    }
}

fn figures(score: Score) -> String {
    let percent = score.fraction().unwrap_or_default() * 100.0;
    format!("{}/{} ({percent:.1} %)", score.correct, score.total)
}

#[cfg(test)]
mod tests {
    use super::super::example::{example, score};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_worked_example_holds() {
        assert_eq!(verdict(&example()), Ok(()));
    }

    #[test]
    fn a_tie_is_a_failure_with_its_figures() {
        let mut result = example();
        result.boards[1].alone.full_top1 = result.boards[1].distilled.full_top1;
        assert_eq!(
            verdict(&result),
            Err(vec![
                "board-2, on all classes: distillation 318/360 (88.3 %) only ties with the student alone 318/360 (88.3 %)"
                    .to_owned()
            ])
        );
    }

    #[test]
    fn below_on_own_classes_is_a_failure() {
        let mut result = example();
        result.boards[0].distilled.device.private_personal = score(70, 108);
        let failures = verdict(&result).unwrap_err();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(failures[0].starts_with("board-1, on its own classes"), "{failures:?}");
        assert!(failures[0].contains("70/108 (64.8 %) is below"), "{failures:?}");
    }

    #[test]
    fn scores_on_different_samples_are_not_compared() {
        let mut result = example();
        result.boards[0].alone.full_top1 = score(1, 359);
        assert!(verdict(&result).unwrap_err()[0].contains("different samples"));
    }

    #[test]
    fn a_missing_score_is_a_failure() {
        let mut result = example();
        result.boards[0].alone.full_top1 = Score::default();
        assert_eq!(verdict(&result), Err(vec!["board-1, on all classes: the student alone was not scored".to_owned()]));
    }

    #[test]
    fn a_run_in_which_nothing_happened_fails() {
        let mut result = example();
        result.boards.clear();
        result.equal_epochs = 0;
        let failures = verdict(&result).unwrap_err();
        assert_eq!(failures.len(), 2, "{failures:?}");

        let mut result = example();
        result.equal_epochs -= u32::try_from(result.boards[2].epochs.len()).unwrap();
        result.boards[2].epochs.clear();
        assert_eq!(verdict(&result), Err(vec!["board-3: no epoch was done".to_owned()]));
    }

    proptest! {
        #[test]
        fn equality_must_be_of_every_epoch_and_no_more(equal: u32) {
            let mut result = example();
            let done = epochs_done(&result);
            result.equal_epochs = equal;
            prop_assert_eq!(verdict(&result).is_ok(), u64::from(equal) == done);
        }

        #[test]
        fn only_more_right_answers_are_above(total in 1u32..1000, one in 0u32..1000, other in 0u32..1000) {
            let (one, other) = (one.min(total), other.min(total));
            let failing = not_above(score(one, total), score(other, total));
            prop_assert_eq!(failing.is_none(), one > other);
        }
    }
}
