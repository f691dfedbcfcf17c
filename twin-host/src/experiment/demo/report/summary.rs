//! What holds for the whole run.

use super::super::result::{BoardResult, DemoResult};
use super::figure::{bytes, number, share};
use super::verdict::epochs_done;

/// Lines, each with its name.
pub(super) fn summary(result: &DemoResult) -> [(&'static str, String); 6] {
    let teacher = &result.teacher;
    let all: f64 = result.stages.iter().map(|(_, seconds)| seconds).sum();
    let stages: String = result.stages.iter().map(|(name, took)| format!("{name} {} s, ", number(*took, 1))).collect();
    let crossed = |way: fn(&BoardResult) -> u64| bytes(result.boards.iter().map(way).fold(0, u64::saturating_add));
    [
        (
            "teacher",
            format!(
                "{}, {} epochs: {} % of {} {} images right",
                teacher.network,
                teacher.epochs,
                share(teacher.full_top1),
                teacher.full_top1.total,
                result.scored.name()
            ),
        ),
        (
            "decision",
            format!("{}, Eq. (6) summed {}, seed {}", result.policy, number(result.objective, 3), result.seed),
        ),
        ("scale", result.scale.clone()),
        ("equal", format!("board and twin after {} epochs of {}", result.equal_epochs, epochs_done(result))),
        ("traffic", format!("{} from the boards, {} to them", crossed(|b| b.bytes_up), crossed(|b| b.bytes_down))),
        ("stages", format!("{stages}in all {} s", number(all, 1))),
    ]
}
