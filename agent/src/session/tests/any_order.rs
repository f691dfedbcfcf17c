//! Whatever happens, in whatever order: promises hold.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What may happen to a board, in any order.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Connect,
    Lose,
    Host(u64, bool),
    Assign {
        id: u64,
        round: u32,
        site: Site,
    },
    Stop(u64),
    Base(u32),
    Labels(u32, u32),
    Student(u32),
    Desired(u64, u32),
    Permit(bool),
    Trainer,
    TrainerDies,
    Sent(u32),
    Calibrate(u64),
    Calibrated,
    /// The agent is told to end, its trainer saves perhaps, and a new life begins.
    End,
    /// The power goes.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let site = prop_oneof![4 => Just(Site::Local), 1 => Just(Site::Host)];
    prop_oneof![
        3 => (0u64..20).prop_map(Step::Wait),
        2 => Just(Step::Connect),
        1 => Just(Step::Lose),
        2 => (1u64..4, any::<bool>()).prop_map(|(epoch, online)| Step::Host(epoch, online)),
        4 => (0u64..30, 0u32..3, site).prop_map(|(id, round, site)| Step::Assign { id, round, site }),
        1 => (30u64..40).prop_map(Step::Stop),
        4 => (0u32..3).prop_map(Step::Base),
        8 => (0u32..3, 0u32..4).prop_map(|(round, index)| Step::Labels(round, index)),
        2 => (0u32..3).prop_map(Step::Student),
        2 => (0u64..5, 0u32..3).prop_map(|(version, round)| Step::Desired(version, round)),
        2 => any::<bool>().prop_map(Step::Permit),
        16 => Just(Step::Trainer),
        1 => Just(Step::TrainerDies),
        2 => (0u32..3).prop_map(Step::Sent),
        1 => (40u64..50).prop_map(Step::Calibrate),
        2 => Just(Step::Calibrated),
        1 => Just(Step::End),
        1 => Just(Step::Restart),
    ]
}

/// A board around the session: its disk, and a trainer whose every epoch ends in a state never seen before.
struct Board {
    session: Session,
    stored: Memory,
    disk: BTreeSet<BlobHash>,
    blocks: BTreeSet<(u32, u32)>,
    now: Duration,
    births: u64,
    /// Ticket, steps done, steps granted, and the epoch's assignment.
    job: Option<(Ticket, u32, u32, Assignment)>,
    accepted: bool,
    /// Steps that an earlier life of the trainer did of its job.
    begun: u32,
    /// Steps of an epoch that were saved, by its round and base.
    saved: Option<(u32, BlobHash, u32)>,
    calibrating: bool,
    made: u64,
    results: BTreeMap<(u32, BlobHash), BlobHash>,
}

fn base_of(round: u32) -> BlobHash {
    blob(&format!("base {round}"))
}

impl Board {
    fn new() -> Self {
        Self {
            session: Session::new(about(), Memory::default()),
            stored: Memory::default(),
            disk: BTreeSet::new(),
            blocks: BTreeSet::new(),
            now: Duration::ZERO,
            births: 0,
            job: None,
            accepted: false,
            begun: 0,
            saved: None,
            calibrating: false,
            made: 0,
            results: BTreeMap::new(),
        }
    }

    fn tell(&mut self, input: Input) -> Result<(), TestCaseError> {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.session.handle(self.now, input) {
                if let Some(input) = self.perform(output)? {
                    inputs.push(input);
                }
            }
        }
        Ok(())
    }

    fn perform(&mut self, output: Output) -> Result<Option<Input>, TestCaseError> {
        match output {
            Output::Persist(memory) => self.stored = memory,
            Output::Look(blob) => return Ok(Some(Input::Found { blob, held: self.disk.contains(&blob) })),
            Output::Rehash(document) => {
                let found = self.disk.contains(&document.state).then_some(document.state);
                return Ok(Some(Input::Hashed { document, found }));
            }
            Output::Prepare { .. } => self.blocks.clear(),
            Output::PlaceLabels { round, index, .. } => {
                self.blocks.insert((round.0, index));
            }
            Output::Submit { ticket, assignment, .. } => {
                prop_assert!(self.job.is_none(), "one job at a time");
                prop_assert!(!self.calibrating, "two trainers at once");
                prop_assert!(self.disk.contains(&assignment.base), "trains without its base");
                let here = (assignment.round.0, assignment.base);
                let saved =
                    self.saved.filter(|(round, base, _)| (*round, *base) == here).map_or(0, |(.., steps)| steps);
                self.job = Some((ticket, saved, saved, *assignment));
                self.accepted = false;
            }
            Output::Grant(ticket) => {
                let Some((ours, done, granted, assignment)) = &mut self.job else {
                    return Err(TestCaseError::fail("a grant without a job"));
                };
                prop_assert_eq!(*ours, ticket);
                prop_assert_eq!(*done, *granted, "one step at a time");
                prop_assert!(*granted < BATCHES);
                prop_assert!(self.blocks.contains(&(assignment.round.0, *granted / 2)), "a step without labels");
                *granted += 1;
            }
            Output::Cancel(ticket) => {
                prop_assert_eq!(self.job.take().map(|(ours, ..)| ours), Some(ticket));
            }
            Output::RecallLabels { job, round } => {
                let blocks = self.blocks.iter().filter(|(of, _)| *of == round.0);
                let blocks = blocks.map(|(of, index)| (*index, blob(&format!("labels {of} {index}")))).collect();
                return Ok(Some(Input::LabelsAtHand { job, round, blocks }));
            }
            Output::Save(ticket) => {
                let Some((ours, done, granted, assignment)) = &mut self.job else {
                    return Err(TestCaseError::fail("a job that is not there is saved"));
                };
                prop_assert_eq!(*ours, ticket);
                // The step in progress is done first.
                *done = *granted;
                self.saved = Some((assignment.round.0, assignment.base, *done));
                self.job = None;
                return Ok(Some(Input::Trainer(Event::Saved { ticket })));
            }
            Output::RecallCalibration(_) => return Ok(Some(Input::Recalled(None))),
            Output::Calibrate(_) => {
                prop_assert!(self.job.is_none() && !self.calibrating, "two trainers at once");
                self.calibrating = true;
            }
            Output::StopCalibration => {
                prop_assert!(self.calibrating);
                self.calibrating = false;
            }
            Output::Unfit { .. } => {}
            Output::KillTrainer => self.job = None,
            Output::StopTrainer => prop_assert!(self.job.is_none(), "a busy trainer is not idle"),
            Output::Keep { ticket, .. } => {
                let state = blob(&format!("state {}", self.made));
                self.disk.insert(state);
                return Ok(Some(Input::Kept { ticket, kept: Ok(Kept { state, delta: None }) }));
            }
            Output::Collect(needed) => self.disk.retain(|blob| needed.contains(blob)),
            Output::Publish(Message::Reply(Reply { status: Status::Trained(epoch), .. })) => {
                let trained = self.stored.trained.filter(|trained| trained.epoch == epoch);
                let Some(trained) = trained else { return Err(TestCaseError::fail("told before it is stored")) };
                prop_assert!(self.disk.contains(&epoch.state), "a trained state that is not kept");
                let first = *self.results.entry((epoch.round.0, trained.base)).or_insert(epoch.state);
                // Trained anew only where another epoch was trained in between and took its place.
                self.results.retain(|key, _| *key == (epoch.round.0, trained.base));
                prop_assert_eq!(first, epoch.state);
            }
            Output::Publish(Message::Reported(document)) => prop_assert!(self.births > 0 && document.version < 5),
            Output::Publish(_)
            | Output::Adopt(_)
            | Output::Send { .. }
            | Output::SendDelta { .. }
            | Output::TakeClasses(_)
            | Output::TakeLabels(_)
            | Output::Install { .. }
            | Output::Activate(_)
            | Output::Abandon { .. }
            | Output::Pace(_)
            | Output::Warn(_) => {}
        }
        Ok(None)
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        let id = |round| (JOB, RoundId(round));
        match step {
            Step::Wait(seconds) => {
                self.now += secs(seconds);
                self.tell(Input::Tick)
            }
            Step::Connect => {
                self.births += 1;
                self.tell(Input::Connected { sequence: self.births })
            }
            Step::Lose => self.tell(Input::Disconnected),
            Step::Host(epoch, online) => self.tell(host(epoch, online)),
            Step::Assign { id, round, site } => {
                self.tell(order(id, Order::Assign(assignment(round, base_of(round), site))))
            }
            Step::Stop(id) => self.tell(order(id, Order::Stop(JOB))),
            Step::Base(round) => {
                let (job, number) = id(round);
                let manifest = Manifest {
                    blob: base_of(round),
                    size: 1,
                    chunk: 1 << 14,
                    purpose: Purpose::Base { job, round: number },
                };
                if self.session.limit(&manifest).is_err() {
                    return Ok(());
                }
                self.disk.insert(base_of(round));
                self.tell(Input::Received { blob: base_of(round), purpose: manifest.purpose })
            }
            Step::Labels(round, index) => self.tell(labels(round, index)),
            Step::Student(round) => {
                let (job, number) = id(round);
                let state = blob(&format!("student {round}"));
                self.disk.insert(state);
                self.tell(Input::Received { blob: state, purpose: Purpose::Student { job, round: number } })
            }
            Step::Desired(version, round) => {
                let (job, number) = id(round);
                let state = blob(&format!("student {round}"));
                self.tell(Input::Desired(TwinDocument { version, job, round: number, state }))
            }
            Step::Permit(true) => self.tell(Input::Permit(Permit::Train { duty: 1.0 })),
            Step::Permit(false) => self.tell(Input::Permit(Permit::Wait(Cause::Paused))),
            Step::Trainer => self.trainer(),
            Step::TrainerDies => {
                self.job = None;
                self.tell(Input::TrainerDied(Death::Signal(11)))
            }
            Step::Sent(round) => {
                let (job, number) = id(round);
                self.tell(Input::Sent { purpose: Purpose::Student { job, round: number } })
            }
            Step::Calibrate(id) => self.tell(order(id, Order::Calibrate { batch: 10 })),
            Step::Calibrated if self.calibrating => {
                self.calibrating = false;
                self.tell(Input::Calibrated(calibration()))
            }
            Step::Calibrated => Ok(()),
            Step::End => {
                // A job that was not accepted yet has done nothing.
                if self.accepted || self.job.is_none() {
                    self.tell(Input::Ending)?;
                }
                self.take(Step::Restart)
            }
            Step::Restart => {
                (self.job, self.calibrating) = (None, false);
                self.session = Session::new(about(), self.stored.clone());
                self.tell(Input::Begun)
            }
        }
    }

    /// The trainer takes its next step, if it may.
    fn trainer(&mut self) -> Result<(), TestCaseError> {
        let Some((ticket, done_steps, granted, _)) = &mut self.job else { return Ok(()) };
        let ticket = *ticket;
        if !self.accepted {
            self.accepted = true;
            let steps = BATCHES - *done_steps;
            self.begun = *done_steps;
            return self.tell(Input::Trainer(Event::Accepted { ticket, steps }));
        }
        if *done_steps == BATCHES {
            self.job = None;
            self.made += 1;
            let state = blob(&format!("state {}", self.made));
            return self.tell(done(ticket, state));
        }
        if *done_steps == *granted {
            return Ok(());
        }
        *done_steps += 1;
        let step = *done_steps - self.begun;
        self.tell(Input::Trainer(Event::Stepped { ticket, step, seconds: 0.1, loss: None }))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_that_happens_breaks_a_promise(steps in proptest::collection::vec(step(), 1..300)) {
        let mut board = Board::new();
        for step in steps {
            board.take(step)?;
        }
    }

    /// However often it is disturbed, an epoch whose parts all come is trained and told.
    #[test]
    fn an_undisturbed_end_trains_the_epoch(steps in proptest::collection::vec(step(), 0..100)) {
        let mut board = Board::new();
        for step in steps {
            board.take(step)?;
        }
        board.take(Step::Connect)?;
        board.take(Step::Host(9, true))?;
        board.take(Step::Permit(true))?;
        board.take(Step::Assign { id: 99, round: 2, site: Site::Local })?;
        board.take(Step::Base(2))?;
        for index in 0..3 {
            board.take(Step::Labels(2, index))?;
        }
        for _ in 0..2 * BATCHES + 4 {
            board.take(Step::Trainer)?;
            board.take(Step::Wait(1))?;
        }
        let trained = board.stored.trained.map(|trained| (trained.epoch.round, trained.base));
        prop_assert_eq!(trained, Some((RoundId(2), base_of(2))));
    }
}
