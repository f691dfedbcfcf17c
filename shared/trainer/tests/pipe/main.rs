//! The trainer as a process: every job over its pipes, on a few real digits.
#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod driver;

use driver::{Boards, Trainer, plan, recipe};
use twin_shared::model::Architecture;
use twin_shared::pipe::{
    CalibrateJob, CountJob, EpochJob, EvaluateJob, Event, FedAvgJob, InitStudentJob, Job, LabelSource, LabelsJob,
    Normalisation, Outcome, PIPE_VERSION, Part, Request, TeacherBatch, TeacherJob, Ticket,
};
use twin_shared::plan::{LabelKind, LabelPrecision, Method};

const STUDENT: Architecture = Architecture::Resnet8x4;

fn teacher(boards: &Boards, out: &str, epochs: u32) -> TeacherJob {
    TeacherJob {
        architecture: Architecture::Resnet8x4,
        classes: 10,
        twins: vec![boards.text("board0"), boards.text("board1")],
        recipe: twin_shared::plan::Recipe { epochs, ..recipe() },
        batch: TeacherBatch::PerTwin(16),
        augmentation: plan(0).augmentation,
        seed: 5,
        warm_start: None,
        checkpoint: None,
        out: boards.text(out),
    }
}

fn init(boards: &Boards, method: Method, out: &str) -> Job {
    Job::InitStudent(InitStudentJob {
        architecture: STUDENT,
        method,
        teacher: boards.text("teacher"),
        classes: 10,
        seed: 2,
        out: boards.text(out),
    })
}

fn epoch(boards: &Boards, method: Method, state: &str, labels: LabelSource, out: &str) -> EpochJob {
    EpochJob {
        architecture: STUDENT,
        method,
        state: boards.text(state),
        momentum: None,
        dataset: boards.text("board0"),
        plan: plan(0),
        recipe: recipe(),
        labels,
        state_out: boards.text(out),
        momentum_out: Some(boards.text(&format!("{out}.momentum"))),
        checkpoint: None,
        compression: None,
    }
}

#[test]
fn a_board_and_its_twin_train_the_same_epoch() {
    let boards = Boards::new();
    let mut host = Trainer::start(&["--threads", "1", "--device", "cpu"]);
    let mut board = Trainer::start(&["--threads", "1", "--device", "cuda:7"]);
    assert!(matches!(&host.ready, Event::Ready { version: PIPE_VERSION, device, .. } if device == "cpu"));
    assert!(matches!(&board.ready, Event::Ready { device, .. } if device.starts_with("cpu (cuda:7")));

    let taught = host.run(Job::Teacher(teacher(&boards, "teacher", 1)));
    assert!(matches!(taught.result, Ok(Outcome::Weights { .. })), "{:?}", taught.result);
    let Ok(Outcome::Student { version: fresh, .. }) = host.run(init(&boards, Method::SimKd, "fresh")).result else {
        panic!("no student")
    };

    for (kind, precision, tolerance) in
        [(LabelKind::Vector, LabelPrecision::F32, 1e-5), (LabelKind::Map, LabelPrecision::Int8, 2e-3)]
    {
        let out = boards.path(&format!("labels {kind:?}"));
        std::fs::create_dir(&out).unwrap();
        let labels = host.run(Job::Labels(LabelsJob {
            teacher: boards.text("teacher"),
            dataset: boards.text("board0"),
            plan: plan(0),
            kind,
            precision,
            batches_per_block: 2,
            out: out.to_string_lossy().into_owned(),
        }));
        let blocks = labels.blocks.len();
        assert_eq!(labels.result, Ok(Outcome::Labels { blocks: blocks as u32 }));
        assert!(blocks > 1, "more than one block is what this is about");

        let directory = out.to_string_lossy().into_owned();
        let local = epoch(&boards, Method::SimKd, "fresh", LabelSource::Blocks { directory }, "local");
        let source = LabelSource::Teacher { weights: boards.text("teacher"), kind };
        let offloaded = epoch(&boards, Method::SimKd, "fresh", source, "offloaded");
        let (local, offloaded) = (board.run(Job::Epoch(local)), host.run(Job::Epoch(offloaded)));
        assert_eq!(local.losses.len(), offloaded.losses.len());
        for (a, b) in local.losses.iter().zip(&offloaded.losses) {
            assert!((a - b).abs() <= tolerance * b.abs().max(1e-3), "{kind:?}: {a} and {b}");
        }
        let (Ok(Outcome::Student { version: a, .. }), Ok(Outcome::Student { version: b, .. })) =
            (local.result, offloaded.result)
        else {
            panic!("no student")
        };
        assert_ne!(a, fresh);
        if precision == LabelPrecision::F32 {
            assert_eq!(a, b, "equal to the bit on the same processor");
        }
    }

    let scores = host.run(Job::Evaluate(EvaluateJob {
        weights: boards.text("local"),
        teacher: Some(boards.text("teacher")),
        dataset: boards.text("test"),
        part: Part::All,
        devices: boards.counts(),
    }));
    let Ok(Outcome::Evaluation(scores)) = scores.result else { panic!("{:?}", scores.result) };
    assert_eq!(scores.full_top1.total, 120);
    assert!(scores.full_top5.correct >= scores.full_top1.correct);
    for device in &scores.devices {
        assert_eq!(device.private_top1.total + device.unseen_top1.total, 120);
        assert!(device.private_personal.correct >= device.private_top1.correct / 2);
    }
    assert!(host.close() && board.close());
}

#[test]
fn momentum_and_checkpoints_carry_on() {
    let boards = Boards::new();
    let mut trainer = Trainer::start(&["--threads", "1"]);
    // Two epochs at once, and the same two with a break between them.
    let whole = trainer.run(Job::Teacher(teacher(&boards, "whole", 2))).result;
    let mut job = teacher(&boards, "teacher", 2);
    job.checkpoint = Some(boards.text("checkpoint"));
    let (ticket, accepted) = trainer.submit(Job::Teacher(job.clone()));
    let Event::Accepted { steps, .. } = accepted else { panic!("{accepted:?}") };
    trainer.send(&Request::Grant { ticket, steps: steps / 2 });
    for _ in 0..steps / 2 {
        assert!(matches!(trainer.receive(), Event::Stepped { .. }));
    }
    trainer.send(&Request::Cancel { ticket });
    let (ticket, accepted) = trainer.submit(Job::Teacher(job.clone()));
    assert!(matches!(accepted, Event::Accepted { steps: left, .. } if left == steps / 2), "{accepted:?}");
    trainer.send(&Request::Cancel { ticket });
    assert_eq!(trainer.run(Job::Teacher(job.clone())).result, whole);
    // The finished checkpoint gives the same weights again; another job's is refused.
    let Ok(Outcome::Weights { hash, .. }) = trainer.run(Job::Teacher(job.clone())).result else { panic!("no weights") };
    assert!(matches!(whole, Ok(Outcome::Weights { hash: first, .. }) if first == hash));
    job.seed += 1;
    let refused = trainer.run(Job::Teacher(job)).result.unwrap_err();
    assert!(refused.contains("another job"), "{refused}");

    // A student's second epoch depends on the first one's momentum.
    trainer.run(init(&boards, Method::CrossEntropy, "fresh")).result.unwrap();
    let first = epoch(&boards, Method::CrossEntropy, "fresh", LabelSource::None, "one");
    trainer.run(Job::Epoch(first)).result.unwrap();
    let mut second = epoch(&boards, Method::CrossEntropy, "one", LabelSource::None, "two");
    second.plan = plan(1);
    let without = trainer.run(Job::Epoch(second.clone())).result.unwrap();
    second.momentum = Some(boards.text("one.momentum"));
    let with = trainer.run(Job::Epoch(second.clone())).result.unwrap();
    assert_ne!(with, without);
    assert_eq!(trainer.run(Job::Epoch(second)).result, Ok(with));
}

#[test]
fn an_epoch_saved_in_its_middle_goes_on_to_the_same_bits() {
    let boards = Boards::new();
    let mut trainer = Trainer::start(&["--threads", "1"]);
    trainer.run(Job::Teacher(teacher(&boards, "teacher", 1))).result.unwrap();
    trainer.run(init(&boards, Method::SimKd, "fresh")).result.unwrap();
    let directory = boards.text("labels");
    std::fs::create_dir(&directory).unwrap();
    let labels = LabelsJob {
        teacher: boards.text("teacher"),
        dataset: boards.text("board0"),
        plan: plan(0),
        kind: LabelKind::Vector,
        precision: LabelPrecision::F32,
        batches_per_block: 2,
        out: directory.clone(),
    };
    trainer.run(Job::Labels(labels)).result.unwrap();
    let mut job = epoch(&boards, Method::SimKd, "fresh", LabelSource::Blocks { directory }, "out");
    let whole = trainer.run(Job::Epoch(job.clone()));
    let momentum = std::fs::read(boards.path("out.momentum")).unwrap();
    let steps = whole.losses.len();
    assert!(steps > 3, "a block is passed by, and one is begun in its middle");

    job.checkpoint = Some(boards.text("checkpoint"));
    let (ticket, _) = trainer.submit(Job::Epoch(job.clone()));
    trainer.send(&Request::Grant { ticket, steps: 3 });
    (0..3).for_each(|_| assert!(matches!(trainer.receive(), Event::Stepped { .. })));
    trainer.send(&Request::Save { ticket });
    assert_eq!(trainer.receive(), Event::Saved { ticket });
    assert!(trainer.close());

    // Another epoch takes no notice of it.
    let mut again = Trainer::start(&["--threads", "1"]);
    let (ticket, accepted) = again.submit(Job::Epoch(EpochJob { plan: plan(1), ..job.clone() }));
    assert!(matches!(accepted, Event::Accepted { steps: all, .. } if all as usize == steps), "{accepted:?}");
    again.send(&Request::Cancel { ticket });
    let rest = again.run(Job::Epoch(job));
    assert_eq!(rest.losses, whole.losses[3..]);
    assert_eq!(rest.result, whole.result, "state and mean loss");
    assert_eq!(std::fs::read(boards.path("out.momentum")).unwrap(), momentum);
    assert!(!boards.path("checkpoint").exists(), "of no use any more");
}

#[test]
fn fedavg_averages_and_fine_tunes() {
    let boards = Boards::new();
    let mut trainer = Trainer::start(&[]);
    for normalisation in [Normalisation::Batch, Normalisation::Group] {
        let out = format!("fedavg {normalisation:?}");
        let ended = trainer.run(Job::FedAvg(FedAvgJob {
            architecture: STUDENT,
            classes: 10,
            twins: vec![boards.text("board0"), boards.text("board1")],
            rounds: 2,
            local_epochs: 1,
            recipe: recipe(),
            normalisation,
            batch: 16,
            augmentation: plan(0).augmentation,
            fine_tune_epochs: 1,
            seed: 3,
            checkpoint: Some(boards.text(&format!("{out}.checkpoint"))),
            out: boards.text(&out),
        }));
        assert!(matches!(ended.result, Ok(Outcome::Weights { .. })), "{:?}", ended.result);
        assert_eq!(ended.losses.len(), 6);
        for weights in [out.clone(), format!("{out}.0"), format!("{out}.1")] {
            let scored = trainer.run(Job::Evaluate(EvaluateJob {
                weights: boards.text(&weights),
                teacher: None,
                dataset: boards.text("test"),
                part: Part::All,
                devices: vec![],
            }));
            assert!(matches!(scored.result, Ok(Outcome::Evaluation(_))), "{weights}: {:?}", scored.result);
        }
    }
}

#[test]
fn small_jobs_answer() {
    let boards = Boards::new();
    let mut trainer = Trainer::start(&[]);
    let counted = trainer.run(Job::Count(CountJob { dataset: boards.text("board0") })).result;
    let Ok(Outcome::Counts { train, held, labels }) = counted else { panic!("{counted:?}") };
    assert_eq!(train + held, 45);
    assert_eq!(labels.iter().sum::<u32>(), train);
    for train in [true, false] {
        let job = CalibrateJob { architecture: STUDENT, classes: 10, batch: 4, steps: 2, train };
        let calibrated = trainer.run(Job::Calibrate(job)).result;
        assert!(
            matches!(calibrated, Ok(Outcome::Calibration { seconds_per_step, .. }) if seconds_per_step > 0.0),
            "{calibrated:?}"
        );
    }
}

#[test]
fn what_does_not_serve_fails_with_one_clear_line() {
    let boards = Boards::new();
    let mut trainer = Trainer::start(&[]);
    trainer.run(Job::Teacher(teacher(&boards, "teacher", 1))).result.unwrap();
    trainer.run(init(&boards, Method::SimKd, "fresh")).result.unwrap();
    let none = || LabelSource::None;
    let mut fails = |job: Job, parts: &[&str]| {
        let message = trainer.run(job).result.unwrap_err();
        assert!(parts.iter().all(|part| message.contains(part)) && !message.contains('\n'), "{message}");
    };
    fails(Job::Count(CountJob { dataset: boards.text("nowhere") }), &["nowhere", "No such file"]);
    fails(Job::Count(CountJob { dataset: boards.text("teacher") }), &["teacher", "not an image set"]);
    let mut job = epoch(&boards, Method::SimKd, "board0", none(), "x");
    fails(Job::Epoch(job.clone()), &["board0", "safetensors"]);
    job.state = boards.text("fresh");
    job.architecture = Architecture::Vgg8;
    fails(Job::Epoch(job.clone()), &["fresh", "resnet8x4", "vgg8"]);
    job.architecture = STUDENT;
    fails(Job::Epoch(job.clone()), &["SimKd", "None"]);
    job.method = Method::CrossEntropy;
    fails(Job::Epoch(job.clone()), &["without a classifier"]);
    job.recipe.learning_rate = f64::NAN;
    fails(Job::Epoch(job.clone()), &["learning rate", "NaN"]);
    job = epoch(&boards, Method::SimKd, "fresh", LabelSource::Blocks { directory: boards.text("") }, "x");
    fails(Job::Epoch(job.clone()), &["00000.labels", "No such file"]);
    std::fs::write(boards.path("00000.labels"), b"TWLABEL\0").unwrap();
    fails(Job::Epoch(job), &["00000.labels", "header"]);
    let mut foreign = teacher(&boards, "x", 1);
    foreign.classes = 5;
    fails(Job::Teacher(foreign), &["5 outputs", "10 classes"]);
    let mut hot = teacher(&boards, "x", 4);
    hot.recipe.learning_rate = 1e30;
    fails(Job::Teacher(hot), &["diverged"]);
    assert!(!boards.path("x").exists(), "a failed job writes nothing");
    assert!(trainer.close());
}

#[test]
fn labels_of_other_samples_are_refused() {
    let boards = Boards::new();
    let mut trainer = Trainer::start(&[]);
    trainer.run(Job::Teacher(teacher(&boards, "teacher", 1))).result.unwrap();
    trainer.run(init(&boards, Method::SimKd, "fresh")).result.unwrap();
    std::fs::create_dir(boards.path("labels")).unwrap();
    let labels = |trainer: &mut Trainer, plan| {
        trainer
            .run(Job::Labels(LabelsJob {
                teacher: boards.text("teacher"),
                dataset: boards.text("board0"),
                plan,
                kind: LabelKind::Vector,
                precision: LabelPrecision::Bf16,
                batches_per_block: 1,
                out: boards.text("labels"),
            }))
            .result
            .unwrap()
    };
    labels(&mut trainer, plan(1));
    let source = LabelSource::Blocks { directory: boards.text("labels") };
    let job = epoch(&boards, Method::SimKd, "fresh", source, "out");
    let message = trainer.run(Job::Epoch(job.clone())).result.unwrap_err();
    assert!(message.contains("epoch: 1"), "{message}");
    labels(&mut trainer, plan(0));
    let mut changed = boards.split.boards[0].select(&(0..45).rev().collect::<Vec<_>>());
    changed = changed.select(&(0..45).collect::<Vec<_>>());
    changed.write(&boards.path("board0")).unwrap();
    let message = trainer.run(Job::Epoch(job)).result.unwrap_err();
    assert!(message.contains("other samples"), "{message}");
}

#[test]
fn grants_are_served_in_order_and_nothing_runs_without_one() {
    let boards = Boards::new();
    let mut trainer = Trainer::start(&[]);
    let job = || Job::Count(CountJob { dataset: boards.text("board0") });
    let (first, _) = trainer.submit(job());
    let (second, _) = trainer.submit(job());
    trainer.send(&Request::Grant { ticket: Ticket(99), steps: 5 });
    trainer.send(&Request::Grant { ticket: second, steps: 9 });
    trainer.send(&Request::Grant { ticket: first, steps: 1 });
    let mut ended = Vec::new();
    for _ in 0..4 {
        if let Event::Done { ticket, .. } = trainer.receive() {
            ended.push(ticket);
        }
    }
    assert_eq!(ended, [second, first]);
    let (busy, _) = trainer.submit(job());
    trainer.send(&Request::Submit { ticket: busy, job: Box::new(job()) });
    assert!(matches!(trainer.receive(), Event::Failed { message, .. } if message.contains("in use")));
    trainer.send(&Request::Shutdown);
    assert!(trainer.close());
}

#[test]
fn bytes_that_are_no_request_end_the_process_with_an_error() {
    let mut trainer = Trainer::start(&[]);
    trainer.send_raw(&[0xff; 16]);
    assert!(!trainer.close());
}
