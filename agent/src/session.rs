//! What the board does about the host's orders: connect, answer, receive, train, hand over, prove.
//!
//! PURE: [`Session::handle`] takes the clock and an [`Input`], and returns [`Output`]s to be done in order. Two things
//! run side by side, because training goes on while nobody can be reached: the link, and the work.

mod calibrating;
mod holdings;
mod message;
mod orders;
mod training;
mod work;

use std::collections::VecDeque;
use std::time::Duration;

use twin_shared::id::{BlobHash, BootId, DatasetVersion, ModelVersion};
use twin_shared::pipe::Ticket;
use twin_shared::wire::telemetry::Activity;
use twin_shared::wire::telemetry::quantity::Fraction;
use twin_shared::wire::{
    Birth, BoardState, FailureCode, HostState, Manifest, Purpose, Refusal, Reply, Status, TwinDocument, WIRE_VERSIONS,
};

use crate::guard::Permit;
use calibrating::Calibrating;
use holdings::blob_of;
pub use message::{About, Activation, Input, Kept, Memory, Message, Output, TrainedHere};
use work::{Epoch, Stage, Work};

/// Largest student state and block of labels that are taken, bytes.
const MAX_STATE: u64 = 512 << 20;
const MAX_LABELS: u64 = 16 << 20;
const MAX_WAITING_LABELS: u64 = twin_data::waiting::MAX_LABELS;
const MAX_CLASSES: u64 = twin_data::classes::MAX_JSON as u64;
const MAX_MODEL: u64 = twin_data::bundle::MAX_BYTES;

/// Commands whose answers are remembered, in case they come again.
const ANSWERS: usize = 32;

/// The command of a reply that no command of this life, of the board's or the host's, asked for.
const UNASKED: u64 = 0;

/// How the host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// No broker.
    Offline,
    /// A broker, and no host behind it; the connection's birth.
    Alone { sequence: u64 },
    /// The host serves.
    Served { sequence: u64 },
}

/// The trainer's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    Absent,
    Busy,
    Idle { since: Duration },
}

/// The state of one board's agent.
#[derive(Debug)]
pub struct Session {
    about: About,
    memory: Memory,
    link: Link,
    host: Option<BootId>,
    work: Work,
    process: Process,
    permit: Permit,
    /// A document that waits for its state to be hashed, or to arrive.
    wanted: Option<TwinDocument>,
    answers: VecDeque<(u64, Status)>,
    /// The command that asked for the dataset.
    dataset_command: Option<u64>,
    calibrating: Calibrating,
    /// Versions of the dataset before the present one that are still on disk.
    earlier: Vec<DatasetVersion>,
    /// The command that asked for a model which is not kept here yet.
    activating: Option<(u64, ModelVersion)>,
    next_ticket: u32,
    last_progress: Duration,
}

impl Session {
    /// A session that goes on from an earlier life's memory. Training waits for the guard's first word.
    #[must_use]
    pub fn new(about: About, memory: Memory) -> Self {
        Self {
            about,
            memory,
            link: Link::Offline,
            host: None,
            work: Work::Idle,
            process: Process::Absent,
            permit: Permit::Wait(crate::guard::Cause::Paused),
            wanted: None,
            answers: VecDeque::new(),
            dataset_command: None,
            calibrating: Calibrating::Unasked,
            earlier: Vec::new(),
            activating: None,
            next_ticket: 0,
            last_progress: Duration::ZERO,
        }
    }

    /// Takes what happened, and says what to do about it.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.take(now, input, &mut out);
        self.pump(now, &mut out);
        out
    }

    /// Whether the host is there: blobs and fresh telemetry go out only then.
    #[must_use]
    pub const fn is_served(&self) -> bool {
        matches!(self.link, Link::Served { .. })
    }

    /// The birth of the present connection.
    #[must_use]
    pub const fn connection(&self) -> Option<u64> {
        match self.link {
            Link::Offline => None,
            Link::Alone { sequence } | Link::Served { sequence } => Some(sequence),
        }
    }

    /// The longest that a blob of this manifest may be, or why it is not wanted: only what the present assignment
    /// needs is.
    ///
    /// # Errors
    /// [`Refusal::Unexpected`].
    pub fn limit(&self, manifest: &Manifest) -> Result<u64, Refusal> {
        let limit = match manifest.purpose {
            Purpose::Dataset(_)
            | Purpose::DatasetDelta { .. }
            | Purpose::Telemetry
            | Purpose::Waiting
            | Purpose::Probe(_) => None,
            // The host's alone to send, and small.
            Purpose::Classes { .. } => Some(MAX_CLASSES),
            Purpose::WaitingLabels => Some(MAX_WAITING_LABELS),
            Purpose::Model { .. } => Some(MAX_MODEL),
            Purpose::Base { job, round } => self
                .work
                .local()
                .filter(|(epoch, _)| (epoch.job(), epoch.round(), epoch.assignment.base) == (job, round, manifest.blob))
                .map(|_| MAX_STATE),
            Purpose::Labels { job, round, index } => self
                .work
                .local()
                .filter(|(epoch, _)| (epoch.job(), epoch.round()) == (job, round) && index < epoch.blocks())
                .map(|_| MAX_LABELS),
            Purpose::Student { job, round } => {
                let awaited =
                    matches!(&self.work, Work::Awaiting(epoch) if (epoch.job(), epoch.round()) == (job, round));
                awaited.then_some(MAX_STATE)
            }
        };
        limit.ok_or(Refusal::Unexpected)
    }

    /// What the board is about, for telemetry.
    #[must_use]
    pub fn activity(&self) -> Activity {
        match &self.work {
            Work::Idle => Activity::Idle,
            Work::Awaiting(_) | Work::Receiving(_) => Activity::Receiving,
            Work::Training(training) => {
                let round = training.epoch.round();
                match (self.permit, training.stage) {
                    (Permit::Wait(_), _) => Activity::Paused { round },
                    (Permit::Train { .. }, Stage::Preparing { .. }) => {
                        Activity::Training { round, done: Fraction::of(0.0) }
                    }
                    (Permit::Train { .. }, Stage::Stepping(stepping) | Stage::Saving(stepping)) => {
                        let done = f64::from(stepping.done) / f64::from(stepping.steps.max(1));
                        Activity::Training { round, done: Fraction::of(done) }
                    }
                }
            }
            Work::Keeping(_) | Work::Uploading(_) => Activity::Uploading,
        }
    }

    fn take(&mut self, now: Duration, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Begun => self.on_begun(out),
            Input::Connected { sequence } => {
                self.link = Link::Alone { sequence };
                self.publish_birth(out);
                if let Some(document) = self.memory.reported {
                    self.publish(Message::Reported(document), out);
                }
            }
            Input::Disconnected => self.link = Link::Offline,
            Input::Host { state, boot } => self.on_host(state, boot, out),
            Input::Desired(document) => self.on_desired(document, out),
            Input::Command(command) => self.on_command(now, command, out),
            Input::Received { blob, purpose } => self.on_received(blob, purpose, out),
            Input::Sent { purpose } => self.on_sent(purpose, out),
            Input::NotSent { purpose, why } => self.on_not_sent(purpose, why, out),
            Input::Found { blob, held } => {
                if let Work::Receiving(receiving) = &mut self.work
                    && receiving.epoch.assignment.base == blob
                {
                    receiving.has_base |= held;
                }
            }
            Input::LabelsAtHand { job, round, blocks } => self.on_labels_at_hand(job, round, blocks),
            Input::Hashed { document, found } => self.on_hashed(&document, found, out),
            Input::Kept { ticket, kept } => self.on_kept(now, ticket, kept, out),
            Input::Dataset { offer, blob, earlier } => self.on_dataset(offer, blob, earlier, out),
            Input::Installed { version, result } => self.on_installed(version, result, out),
            Input::Activated { version, result } => self.on_activated(version, result, out),
            Input::StorageFailed(message) => {
                out.push(Output::Warn(message.clone()));
                self.fail(now, FailureCode::Storage, &message, out);
            }
            Input::Permit(permit) => self.permit = permit,
            Input::Trainer(event) => self.on_trainer(now, event, out),
            Input::NoTrainer(message) => {
                self.process = Process::Absent;
                self.fail(now, FailureCode::NoTrainer, &message, out);
            }
            Input::TrainerDied(death) => self.on_trainer_died(&death, out),
            Input::Recalled(known) => self.on_recalled(known, out),
            Input::Calibrated(known) => self.on_calibrated(known, out),
            Input::CalibrationFailed(message) => self.on_calibration_failed(&message, out),
            Input::Ending => self.on_ending(out),
            Input::Tick => {}
        }
    }

    fn on_host(&mut self, state: HostState, boot: BootId, out: &mut Vec<Output>) {
        let sequence = match self.link {
            Link::Offline => return,
            Link::Alone { sequence } | Link::Served { sequence } => sequence,
        };
        if state.epoch < self.memory.host_epoch {
            out.push(Output::Warn(format!(
                "a state of the host's life {} is stale: {} was seen",
                state.epoch, self.memory.host_epoch
            )));
            return;
        }
        if state.epoch > self.memory.host_epoch {
            self.memory.host_epoch = state.epoch;
            out.push(Output::Persist(self.memory.clone()));
        }
        if self.host != Some(boot) {
            self.host = Some(boot);
            self.forget_commands();
            out.push(Output::Adopt(boot));
        }
        self.link = match (state.online, WIRE_VERSIONS.common(state.versions)) {
            (true, Some(_)) => Link::Served { sequence },
            (true, None) => {
                out.push(Output::Warn(format!(
                    "the host speaks wire versions {} to {}, this board {} to {}",
                    state.versions.oldest, state.versions.newest, WIRE_VERSIONS.oldest, WIRE_VERSIONS.newest
                )));
                Link::Alone { sequence }
            }
            (false, _) => Link::Alone { sequence },
        };
    }

    /// The host begins anew, and numbers its commands from the start: what is still to be answered was asked by
    /// nobody of its present life, lest an answer to an old command be taken for that to a new one of the same number.
    fn forget_commands(&mut self) {
        self.answers.clear();
        self.dataset_command = None;
        self.calibrating.disown();
        if let Some((command, _)) = &mut self.activating {
            *command = UNASKED;
        }
        if let Some(epoch) = self.work.epoch_mut() {
            epoch.command = UNASKED;
        }
    }

    fn on_desired(&mut self, document: TwinDocument, out: &mut Vec<Output>) {
        let newest = self.wanted.or(self.memory.reported).map_or(0, |known| known.version);
        if document.version < newest {
            out.push(Output::Warn(format!("twin document {} is older than {newest}", document.version)));
            return;
        }
        self.wanted = Some(document);
        out.push(Output::Rehash(document));
    }

    fn on_hashed(&mut self, document: &TwinDocument, found: Option<BlobHash>, out: &mut Vec<Output>) {
        if self.wanted != Some(*document) {
            return;
        }
        // Without the state there is nothing to say yet: it is hashed again when it comes.
        let Some(found) = found else { return };
        self.wanted = None;
        self.memory.reported = Some(TwinDocument { state: found, ..*document });
        if found == document.state {
            let confirmed = &mut self.memory.confirmed;
            confirmed.retain(|known| *known != found);
            if confirmed.is_full() {
                confirmed.remove(0);
            }
            confirmed.push(found).expect("room was made");
        } else {
            out.push(Output::Warn(format!("the state on disk is {found:.12}, not {:.12}", document.state)));
        }
        out.push(Output::Persist(self.memory.clone()));
        self.publish(Message::Reported(TwinDocument { state: found, ..*document }), out);
        out.push(Output::Collect(self.needed()));
    }

    /// Blobs that must stay.
    fn needed(&self) -> Vec<BlobHash> {
        let mut needed: Vec<BlobHash> = self.memory.confirmed.iter().copied().collect();
        needed.extend(self.about.dataset.map(|(_, blob)| blob));
        needed
            .extend(self.earlier.iter().chain(self.work.epoch().and_then(|epoch| epoch.dataset.as_ref())).map(blob_of));
        needed.extend(self.memory.trained.map(|trained| trained.epoch.state));
        needed.extend(self.memory.carrier.map(|(_, carrier)| carrier));
        needed.extend(self.work.epoch().map(|epoch| epoch.assignment.base));
        needed.extend(self.work.epoch().map(|epoch| epoch.sparing.common));
        needed.extend(self.wanted.map(|document| document.state));
        needed.extend(self.work.local().into_iter().flat_map(|(_, blocks)| blocks.hashes()));
        needed
    }

    fn on_received(&mut self, blob: BlobHash, purpose: Purpose, out: &mut Vec<Output>) {
        match purpose {
            Purpose::Base { .. } => {
                if let Work::Receiving(receiving) = &mut self.work
                    && receiving.epoch.assignment.base == blob
                {
                    receiving.has_base = true;
                }
            }
            Purpose::Labels { job, round, index } => {
                let ours = self.work.epoch().is_some_and(|epoch| (epoch.job(), epoch.round()) == (job, round));
                if ours && let Some(blocks) = self.work.blocks_mut() {
                    blocks.insert(index, blob);
                    out.push(Output::PlaceLabels { job, round, index, blob });
                }
            }
            Purpose::Student { job, round } => {
                if let Work::Awaiting(epoch) = &self.work
                    && (epoch.job(), epoch.round()) == (job, round)
                {
                    let command = epoch.command;
                    self.work = Work::Idle;
                    self.reply(command, Status::Done, out);
                }
            }
            Purpose::Classes { .. } => out.push(Output::TakeClasses(blob)),
            Purpose::WaitingLabels => out.push(Output::TakeLabels(blob)),
            Purpose::Model { version } => out.push(Output::Install { version, blob }),
            Purpose::Dataset(_)
            | Purpose::DatasetDelta { .. }
            | Purpose::Telemetry
            | Purpose::Waiting
            | Purpose::Probe(_) => {}
        }
        if let Some(document) = self.wanted.filter(|document| document.state == blob) {
            out.push(Output::Rehash(document));
        }
    }

    fn on_sent(&mut self, purpose: Purpose, out: &mut Vec<Output>) {
        match purpose {
            Purpose::Dataset(_) | Purpose::DatasetDelta { .. } => {
                if let Some(command) = self.dataset_command.take() {
                    self.reply(command, Status::Done, out);
                }
            }
            Purpose::Student { job, round } => {
                if let Work::Uploading(epoch) = &self.work
                    && (epoch.job(), epoch.round()) == (job, round)
                {
                    self.work = Work::Idle;
                }
            }
            Purpose::Base { .. }
            | Purpose::Labels { .. }
            | Purpose::Classes { .. }
            | Purpose::Model { .. }
            | Purpose::Telemetry
            | Purpose::Waiting
            | Purpose::WaitingLabels
            | Purpose::Probe(_) => {}
        }
    }

    fn on_not_sent(&mut self, purpose: Purpose, why: Refusal, out: &mut Vec<Output>) {
        out.push(Output::Warn(format!("the host refuses {purpose:?}: {why:?}")));
        match purpose {
            // The twin cannot make the version of what it has: it gets the dataset whole.
            Purpose::DatasetDelta { to, .. } if why == Refusal::Base => {
                out.push(Output::Send { blob: blob_of(&to), purpose: Purpose::Dataset(to) });
            }
            Purpose::Dataset(_) | Purpose::DatasetDelta { .. } => {
                if let Some(command) = self.dataset_command.take() {
                    self.reply(command, failed(FailureCode::Transfer, "the host refuses the dataset"), out);
                }
            }
            Purpose::Student { job, round } => {
                let Work::Uploading(epoch) = &self.work else { return };
                if (epoch.job(), epoch.round()) != (job, round) {
                    return;
                }
                let trained =
                    self.memory.trained.filter(|trained| (trained.epoch.job, trained.epoch.round) == (job, round));
                match (why, trained) {
                    // The host cannot read the difference: it gets the state whole.
                    (Refusal::Base, Some(trained)) if self.memory.carrier.take().is_some() => {
                        out.push(Output::Persist(self.memory.clone()));
                        out.push(Output::Send { blob: trained.epoch.state, purpose });
                    }
                    (_, _) => self.work = Work::Idle,
                }
            }
            Purpose::Base { .. }
            | Purpose::Labels { .. }
            | Purpose::Classes { .. }
            | Purpose::Model { .. }
            | Purpose::Telemetry
            | Purpose::Waiting
            | Purpose::WaitingLabels
            | Purpose::Probe(_) => {}
        }
    }

    /// Forgets the work in progress; the trainer too.
    fn drop_work(&mut self, now: Duration, out: &mut Vec<Output>) {
        if let Work::Training(training) = std::mem::replace(&mut self.work, Work::Idle) {
            out.push(Output::Cancel(training.ticket));
            self.process = Process::Idle { since: now };
        }
    }

    /// The assignment cannot be done.
    fn fail(&mut self, now: Duration, code: FailureCode, message: &str, out: &mut Vec<Output>) {
        if let Some(&Epoch { command, .. }) = self.work.epoch() {
            self.drop_work(now, out);
            self.remember_assigned(None, out);
            self.reply(command, failed(code, message), out);
        }
    }

    fn publish_birth(&self, out: &mut Vec<Output>) {
        if let Some(sequence) = self.connection() {
            let birth = Birth {
                sequence,
                versions: WIRE_VERSIONS,
                agent: self.about.agent.clone(),
                capabilities: self.about.capabilities.clone(),
                dataset: self.about.dataset.map(|(offer, _)| offer),
            };
            out.push(Output::Publish(Message::State(BoardState::Online(birth))));
        }
    }

    /// Publishes where there is a broker; the host asks again for what is lost otherwise.
    fn publish(&self, message: Message, out: &mut Vec<Output>) {
        if self.link != Link::Offline {
            out.push(Output::Publish(message));
        }
    }

    fn reply(&mut self, command: u64, status: Status, out: &mut Vec<Output>) {
        if command != UNASKED {
            self.answers.retain(|(known, _)| *known != command);
            if self.answers.len() >= ANSWERS {
                self.answers.pop_front();
            }
            self.answers.push_back((command, status.clone()));
        }
        self.publish(Message::Reply(Reply { command, status }), out);
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket = self.next_ticket.wrapping_add(1);
        Ticket(self.next_ticket)
    }
}

/// A failure's status; a longer message is cut.
fn failed(code: FailureCode, message: &str) -> Status {
    let mut text = heapless::String::new();
    for character in message.chars() {
        if text.push(character).is_err() {
            break;
        }
    }
    Status::Failed { code, message: text }
}

#[cfg(test)]
mod tests;
