//! An epoch on the board: when the trainer gets it, when it may step, and what becomes of its result.

use std::time::Duration;

use twin_shared::pipe::{Event, Outcome, Ticket};
use twin_shared::wire::{Assignment, FailureCode, Purpose, Status, TrainedEpoch};

use super::message::{Kept, Output, TrainedHere};
use super::work::{Epoch, Keeping, Receiving, Stage, Stepping, Training, Turn, Work};
use super::{Process, Session};
use crate::guard::Permit;
use crate::trainer::{Death, is_want_of_memory};

/// A trainer without work is kept so long for the next epoch.
const IDLE: Duration = Duration::from_secs(60);

/// Progress is told at most this often.
const PROGRESS: Duration = Duration::from_secs(5);

/// Longest rest between two steps, whatever a trainer says that the step took.
const LONGEST_REST: Duration = Duration::from_secs(3600);

impl Session {
    /// When [`Session::handle`] wants an [`Input::Tick`](super::Input::Tick) at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let idle = match self.process {
            Process::Idle { since } => Some(since + IDLE),
            Process::Absent | Process::Busy => None,
        };
        let work = match &self.work {
            Work::Training(Training { stage: Stage::Preparing { since }, .. }) => Some(*since + self.about.stall),
            Work::Training(Training { stage: Stage::Stepping(Stepping { turn, .. }), .. }) => {
                match (*turn, self.permit) {
                    (Turn::Trainer { since }, _) => Some(since + self.about.stall),
                    (Turn::Ours { not_before, starving: None }, Permit::Train { .. }) => Some(not_before),
                    // A block of labels, or the guard's word, comes as an input.
                    (Turn::Ours { .. }, _) => None,
                }
            }
            Work::Training(Training { stage: Stage::Saving(_), .. }) => None,
            Work::Idle | Work::Awaiting(_) | Work::Receiving(_) | Work::Keeping(_) | Work::Uploading(_) => None,
        };
        [idle, work].into_iter().flatten().min()
    }

    /// Does what has become possible.
    pub(super) fn pump(&mut self, now: Duration, out: &mut Vec<Output>) {
        self.pump_calibration(out);
        self.submit(now, out);
        self.grant(now, out);
        self.watch(now, out);
        if let Process::Idle { since } = self.process
            && now >= since + IDLE
        {
            self.process = Process::Absent;
            out.push(Output::StopTrainer);
        }
    }

    /// Base and first labels are there: the trainer's turn.
    fn submit(&mut self, now: Duration, out: &mut Vec<Output>) {
        let Work::Receiving(Receiving { epoch, has_base: true, blocks }) = &self.work else { return };
        if !epoch.covers(blocks.contiguous(), 0) {
            return;
        }
        let (epoch, blocks) = (*epoch, blocks.clone());
        let Some(dataset) = epoch.dataset else { return };
        let assignment = epoch.assignment;
        let momentum = self.memory.trained.is_some_and(|trained| {
            let before = trained.epoch;
            before.job == assignment.job
                && before.round.0.checked_add(1) == Some(assignment.round.0)
                && before.state == assignment.base
        });
        let ticket = self.ticket();
        self.process = Process::Busy;
        self.work = Work::Training(Training { epoch, blocks, ticket, stage: Stage::Preparing { since: now } });
        let sparing = epoch.sparing;
        out.push(Output::Submit { ticket, assignment: Box::new(assignment), sparing, dataset, momentum });
    }

    /// One step at a time, if it is our turn, the guard agrees, the rest is over and the labels are there.
    fn grant(&mut self, now: Duration, out: &mut Vec<Output>) {
        let permitted = matches!(self.permit, Permit::Train { .. });
        let Work::Training(Training { epoch, blocks, ticket, stage: Stage::Stepping(stepping) }) = &mut self.work
        else {
            return;
        };
        let Turn::Ours { not_before, starving } = &mut stepping.turn else { return };
        if stepping.done >= stepping.steps {
            return;
        }
        let covered = epoch.covers(blocks.contiguous(), stepping.done);
        // Hunger ends with the labels, or with the wish.
        if let Some(since) = starving.take_if(|_| covered || !permitted) {
            stepping.starved += now.saturating_sub(since);
        }
        if !permitted || now < *not_before {
            return;
        }
        if covered {
            stepping.begun.get_or_insert(now);
            stepping.turn = Turn::Trainer { since: now };
            out.push(Output::Grant(*ticket));
        } else {
            starving.get_or_insert(now);
        }
    }

    /// Ends a trainer that hangs.
    fn watch(&mut self, now: Duration, out: &mut Vec<Output>) {
        let Work::Training(training) = &self.work else { return };
        let since = match training.stage {
            Stage::Preparing { since } => since,
            Stage::Stepping(Stepping { turn: Turn::Trainer { since }, .. }) => since,
            // Whoever ends the agent does not wait so long.
            Stage::Stepping(Stepping { turn: Turn::Ours { .. }, .. }) | Stage::Saving(_) => return,
        };
        if now >= since + self.about.stall {
            out.push(Output::KillTrainer);
            self.on_trainer_died(&Death::Stalled(self.about.stall), out);
        }
    }

    pub(super) fn on_trainer_died(&mut self, death: &Death, out: &mut Vec<Output>) {
        if let Work::Training(training) = &self.work {
            let Epoch { command, assignment, .. } = training.epoch;
            // Nobody is left who could be told to cancel.
            self.work = Work::Idle;
            self.remember_assigned(None, out);
            if death.is_the_students_doing() {
                out.push(unfit(&assignment, death.to_string()));
            }
            self.reply(command, super::failed(FailureCode::TrainerDied, &death.to_string()), out);
        }
        self.process = Process::Absent;
        out.push(Output::Warn(format!("trainer: {death}")));
    }

    pub(super) fn on_trainer(&mut self, now: Duration, event: Event, out: &mut Vec<Output>) {
        let Work::Training(training) = &mut self.work else { return };
        let ours = training.ticket;
        match event {
            Event::Accepted { ticket, steps } if ticket == ours => {
                training.stage = Stage::Stepping(Stepping::new(training.epoch.batches(), steps, now));
            }
            Event::Stepped { ticket, step, seconds, .. } if ticket == ours => self.on_stepped(now, step, seconds, out),
            Event::Done { ticket, outcome } if ticket == ours => self.on_done(now, outcome, out),
            Event::Failed { ticket, message } if ticket == ours => {
                self.process = Process::Idle { since: now };
                let Epoch { command, assignment, .. } = training.epoch;
                self.work = Work::Idle;
                self.remember_assigned(None, out);
                if is_want_of_memory(&message) {
                    out.push(unfit(&assignment, message.clone()));
                }
                self.reply(command, super::failed(FailureCode::TrainerFailed, &message), out);
            }
            Event::Saved { ticket } if ticket == ours => {
                // The epoch goes on in the agent's next life.
                self.process = Process::Idle { since: now };
                self.work = Work::Idle;
            }
            // Of a job that was given up, or of another kind.
            Event::Accepted { .. }
            | Event::Stepped { .. }
            | Event::Done { .. }
            | Event::Failed { .. }
            | Event::Saved { .. }
            | Event::Ready { .. }
            | Event::Block { .. } => {}
        }
    }

    /// The agent is about to end: what was trained of the epoch is written down.
    pub(super) fn on_ending(&mut self, out: &mut Vec<Output>) {
        if let Work::Training(Training { ticket, stage, .. }) = &mut self.work
            && let Stage::Stepping(stepping) = *stage
            && (stepping.done > stepping.before || matches!(stepping.turn, Turn::Trainer { .. }))
        {
            *stage = Stage::Saving(stepping);
            out.push(Output::Save(*ticket));
        }
    }

    /// Whether what the trainer says next is worth waiting for before the agent ends.
    #[must_use]
    pub const fn is_saving(&self) -> bool {
        matches!(self.work, Work::Training(Training { stage: Stage::Saving(_), .. }))
    }

    fn on_stepped(&mut self, now: Duration, step: u32, seconds: f64, out: &mut Vec<Output>) {
        let duty = match self.permit {
            Permit::Train { duty } => duty,
            Permit::Wait(_) => 1.0,
        } * self.about.duty;
        let Work::Training(Training { epoch, stage: Stage::Stepping(stepping), .. }) = &mut self.work else { return };
        let rest = Duration::try_from_secs_f64(seconds * (1.0 / duty - 1.0)).unwrap_or_default().min(LONGEST_REST);
        stepping.done = stepping.before.saturating_add(step).min(stepping.steps);
        stepping.turn = if stepping.done < stepping.steps {
            Turn::Ours { not_before: now + rest, starving: None }
        } else {
            // The trainer writes the state.
            Turn::Trainer { since: now }
        };
        let status = Status::Running { step: stepping.done, steps: stepping.steps };
        let command = epoch.command;
        if now >= self.last_progress + PROGRESS {
            self.last_progress = now;
            self.reply(command, status, out);
        }
    }

    fn on_done(&mut self, now: Duration, outcome: Outcome, out: &mut Vec<Output>) {
        let Work::Training(Training { epoch, ticket, stage, .. }) = self.work else { return };
        self.process = Process::Idle { since: now };
        let (begun, starved) = match stage {
            Stage::Preparing { .. } => (None, Duration::ZERO),
            Stage::Stepping(stepping) | Stage::Saving(stepping) => (stepping.begun, stepping.starved),
        };
        let training = begun.map_or(Duration::ZERO, |begun| now.saturating_sub(begun));
        match outcome {
            Outcome::Student { hash, loss, samples, .. } => {
                self.work = Work::Keeping(Keeping { epoch, ticket, state: hash, loss, samples, training, starved });
                out.push(Output::Keep { ticket, job: epoch.job(), round: epoch.round() });
            }
            Outcome::Weights { .. }
            | Outcome::Labels { .. }
            | Outcome::Evaluation(_)
            | Outcome::Counts { .. }
            | Outcome::Calibration { .. } => {
                self.fail(now, FailureCode::TrainerFailed, "the trainer answered another job than an epoch", out);
            }
        }
    }

    /// The state file is among the blobs: from now on this epoch is trained, whatever happens.
    pub(super) fn on_kept(&mut self, now: Duration, ticket: Ticket, kept: Result<Kept, String>, out: &mut Vec<Output>) {
        let Work::Keeping(keeping) = self.work else { return };
        if keeping.ticket != ticket {
            return;
        }
        let delta = match kept {
            Ok(Kept { state, delta }) if state == keeping.state => delta,
            Ok(Kept { state, .. }) => {
                let message = format!("the trainer wrote {state:.12} and said {:.12}", keeping.state);
                return self.fail(now, FailureCode::Storage, &message, out);
            }
            Err(message) => return self.fail(now, FailureCode::Storage, &message, out),
        };
        let epoch = keeping.epoch;
        let trained = TrainedHere {
            base: epoch.assignment.base,
            epoch: TrainedEpoch {
                job: epoch.job(),
                round: epoch.round(),
                state: keeping.state,
                samples: keeping.samples,
                loss: keeping.loss,
                training_ms: milliseconds(keeping.training),
                starved_ms: milliseconds(keeping.starved),
            },
        };
        self.memory.trained = Some(trained);
        self.memory.carrier = delta.map(|delta| (keeping.state, delta));
        (self.memory.assigned, self.memory.sparing) = (None, None);
        out.push(Output::Persist(self.memory.clone()));
        self.hand_over(epoch, &trained, out);
    }

    /// Says that the epoch is trained, and sends its state where it is wanted now.
    pub(super) fn hand_over(&mut self, epoch: Epoch, trained: &TrainedHere, out: &mut Vec<Output>) {
        self.reply(epoch.command, Status::Trained(trained.epoch), out);
        if !epoch.sparing.upload {
            self.work = Work::Idle;
            return;
        }
        self.work = Work::Uploading(epoch);
        let TrainedEpoch { job, round, state, .. } = trained.epoch;
        let carrier = self.memory.carrier.filter(|(carried, _)| *carried == state);
        let blob = carrier.map_or(state, |(_, carrier)| carrier);
        out.push(Output::Send { blob, purpose: Purpose::Student { job, round } });
    }
}

fn unfit(assignment: &Assignment, why: String) -> Output {
    Output::Unfit { architecture: assignment.architecture, batch: assignment.plan.batch, why }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
