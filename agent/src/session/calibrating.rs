//! The host asks what training takes here: told from an earlier measurement, or measured while the board has no epoch
//! of its own to train and may train.

use twin_shared::wire::{BoardCalibration, Reply, Status};

use super::message::{Message, Output};
use super::work::Work;
use super::{Process, Session, UNASKED};
use crate::guard::Permit;

/// Largest mini-batch that is measured: what the host sends is no reason to run out of memory.
const MAX_BATCH: u32 = 1024;

/// How far an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calibrating {
    /// Nobody asks.
    Unasked,
    /// The disk is asked for an earlier measurement.
    Recalling(Question),
    /// It is measured as soon as it may be.
    Waiting(Question),
    /// It is being measured.
    Measuring(Question),
}

/// What the host wants to know, and by which command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    command: u64,
    batch: u32,
}

impl Calibrating {
    /// Whoever asked is there no more: the answer is told all the same.
    pub(super) fn disown(&mut self) {
        match self {
            Self::Unasked => {}
            Self::Recalling(question) | Self::Waiting(question) | Self::Measuring(question) => {
                question.command = UNASKED;
            }
        }
    }
}

impl Session {
    pub(super) fn on_calibrate(&mut self, command: u64, batch: u32, out: &mut Vec<Output>) {
        if !self.about.capabilities.can_train || !(1..=MAX_BATCH).contains(&batch) {
            self.reply(command, Status::Calibrated(nothing_known(batch)), out);
            return;
        }
        if let Calibrating::Measuring(Question { .. }) = self.calibrating {
            out.push(Output::StopCalibration);
        }
        self.calibrating = Calibrating::Recalling(Question { command, batch });
        self.reply(command, Status::Accepted, out);
        out.push(Output::RecallCalibration(batch));
    }

    pub(super) fn on_recalled(&mut self, known: Option<BoardCalibration>, out: &mut Vec<Output>) {
        let Calibrating::Recalling(question) = self.calibrating else { return };
        self.calibrating = match known {
            Some(known) => {
                self.reply(question.command, Status::Calibrated(known), out);
                Calibrating::Unasked
            }
            // A machine that plays a board plays others too, and would be timed by their work.
            None if self.about.capabilities.emulated => {
                self.reply(question.command, Status::Calibrated(nothing_known(question.batch)), out);
                Calibrating::Unasked
            }
            None => {
                if !self.may_measure() {
                    // The host need not wait: it hears of the measurement when there is one.
                    self.reply(question.command, Status::Calibrated(nothing_known(question.batch)), out);
                }
                Calibrating::Waiting(question)
            }
        };
    }

    /// Everything was measured; or, where nothing is being measured, a student was found not to fit.
    pub(super) fn on_calibrated(&mut self, known: BoardCalibration, out: &mut Vec<Output>) {
        match self.calibrating {
            Calibrating::Measuring(question) => {
                self.calibrating = Calibrating::Unasked;
                self.reply(question.command, Status::Calibrated(known), out);
            }
            Calibrating::Unasked | Calibrating::Recalling(_) | Calibrating::Waiting(_) => {
                self.publish(Message::Reply(Reply { command: UNASKED, status: Status::Calibrated(known) }), out);
            }
        }
    }

    pub(super) fn on_calibration_failed(&mut self, message: &str, out: &mut Vec<Output>) {
        out.push(Output::Warn(format!("calibration: {message}")));
        if let Calibrating::Measuring(question) = self.calibrating {
            self.calibrating = Calibrating::Unasked;
            self.reply(question.command, Status::Calibrated(nothing_known(question.batch)), out);
        }
    }

    /// Begins to measure, or makes room for what comes first. Two trainers at once would time each other, and take the
    /// memory twice.
    pub(super) fn pump_calibration(&mut self, out: &mut Vec<Output>) {
        match self.calibrating {
            Calibrating::Waiting(question) if self.may_measure() => {
                if let Process::Idle { .. } = self.process {
                    self.process = Process::Absent;
                    out.push(Output::StopTrainer);
                }
                self.calibrating = Calibrating::Measuring(question);
                out.push(Output::Calibrate(question.batch));
            }
            Calibrating::Measuring(question) if !self.may_measure() => {
                self.calibrating = Calibrating::Waiting(question);
                out.push(Output::StopCalibration);
            }
            Calibrating::Unasked | Calibrating::Recalling(_) | Calibrating::Waiting(_) | Calibrating::Measuring(_) => {}
        }
    }

    fn may_measure(&self) -> bool {
        matches!(self.permit, Permit::Train { .. }) && matches!(self.work, Work::Idle | Work::Awaiting(_))
    }
}

fn nothing_known(batch: u32) -> BoardCalibration {
    BoardCalibration {
        libtorch: heapless::String::new(),
        kernel: heapless::String::new(),
        threads: 0,
        batch,
        megahertz: None,
        students: heapless::Vec::new(),
    }
}
