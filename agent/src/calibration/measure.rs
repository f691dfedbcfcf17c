//! Times real training steps, each student in a trainer of its own, so that the peak of its memory is its own.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use twin_shared::model::Architecture;
use twin_shared::pipe::{CalibrateJob, Event, Job, Outcome, Request, Ticket};

use super::{Calibration, Conditions, Verdict};
use crate::config::Trainer;
use crate::trainer::{Death, News, NotStarted, TrainerProcess, is_want_of_memory};

/// Steps that are timed of each student, after the trainer's warm-up.
const STEPS: u32 = 5;

/// How often the trainer's memory is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Students learn from the teacher's features, whatever the classes.
const CLASSES: u16 = 100;

const TICKET: Ticket = Ticket(1);

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// There is no trainer, or the kernel does not say what it is.
    #[error("{}: {error}", program.display())]
    Conditions {
        /// The trainer.
        program: std::path::PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The trainer does not start.
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
    /// The trainer ended before it was ready, or by somebody's order.
    #[error("the trainer: {0}")]
    Ended(Death),
    /// The trainer refused.
    #[error("{student}: {message}")]
    Refused {
        /// Which student.
        student: Architecture,
        /// What it said.
        message: String,
    },
}

/// Measures every student of which `kept` says nothing; all of them if LibTorch is another than it was. `told` hears
/// what is known after every student, so that it can be kept. Dropping the future ends the trainer.
///
/// Once a residual network did not fit, the deeper ones are not tried: each attempt endangers what else runs on the
/// board. VGG-8 says nothing of them: its parameters take more, its activations less.
///
/// # Errors
/// When the trainer does not start or does not know the job.
pub async fn calibrate(
    trainer: &Trainer,
    kept: Option<Calibration>,
    batch: u32,
    mut told: impl FnMut(&Calibration),
) -> Result<Calibration, CalibrateError> {
    let failed = |error| CalibrateError::Conditions { program: trainer.program.clone(), error };
    let conditions = Conditions::now(trainer, batch).map_err(failed)?;
    let (mut process, libtorch) = start(trainer).await?;
    let mut calibration = match kept {
        Some(kept) if kept.libtorch == libtorch && kept.conditions == conditions => kept,
        Some(_) | None => Calibration::new(libtorch, conditions),
    };
    let mut students = calibration.missing().collect::<Vec<_>>().into_iter().peekable();
    while let Some(student) = students.next() {
        let verdict = match shallower_that_does_not_fit(&calibration, student) {
            Some(shallower) => Verdict::DoesNotFit { why: format!("not tried: {shallower} does not fit already") },
            None => measure(&mut process, student, batch, trainer).await?,
        };
        calibration.judge(student, verdict);
        told(&calibration);
        if students.peek().is_some_and(|next| shallower_that_does_not_fit(&calibration, *next).is_none()) {
            process.retire().await;
            (process, _) = start(trainer).await?;
        }
    }
    process.retire().await;
    Ok(calibration)
}

/// A residual network of fewer layers than this one that did not fit.
fn shallower_that_does_not_fit(calibration: &Calibration, student: Architecture) -> Option<Architecture> {
    let unfit = |known: &Architecture| matches!(calibration.verdict(*known), Some(Verdict::DoesNotFit { .. }));
    // The students are in the order of their depth.
    Architecture::STUDENTS.into_iter().filter(|known| *known != Architecture::Vgg8 && *known < student).find(unfit)
}

/// A trainer that is ready, and its LibTorch's version.
async fn start(trainer: &Trainer) -> Result<(TrainerProcess, String), CalibrateError> {
    let mut process = TrainerProcess::start(trainer)?;
    let silence = sleep_until(Instant::now() + trainer.stall);
    tokio::select! {
        news = process.next() => match news {
            News::Event(Event::Ready { libtorch, .. }) => Ok((process, libtorch)),
            News::Event(other) => Err(CalibrateError::Ended(Death::Pipe(format!("it began with {other:?}")))),
            News::Ended(death) => Err(CalibrateError::Ended(death)),
        },
        () = silence => Err(CalibrateError::Ended(Death::Stalled(trainer.stall))),
    }
}

async fn measure(
    process: &mut TrainerProcess,
    student: Architecture,
    batch: u32,
    trainer: &Trainer,
) -> Result<Verdict, CalibrateError> {
    let job = CalibrateJob { architecture: student, classes: CLASSES, batch, steps: STEPS, train: true };
    process.request(Request::Submit { ticket: TICKET, job: Box::new(Job::Calibrate(job)) });
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let news = tokio::select! {
            news = process.next() => news,
            _ = look.tick() => match (trainer.memory_limit, process.resident()) {
                (Some(allowed), Some(held)) if held > allowed => News::Ended(Death::OverLimit { held, allowed }),
                _ => continue,
            },
            () = sleep_until(heard + trainer.stall) => News::Ended(Death::Stalled(trainer.stall)),
        };
        heard = Instant::now();
        match news {
            News::Event(Event::Accepted { steps, .. }) => process.request(Request::Grant { ticket: TICKET, steps }),
            News::Event(Event::Done { outcome: Outcome::Calibration { seconds_per_step, peak_memory }, .. }) => {
                return Ok(Verdict::Fits { seconds_per_step, peak_memory });
            }
            News::Event(Event::Failed { message, .. }) if is_want_of_memory(&message) => {
                return Ok(Verdict::DoesNotFit { why: message });
            }
            News::Event(Event::Failed { message, .. }) => return Err(CalibrateError::Refused { student, message }),
            News::Event(Event::Done { outcome, .. }) => {
                let message = format!("it was asked to calibrate and answered {outcome:?}");
                return Err(CalibrateError::Refused { student, message });
            }
            News::Event(Event::Ready { .. } | Event::Stepped { .. } | Event::Block { .. } | Event::Saved { .. }) => {}
            News::Ended(death) if death.is_the_students_doing() => {
                return Ok(Verdict::DoesNotFit { why: death.to_string() });
            }
            News::Ended(death) => return Err(CalibrateError::Ended(death)),
        }
    }
}
