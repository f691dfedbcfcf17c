//! A worked example for tests: invented figures, three boards, one offloaded.

use super::super::result::{BoardResult, DelayResult, DemoResult, EpochResult, MethodScores, Scored, TeacherResult};
use twin_shared::pipe::{DeviceScores, Score};

pub(super) const fn score(correct: u32, total: u32) -> Score {
    Score { correct, total }
}

/// Scores of a board with `own` test images of its own classes, of 360.
fn scores(own: u32, private: u32, personal: u32, full: u32) -> MethodScores {
    MethodScores {
        full_top1: score(full, 360),
        full_top5: score(full + (360 - full) / 2, 360),
        device: DeviceScores {
            private_top1: score(private, own),
            private_top5: score(own, own),
            private_personal: score(personal, own),
            unseen_top1: score(full - private, 360 - own),
        },
    }
}

fn board(number: u16, site: &str, student: &str) -> BoardResult {
    let own = 108;
    let full = 300 + 9 * u32::from(number);
    let distilled = scores(own, 100, 106, full);
    let alone = scores(own, 99, 101, 101 + u32::from(number));
    let epochs = (1..=4).map(|epoch| EpochResult {
        epoch,
        loss: 1.0 / (epoch as f32 + f32::from(number)),
        measured_s: 5.0 + f64::from(epoch) * 0.04,
        distilled: (epoch != 3).then(|| match epoch {
            4 => distilled,
            _ => scores(own, 60 + 10 * epoch, 70 + 9 * epoch, full - 40 * (4 - epoch)),
        }),
        alone: (epoch != 3).then(|| if epoch == 4 { alone } else { scores(own, 70 + epoch, 80 + 2 * epoch, 90) }),
    });
    BoardResult {
        name: format!("board-{number}"),
        frequency_ghz: 0.5 * f64::from(number),
        link_bits_per_second: 2e6 * f64::from(number * number),
        classes: (0..3).map(|class| (3 * (number - 1) + class, 90 + u32::from(class))).collect(),
        student: student.into(),
        site: site.into(),
        frequency_given_ghz: 2.5,
        bandwidth_hz: 1.25e6,
        delay: DelayResult {
            teacher_s: 1.0,
            label_s: if site == "local" { 0.5 } else { 0.0 },
            student_s: 3.0 + f64::from(number - 1),
            model_s: 2.0,
            predicted_s: 6.0 + f64::from(number - 1) + if site == "local" { 0.5 } else { 0.0 },
            pipelined_s: 4.0,
            training_s: 3.5,
            transfer_s: 1.5,
            measured_s: 5.1,
        },
        epochs: epochs.collect(),
        distilled,
        alone,
        fedavg: scores(own, 90, 103, full - 25),
        bytes_up: 1_250_000 * u64::from(number),
        bytes_down: 310_000,
    }
}

/// A run whose claims hold.
pub(super) fn example() -> DemoResult {
    DemoResult {
        scale: "1 GHz is a quarter of one core".into(),
        seed: 7,
        teacher: TeacherResult { network: "resnet14x4".into(), epochs: 20, full_top1: score(346, 360) },
        policy: "q-learning".into(),
        objective: 21.25,
        boards: vec![board(1, "host", "vgg8"), board(2, "local", "resnet8x4"), board(3, "local", "resnet14x4")],
        scored: Scored::Test,
        samples: 360,
        stages: vec![("copy".into(), 6.25), ("teacher".into(), 61.0), ("students".into(), 84.25)],
        equal_epochs: 12,
    }
}
