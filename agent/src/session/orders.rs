//! The host's orders.

use std::time::Duration;

use twin_shared::id::{BlobHash, JobId, RoundId};
use twin_shared::model::Site;
use twin_shared::wire::{Assignment, Command, FailureCode, Order, Purpose, Reply, Sparing, Status};

use super::message::{Message, Output};
use super::work::{Blocks, Epoch, Receiving, Work, flaw};
use super::{Session, UNASKED, failed};

impl Session {
    pub(super) fn on_command(&mut self, now: Duration, command: Command, out: &mut Vec<Output>) {
        let id = command.id;
        if let Some((_, status)) = self.answers.iter().find(|(known, _)| *known == id) {
            let status = status.clone();
            self.publish(Message::Reply(Reply { command: id, status }), out);
            return;
        }
        match command.order {
            Order::Rebirth => {
                self.publish_birth(out);
                self.reply(id, Status::Done, out);
            }
            Order::SendDataset(version) => match self.about.dataset {
                Some((offer, blob)) if offer.version == version => {
                    self.dataset_command = Some(id);
                    self.reply(id, Status::Accepted, out);
                    out.push(Output::Send { blob, purpose: Purpose::Dataset(version) });
                }
                Some((offer, _)) => {
                    let message = format!("the dataset here is {:.12}, not {version:.12}", offer.version);
                    self.reply(id, failed(FailureCode::Missing, &message), out);
                }
                None => self.reply(id, failed(FailureCode::Missing, "no dataset here"), out),
            },
            Order::SendDelta { from, to } => self.on_send_delta(id, from, to, out),
            Order::Assign(assignment) => {
                let dataset = self.about.dataset.map(|(offer, _)| offer.version);
                let epoch = Epoch { command: id, assignment, sparing: Sparing::nothing(assignment.base), dataset };
                self.on_assign(now, epoch, out);
            }
            Order::AssignOn { dataset, assignment, sparing } => {
                let epoch = Epoch { command: id, assignment, sparing, dataset: Some(dataset) };
                self.on_assign(now, epoch, out);
            }
            Order::Activate(offer) => self.on_activate(id, offer, out),
            Order::Stop(job) => {
                if self.work.epoch().is_some_and(|epoch| epoch.job() == job) {
                    self.drop_work(now, out);
                    self.remember_assigned(None, out);
                    out.push(Output::Abandon { but: None });
                    out.push(Output::Pace(0));
                }
                self.reply(id, Status::Done, out);
            }
            Order::Calibrate { batch } => self.on_calibrate(id, batch, out),
        }
    }

    fn on_assign(&mut self, now: Duration, epoch: Epoch, out: &mut Vec<Output>) {
        let Epoch { command: id, assignment, sparing, dataset } = epoch;
        if let Some(flaw) = flaw(&assignment) {
            self.reply(id, failed(FailureCode::TrainerFailed, &flaw), out);
            return;
        }
        if assignment.site == Site::Local
            && let Err(message) = self.require_dataset(dataset)
        {
            self.reply(id, failed(FailureCode::Missing, &message), out);
            return;
        }
        out.push(Output::Pace(assignment.uplink_bits_per_second));
        let trained = self.memory.trained.filter(|trained| {
            let here = (trained.epoch.job, trained.epoch.round, trained.base);
            assignment.site == Site::Local && here == (assignment.job, assignment.round, assignment.base)
        });
        if let Some(trained) = trained {
            self.drop_work(now, out);
            self.remember_assigned(None, out);
            self.hand_over(epoch, &trained, out);
            return;
        }
        if let Some(known) = self.work.epoch_mut().filter(|known| known.is(&assignment)) {
            *known = epoch;
            self.reply(id, Status::Accepted, out);
            return;
        }
        self.drop_work(now, out);
        self.memory.assigned_on = dataset;
        self.remember_assigned((assignment.site == Site::Local).then_some((assignment, sparing)), out);
        let (job, round) = (assignment.job, assignment.round);
        out.push(Output::Abandon { but: Some((job, round)) });
        out.push(Output::Prepare { job, round, common: sparing.common });
        self.work = match assignment.site {
            Site::Local => Work::Receiving(Receiving { epoch, has_base: false, blocks: Blocks::default() }),
            Site::Host => Work::Awaiting(epoch),
        };
        self.reply(id, Status::Accepted, out);
        if assignment.site == Site::Local {
            out.push(Output::Look(assignment.base));
        }
    }

    /// Writes down which epoch is to be trained here, so that a restart goes on with it, host or no host.
    pub(super) fn remember_assigned(&mut self, assigned: Option<(Assignment, Sparing)>, out: &mut Vec<Output>) {
        let (assigned, sparing) = assigned.unzip();
        if (self.memory.assigned, self.memory.sparing) != (assigned, sparing) {
            (self.memory.assigned, self.memory.sparing) = (assigned, sparing);
            out.push(Output::Persist(self.memory.clone()));
        }
    }

    /// Goes on with the epoch that an earlier life was assigned, with what of it is on disk. The host says the same
    /// again when it is there.
    pub(super) fn on_begun(&mut self, out: &mut Vec<Output>) {
        let Some(assignment) = self.memory.assigned.filter(|_| self.about.dataset.is_some()) else { return };
        let dataset = self.memory.assigned_on;
        let (job, round) = (assignment.job, assignment.round);
        let sparing = self.memory.sparing.unwrap_or(Sparing::nothing(assignment.base));
        let epoch = Epoch { command: UNASKED, assignment, sparing, dataset };
        self.work = Work::Receiving(Receiving { epoch, has_base: false, blocks: Blocks::default() });
        out.push(Output::Pace(assignment.uplink_bits_per_second));
        out.push(Output::Look(assignment.base));
        out.push(Output::RecallLabels { job, round });
    }

    pub(super) fn on_labels_at_hand(&mut self, job: JobId, round: RoundId, found: Vec<(u32, BlobHash)>) {
        if let Work::Receiving(Receiving { epoch, blocks, .. }) = &mut self.work
            && (epoch.job(), epoch.round()) == (job, round)
        {
            found.into_iter().for_each(|(index, blob)| blocks.insert(index, blob));
        }
    }
}
