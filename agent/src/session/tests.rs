//! A session against a host, a disk and a trainer that do what they like.

#![allow(clippy::wildcard_enum_match_arm, reason = "an output that says nothing here is skipped")]

mod any_order;

use twin_shared::id::{DatasetVersion, JobId, ModelVersion, RoundId};
use twin_shared::model::{Architecture, Site};
use twin_shared::pipe::{Event, Outcome};
use twin_shared::plan::{Augmentation, Compression, EpochPlan, LabelKind, Method, Recipe};
use twin_shared::wire::{
    Assignment, BoardCalibration, Capabilities, Command, DatasetOffer, Order, Sparing, StudentCalibration,
    TrainedEpoch, VersionRange,
};

use super::*;
use crate::guard::Cause;
use crate::trainer::Death;

const JOB: JobId = JobId(7);
const BATCHES: u32 = 6;

fn blob(name: &str) -> BlobHash {
    BlobHash::of(name.as_bytes())
}

fn about() -> About {
    let dataset = DatasetVersion(blob("dataset").0);
    About {
        agent: heapless::String::try_from("1.0.0").expect("short"),
        capabilities: Capabilities {
            can_train: true,
            emulated: false,
            models: heapless::Vec::new(),
            memory_mib: 1024,
            cores: 4,
        },
        dataset: Some((DatasetOffer { version: dataset, bytes: 1, samples: 60 }, blob("dataset"))),
        duty: 0.5,
        stall: Duration::from_secs(600),
    }
}

/// Six mini-batches, two a block.
fn assignment(round: u32, base: BlobHash, site: Site) -> Assignment {
    Assignment {
        job: JOB,
        round: RoundId(round),
        architecture: Architecture::Vgg8,
        site,
        base,
        plan: EpochPlan {
            seed: 1,
            epoch: round,
            batch: 10,
            augmentation: Augmentation { crop_padding: 0, flip: false },
        },
        recipe: Recipe::student(4),
        method: Method::SimKd,
        labels: LabelKind::Vector,
        samples: 60,
        batches_per_block: 2,
        uplink_bits_per_second: 1_000_000,
        deadline_ms: 60_000,
    }
}

fn calibration() -> BoardCalibration {
    let vgg8 = StudentCalibration {
        architecture: Architecture::Vgg8,
        seconds_per_sample: 0.5,
        peak_memory_kib: 400 << 10,
        fits: true,
    };
    BoardCalibration {
        libtorch: heapless::String::try_from("2.9.0").expect("short"),
        kernel: heapless::String::try_from("6.6").expect("short"),
        threads: 4,
        batch: 64,
        megahertz: None,
        students: [vgg8].into_iter().collect(),
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn host(epoch: u64, online: bool) -> Input {
    let state = HostState { online, epoch, versions: VersionRange { oldest: 1, newest: 1 } };
    Input::Host { state, boot: BootId([u8::try_from(epoch % 256).expect("small"); 16]) }
}

fn order(id: u64, order: Order) -> Input {
    Input::Command(Command { id, order })
}

fn labels(round: u32, index: u32) -> Input {
    let name = format!("labels {round} {index}");
    Input::Received { blob: blob(&name), purpose: Purpose::Labels { job: JOB, round: RoundId(round), index } }
}

/// A session that is connected, served and permitted to train at full duty.
fn served() -> Session {
    let mut session = Session::new(about(), Memory::default());
    session.handle(secs(0), Input::Connected { sequence: 3 });
    session.handle(secs(0), host(1, true));
    session.handle(secs(0), Input::Permit(Permit::Train { duty: 1.0 }));
    session
}

fn replies(outputs: &[Output]) -> Vec<Status> {
    let reply = |output: &Output| match output {
        Output::Publish(Message::Reply(reply)) => Some(reply.status.clone()),
        _ => None,
    };
    outputs.iter().filter_map(reply).collect()
}

fn submitted(outputs: &[Output]) -> Option<(Ticket, bool)> {
    outputs.iter().find_map(|output| match output {
        Output::Submit { ticket, momentum, .. } => Some((*ticket, *momentum)),
        _ => None,
    })
}

fn grants(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Grant(_))).count()
}

fn stepped(ticket: Ticket, step: u32) -> Input {
    Input::Trainer(Event::Stepped { ticket, step, seconds: 2.0, loss: Some(1.0) })
}

fn done(ticket: Ticket, state: BlobHash) -> Input {
    let outcome = Outcome::Student { version: ModelVersion([0; 32]), hash: state, bytes: 1, loss: 0.5, samples: 60 };
    Input::Trainer(Event::Done { ticket, outcome })
}

/// Brings a served session to its first grant of round 0; returns the ticket.
fn training(session: &mut Session) -> Ticket {
    let base = blob("base");
    session.handle(secs(1), order(1, Order::Assign(assignment(0, base, Site::Local))));
    session.handle(secs(1), Input::Found { blob: base, held: true });
    let outputs = session.handle(secs(1), labels(0, 0));
    let (ticket, momentum) = submitted(&outputs).expect("base and first block are there");
    assert!(!momentum, "nothing was trained before");
    let outputs = session.handle(secs(2), Input::Trainer(Event::Accepted { ticket, steps: BATCHES }));
    assert_eq!(grants(&outputs), 1);
    ticket
}

#[test]
fn a_birth_follows_the_connection_and_carries_its_number() {
    let mut session = Session::new(about(), Memory::default());
    let outputs = session.handle(secs(0), Input::Connected { sequence: 9 });
    let [Output::Publish(Message::State(BoardState::Online(birth)))] = outputs.as_slice() else {
        panic!("{outputs:?}")
    };
    assert_eq!(birth.sequence, 9);
    let outputs = session.handle(secs(1), order(1, Order::Rebirth));
    assert!(matches!(&outputs[0], Output::Publish(Message::State(BoardState::Online(again))) if again == birth));
    assert_eq!(replies(&outputs), [Status::Done]);
}

#[test]
fn a_host_of_an_earlier_life_is_not_believed() {
    let mut session = Session::new(about(), Memory::default());
    session.handle(secs(0), Input::Connected { sequence: 1 });
    let outputs = session.handle(secs(0), host(5, true));
    assert!(outputs.contains(&Output::Adopt(BootId([5; 16]))) && session.is_served());
    let outputs = session.handle(secs(1), host(4, false));
    assert!(session.is_served() && matches!(outputs.as_slice(), [Output::Warn(_)]), "{outputs:?}");
    session.handle(secs(2), host(5, false));
    assert!(!session.is_served());
    session.handle(secs(3), host(6, true));
    assert!(session.is_served());
    let other = HostState { online: true, epoch: 6, versions: VersionRange { oldest: 8, newest: 9 } };
    session.handle(secs(4), Input::Host { state: other, boot: BootId([6; 16]) });
    assert!(!session.is_served(), "no common version");
}

#[test]
fn an_epoch_goes_from_assignment_to_proof() {
    let mut session = served();
    let ticket = training(&mut session);
    // A step of 2 s at half duty is followed by 2 s of rest.
    session.handle(secs(4), stepped(ticket, 1));
    assert_eq!(session.wake_at(), Some(secs(6)));
    assert_eq!(grants(&session.handle(secs(5), Input::Tick)), 0);
    assert_eq!(grants(&session.handle(secs(6), Input::Tick)), 1);
    // The third batch has no labels for 10 s, and a later block does not stand in.
    session.handle(secs(8), stepped(ticket, 2));
    assert_eq!(grants(&session.handle(secs(10), Input::Tick)), 0);
    assert_eq!(grants(&session.handle(secs(12), labels(0, 2))), 0);
    assert_eq!(grants(&session.handle(secs(20), labels(0, 1))), 1);
    for step in 3..BATCHES {
        session.handle(secs(20 + u64::from(step)), stepped(ticket, step));
        session.handle(secs(30 + u64::from(step)), Input::Tick);
    }
    session.handle(secs(52), stepped(ticket, BATCHES));
    let state = blob("state 0");
    let outputs = session.handle(secs(52), done(ticket, state));
    assert_eq!(outputs, [Output::Keep { ticket, job: JOB, round: RoundId(0) }]);
    let outputs = session.handle(secs(52), Input::Kept { ticket, kept: Ok(Kept { state, delta: None }) });
    let trained = TrainedEpoch {
        job: JOB,
        round: RoundId(0),
        state,
        samples: 60,
        loss: 0.5,
        training_ms: 50_000,
        starved_ms: 10_000,
    };
    assert!(matches!(&outputs[0], Output::Persist(memory) if memory.trained.is_some_and(|t| t.epoch == trained)));
    assert_eq!(replies(&outputs), [Status::Trained(trained)]);
    let purpose = Purpose::Student { job: JOB, round: RoundId(0) };
    assert_eq!(outputs.last(), Some(&Output::Send { blob: state, purpose }));
    session.handle(secs(53), Input::Sent { purpose });
    assert_eq!(session.activity(), Activity::Idle);

    // The host asks for proof, and the next epoch goes on with this one's momentum.
    let document = TwinDocument { version: 1, job: JOB, round: RoundId(0), state };
    assert_eq!(session.handle(secs(54), Input::Desired(document)), [Output::Rehash(document)]);
    let outputs = session.handle(secs(54), Input::Hashed { document, found: Some(state) });
    assert!(outputs.contains(&Output::Publish(Message::Reported(document))));
    assert!(
        matches!(outputs.last(), Some(Output::Collect(kept)) if kept.contains(&state) && kept.contains(&blob("dataset")))
    );
    session.handle(secs(55), order(2, Order::Assign(assignment(1, state, Site::Local))));
    session.handle(secs(55), Input::Found { blob: state, held: true });
    assert!(submitted(&session.handle(secs(56), labels(1, 0))).expect("submitted").1);
}

#[test]
fn a_document_waits_for_its_state() {
    let mut session = served();
    let state = blob("from the host");
    let document = TwinDocument { version: 4, job: JOB, round: RoundId(2), state };
    session.handle(secs(1), order(1, Order::Assign(assignment(2, blob("base"), Site::Host))));
    session.handle(secs(1), Input::Desired(document));
    assert!(session.handle(secs(1), Input::Hashed { document, found: None }).is_empty());
    let outputs = session
        .handle(secs(2), Input::Received { blob: state, purpose: Purpose::Student { job: JOB, round: RoundId(2) } });
    assert_eq!(replies(&outputs), [Status::Done]);
    assert_eq!(outputs.last(), Some(&Output::Rehash(document)));
    session.handle(secs(2), Input::Hashed { document, found: Some(state) });
    // Published again with the next connection, and an older document is refused.
    session.handle(secs(3), Input::Disconnected);
    let outputs = session.handle(secs(4), Input::Connected { sequence: 4 });
    assert_eq!(outputs.last(), Some(&Output::Publish(Message::Reported(document))));
    let older = TwinDocument { version: 3, ..document };
    assert!(matches!(session.handle(secs(5), Input::Desired(older)).as_slice(), [Output::Warn(_)]));
}

#[test]
fn a_damaged_state_is_reported_as_it_is() {
    let mut session = served();
    let document = TwinDocument { version: 1, job: JOB, round: RoundId(0), state: blob("right") };
    session.handle(secs(1), Input::Desired(document));
    let outputs = session.handle(secs(1), Input::Hashed { document, found: Some(blob("wrong")) });
    assert!(outputs.contains(&Output::Publish(Message::Reported(TwinDocument { state: blob("wrong"), ..document }))));
    let Some(Output::Collect(kept)) = outputs.last() else { panic!("{outputs:?}") };
    assert!(!kept.contains(&blob("right")));
}

#[test]
fn the_same_command_is_done_once_and_answered_again() {
    let mut session = served();
    let again = order(4, Order::SendDataset(DatasetVersion(blob("dataset").0)));
    let sends = |outputs: &[Output]| outputs.iter().filter(|output| matches!(output, Output::Send { .. })).count();
    let first = session.handle(secs(1), again.clone());
    assert_eq!((sends(&first), replies(&first)), (1, vec![Status::Accepted]));
    let second = session.handle(secs(2), again);
    assert_eq!((sends(&second), replies(&second)), (0, vec![Status::Accepted]));
    let outputs = session.handle(secs(3), order(5, Order::SendDataset(DatasetVersion([0; 32]))));
    assert!(matches!(replies(&outputs)[0], Status::Failed { code: FailureCode::Missing, .. }));
}

/// A host that begins again meets the dataset under way before it has asked for it, and refuses it; and its commands
/// have the numbers of those of its former life.
#[test]
fn a_dataset_that_a_new_life_of_the_host_refused_is_sent_when_it_asks() {
    let mut session = served();
    let version = DatasetVersion(blob("dataset").0);
    let send = || order(2, Order::SendDataset(version));
    let sent = Output::Send { blob: blob("dataset"), purpose: Purpose::Dataset(version) };
    assert!(session.handle(secs(1), send()).contains(&sent));
    session.handle(secs(2), host(2, true));
    let refused = Input::NotSent { purpose: Purpose::Dataset(version), why: Refusal::Unexpected };
    assert_eq!(replies(&session.handle(secs(3), refused)), Vec::new(), "the new life has asked for nothing yet");
    let outputs = session.handle(secs(3), send());
    assert!(outputs.contains(&sent), "{outputs:?}");
    assert_eq!(replies(&outputs), vec![Status::Accepted]);
}

/// What a former life of the host asked for is done and said, and is no answer to what the present one asks.
#[test]
fn an_answer_to_a_former_life_is_not_taken_for_one_to_the_present_life() {
    let mut session = served();
    let question = |id| order(id, Order::Calibrate { batch: 64 });
    session.handle(secs(1), question(1));
    session.handle(secs(2), host(2, true));
    let outputs = session.handle(secs(3), Input::Recalled(Some(calibration())));
    assert_eq!(replies(&outputs), vec![Status::Calibrated(calibration())]);
    let outputs = session.handle(secs(4), order(1, Order::SendDataset(DatasetVersion(blob("dataset").0))));
    assert_eq!(replies(&outputs), vec![Status::Accepted]);
}

/// What travels is the delta; where the host cannot read it, the state itself; where it is not wanted yet, nothing.
#[test]
fn a_trained_state_travels_as_it_was_agreed() {
    let (base, state, delta) = (blob("base"), blob("state"), blob("delta"));
    let epoch =
        TrainedEpoch { job: JOB, round: RoundId(0), state, samples: 60, loss: 0.5, training_ms: 1, starved_ms: 0 };
    let (trained, carrier) = (Some(TrainedHere { base, epoch }), Some((state, delta)));
    let memory = Memory { trained, carrier, ..Memory::default() };
    let mut session = Session::new(about(), memory);
    session.handle(secs(0), Input::Connected { sequence: 1 });
    session.handle(secs(0), host(1, true));
    let dataset = about().dataset.expect("it has one").0.version;
    let assign = |upload| Order::AssignOn {
        dataset,
        assignment: assignment(0, base, Site::Local),
        sparing: Sparing { compression: Compression::Int8, common: base, upload },
    };
    let sent = |outputs: &[Output]| {
        outputs.iter().find_map(|output| if let Output::Send { blob, .. } = output { Some(*blob) } else { None })
    };
    let outputs = session.handle(secs(1), order(1, assign(false)));
    assert_eq!((replies(&outputs), sent(&outputs)), (vec![Status::Trained(epoch)], None));
    let outputs = session.handle(secs(2), order(2, assign(true)));
    assert_eq!(sent(&outputs), Some(delta));
    let purpose = Purpose::Student { job: JOB, round: RoundId(0) };
    let outputs = session.handle(secs(3), Input::NotSent { purpose, why: Refusal::Base });
    assert_eq!(sent(&outputs), Some(state));
    // The state itself cannot be refused for that; if it is, it is given up.
    let outputs = session.handle(secs(4), Input::NotSent { purpose, why: Refusal::Base });
    assert_eq!(sent(&outputs), None);
}

#[test]
fn an_assignment_on_a_dataset_that_is_not_here_is_refused() {
    let mut session = Session::new(about(), Memory::default());
    session.handle(secs(0), Input::Connected { sequence: 1 });
    session.handle(secs(0), host(1, true));
    let base = blob("base");
    let wrong = Order::AssignOn {
        dataset: DatasetVersion([0xdd; 32]),
        assignment: assignment(0, base, Site::Local),
        sparing: Sparing::nothing(base),
    };
    let outputs = session.handle(secs(1), order(1, wrong));
    assert!(matches!(replies(&outputs)[0], Status::Failed { code: FailureCode::Missing, .. }));
}

#[test]
fn an_epoch_that_was_trained_is_handed_over_again_after_a_restart() {
    let (base, state) = (blob("base"), blob("state"));
    let epoch =
        TrainedEpoch { job: JOB, round: RoundId(0), state, samples: 60, loss: 0.5, training_ms: 1, starved_ms: 0 };
    let memory = Memory { trained: Some(TrainedHere { base, epoch }), ..Memory::default() };
    let mut session = Session::new(about(), memory);
    session.handle(secs(0), Input::Connected { sequence: 1 });
    session.handle(secs(0), host(1, true));
    let outputs = session.handle(secs(1), order(1, Order::Assign(assignment(0, base, Site::Local))));
    assert_eq!(replies(&outputs), [Status::Trained(epoch)]);
    assert!(matches!(outputs.last(), Some(Output::Send { blob, .. }) if *blob == state));
    // From another base it is another epoch.
    let outputs = session.handle(secs(2), order(2, Order::Assign(assignment(0, blob("other"), Site::Local))));
    assert_eq!(replies(&outputs), [Status::Accepted]);
}

#[test]
fn a_pause_takes_no_step_and_loses_none() {
    let mut session = served();
    let ticket = training(&mut session);
    session.handle(secs(3), Input::Permit(Permit::Wait(Cause::Inhibited)));
    assert_eq!(session.activity(), Activity::Paused { round: RoundId(0) });
    session.handle(secs(4), stepped(ticket, 1));
    assert_eq!(grants(&session.handle(secs(100), Input::Tick)), 0);
    assert_eq!(session.wake_at(), None, "only the guard's word changes anything");
    assert_eq!(grants(&session.handle(secs(200), Input::Permit(Permit::Train { duty: 1.0 }))), 1);
}

#[test]
fn a_trainer_that_dies_hangs_or_is_missing_is_told_by_its_cause() {
    let failure = |outputs: &[Output]| match replies(outputs).as_slice() {
        [Status::Failed { code, message }] => (*code, message.as_str().to_owned()),
        other => panic!("{other:?}"),
    };
    let mut session = served();
    training(&mut session);
    let died = session.handle(secs(3), Input::TrainerDied(Death::OutOfMemory));
    assert_eq!(failure(&died), (FailureCode::TrainerDied, Death::OutOfMemory.to_string()));

    let mut session = served();
    training(&mut session);
    assert_eq!(session.wake_at(), Some(secs(602)));
    let hangs = session.handle(secs(602), Input::Tick);
    assert!(hangs.contains(&Output::KillTrainer));
    assert_eq!(failure(&hangs).0, FailureCode::TrainerDied);

    let mut session = served();
    training(&mut session);
    let missing = session.handle(secs(3), Input::NoTrainer("no such file".to_owned()));
    assert_eq!(failure(&missing).0, FailureCode::NoTrainer);
    // The agent goes on: the host trains, and the state is taken.
    let outputs = session.handle(secs(4), order(2, Order::Assign(assignment(0, blob("base"), Site::Host))));
    assert_eq!(replies(&outputs), [Status::Accepted]);
}

#[test]
fn a_student_that_kills_its_trainer_is_marked_and_one_that_was_ended_is_not() {
    let marks = |outputs: &[Output]| {
        let unfit = |output: &&Output| matches!(output, Output::Unfit { architecture: Architecture::Vgg8, batch: 10, why } if !why.is_empty());
        outputs.iter().filter(unfit).count()
    };
    for (death, marked) in [
        (Death::OutOfMemory, 1),
        (Death::OverLimit { held: 2 << 20, allowed: 1 << 20 }, 1),
        (Death::Signal(11), 1),
        (Death::Signal(15), 0),
    ] {
        let mut session = served();
        training(&mut session);
        assert_eq!(marks(&session.handle(secs(3), Input::TrainerDied(death.clone()))), marked, "{death}");
    }
    let mut session = served();
    let ticket = training(&mut session);
    let message = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte".to_owned();
    let outputs = session.handle(secs(3), Input::Trainer(Event::Failed { ticket, message }));
    assert_eq!(marks(&outputs), 1);
    // What the mark changes is told unasked.
    let outputs = session.handle(secs(4), Input::Calibrated(calibration()));
    assert_eq!(replies(&outputs), [Status::Calibrated(calibration())]);
}

#[test]
fn an_epoch_that_was_saved_goes_on_in_the_next_life_without_a_host() {
    let mut session = served();
    let ticket = training(&mut session);
    session.handle(secs(4), stepped(ticket, 1));
    let outputs = session.handle(secs(5), Input::Ending);
    assert_eq!(outputs, [Output::Save(ticket)]);
    assert!(session.is_saving());
    assert_eq!(grants(&session.handle(secs(6), Input::Tick)), 0, "no further step");
    session.handle(secs(7), Input::Trainer(Event::Saved { ticket }));
    assert!(!session.is_saving());

    let mut next = Session::new(about(), session.memory.clone());
    let outputs = next.handle(secs(0), Input::Begun);
    assert!(outputs.contains(&Output::Look(blob("base"))), "{outputs:?}");
    let (job, round) = (JOB, RoundId(0));
    assert_eq!(outputs.last(), Some(&Output::RecallLabels { job, round }));
    next.handle(secs(0), Input::Permit(Permit::Train { duty: 1.0 }));
    next.handle(secs(0), Input::Found { blob: blob("base"), held: true });
    let blocks = (0..3).map(|index| (index, blob("labels"))).collect();
    let outputs = next.handle(secs(1), Input::LabelsAtHand { job, round, blocks });
    let (ticket, _) = submitted(&outputs).expect("all is there");
    // Two of six steps were done: the trainer has four left.
    next.handle(secs(2), Input::Trainer(Event::Accepted { ticket, steps: BATCHES - 2 }));
    next.handle(secs(3), stepped(ticket, 1));
    let outputs = next.handle(secs(4), order(9, Order::Rebirth));
    assert!(replies(&outputs).is_empty(), "nobody is there");
    let done = |session: &Session| match session.activity() {
        Activity::Training { done, .. } => done.value(),
        other => panic!("{other:?}"),
    };
    assert!((done(&next) - 0.5).abs() < 1e-3, "three of six");
    // The host comes, says the same again, and nothing begins anew.
    next.handle(secs(5), Input::Connected { sequence: 4 });
    next.handle(secs(5), host(1, true));
    let outputs = next.handle(secs(6), order(3, Order::Assign(assignment(0, blob("base"), Site::Local))));
    assert_eq!(replies(&outputs), [Status::Accepted]);
    assert!(submitted(&outputs).is_none() && (done(&next) - 0.5).abs() < 1e-3);
}

#[test]
fn an_epoch_that_is_over_is_not_begun_again() {
    for end in [order(2, Order::Stop(JOB)), Input::TrainerDied(Death::OutOfMemory)] {
        let mut session = served();
        training(&mut session);
        assert!(session.memory.assigned.is_some());
        session.handle(secs(3), end);
        let mut next = Session::new(about(), session.memory.clone());
        assert!(next.handle(secs(0), Input::Begun).is_empty());
    }
}

#[test]
fn the_host_hears_what_training_takes_when_it_is_known() {
    let ask = |id| order(id, Order::Calibrate { batch: 64 });
    // Known before: told at once.
    let mut session = served();
    let outputs = session.handle(secs(1), ask(1));
    assert!(outputs.contains(&Output::RecallCalibration(64)));
    let outputs = session.handle(secs(1), Input::Recalled(Some(calibration())));
    assert_eq!(replies(&outputs), [Status::Calibrated(calibration())]);

    // A machine that plays this board measures only where it is told to by its owner.
    let mut session = served();
    session.about.capabilities.emulated = true;
    session.handle(secs(1), ask(1));
    let outputs = session.handle(secs(1), Input::Recalled(None));
    assert!(matches!(replies(&outputs).as_slice(), [Status::Calibrated(nothing)] if nothing.students.is_empty()));

    // Not known, and nothing else to do: measured.
    let mut session = served();
    session.handle(secs(1), ask(1));
    let outputs = session.handle(secs(1), Input::Recalled(None));
    assert!(outputs.contains(&Output::Calibrate(64)) && replies(&outputs).is_empty(), "{outputs:?}");
    // What the guard forbids waits, and begins again.
    let outputs = session.handle(secs(2), Input::Permit(Permit::Wait(Cause::Inhibited)));
    assert_eq!(outputs, [Output::StopCalibration]);
    let outputs = session.handle(secs(3), Input::Permit(Permit::Train { duty: 1.0 }));
    assert_eq!(outputs, [Output::Calibrate(64)]);
    // An epoch comes first.
    let outputs = session.handle(secs(4), order(2, Order::Assign(assignment(0, blob("base"), Site::Local))));
    assert!(outputs.contains(&Output::StopCalibration), "{outputs:?}");
    session.handle(secs(5), order(3, Order::Stop(JOB)));
    let outputs = session.handle(secs(6), Input::Calibrated(calibration()));
    assert_eq!(replies(&outputs), [Status::Calibrated(calibration())]);

    // While it has to wait the host is not kept waiting.
    let mut session = served();
    session.handle(secs(1), Input::Permit(Permit::Wait(Cause::OutsideWindows)));
    session.handle(secs(1), ask(1));
    let outputs = session.handle(secs(1), Input::Recalled(None));
    assert!(matches!(replies(&outputs).as_slice(), [Status::Calibrated(nothing)] if nothing.students.is_empty()));
    assert_eq!(session.handle(secs(9), Input::Permit(Permit::Train { duty: 1.0 })), [Output::Calibrate(64)]);
    let outputs = session.handle(secs(10), Input::CalibrationFailed("no trainer".to_owned()));
    assert!(matches!(replies(&outputs).as_slice(), [Status::Calibrated(nothing)] if nothing.students.is_empty()));
}

#[test]
fn a_stopped_job_is_forgotten_and_an_idle_trainer_ends() {
    let mut session = served();
    let ticket = training(&mut session);
    let outputs = session.handle(secs(10), order(2, Order::Stop(JOB)));
    assert!(outputs.contains(&Output::Cancel(ticket)) && outputs.contains(&Output::Abandon { but: None }));
    assert_eq!(session.wake_at(), Some(secs(70)));
    assert!(session.handle(secs(69), Input::Tick).is_empty());
    assert_eq!(session.handle(secs(70), Input::Tick), [Output::StopTrainer]);
    assert_eq!(session.wake_at(), None);
}

#[test]
fn only_what_the_assignment_needs_is_taken() {
    let mut session = served();
    let base = blob("base");
    let offer = |purpose, blob| Manifest { blob, size: 1, chunk: 1 << 14, purpose };
    let (job, round) = (JOB, RoundId(0));
    let wanted = Purpose::Base { job, round };
    assert!(session.limit(&offer(wanted, base)).is_err(), "nothing is assigned");
    session.handle(secs(1), order(1, Order::Assign(assignment(0, base, Site::Local))));
    assert_eq!(session.limit(&offer(wanted, base)), Ok(MAX_STATE));
    assert_eq!(session.limit(&offer(Purpose::Labels { job, round, index: 2 }, blob("x"))), Ok(MAX_LABELS));
    for purpose in [
        Purpose::Labels { job, round, index: 3 },
        Purpose::Labels { job, round: RoundId(1), index: 0 },
        Purpose::Student { job, round },
        Purpose::Dataset(DatasetVersion([0; 32])),
    ] {
        assert_eq!(session.limit(&offer(purpose, blob("x"))), Err(Refusal::Unexpected), "{purpose:?}");
    }
    assert!(session.limit(&offer(wanted, blob("another"))).is_err());
    session.handle(secs(2), order(2, Order::Assign(assignment(0, base, Site::Host))));
    assert_eq!(session.limit(&offer(Purpose::Student { job, round }, blob("x"))), Ok(MAX_STATE));
    assert!(session.limit(&offer(wanted, base)).is_err());
}

fn offer(name: &str) -> (DatasetOffer, BlobHash) {
    let blob = blob(name);
    (DatasetOffer { version: DatasetVersion(blob.0), bytes: 1, samples: 60 }, blob)
}

#[test]
fn a_changed_dataset_is_told_by_a_birth_and_an_epoch_keeps_its_version() {
    let mut session = served();
    let first = DatasetVersion(blob("dataset").0);
    let (second, second_blob) = offer("second");
    let told = session.handle(secs(1), Input::Dataset { offer: second, blob: second_blob, earlier: vec![first] });
    let births = |outputs: &[Output]| {
        let birth = |output: &&Output| matches!(output, Output::Publish(Message::State(BoardState::Online(birth))) if birth.dataset == Some(second));
        outputs.iter().filter(birth).count()
    };
    assert_eq!(births(&told), 1);
    let again = session.handle(secs(1), Input::Dataset { offer: second, blob: second_blob, earlier: vec![first] });
    assert_eq!(births(&again), 0);
    let assigned = |session: &mut Session, id, dataset| {
        let assignment = assignment(0, blob("base"), Site::Local);
        let sparing = twin_shared::wire::Sparing::nothing(assignment.base);
        session.handle(secs(2), order(id, Order::AssignOn { dataset, assignment, sparing }))
    };
    let gone = assigned(&mut session, 1, DatasetVersion([8; 32]));
    assert!(matches!(replies(&gone)[..], [Status::Failed { code: FailureCode::Missing, .. }]));
    assert_eq!(replies(&assigned(&mut session, 2, first)), [Status::Accepted]);
    session.handle(
        secs(2),
        Input::Received { blob: blob("base"), purpose: Purpose::Base { job: JOB, round: RoundId(0) } },
    );
    let submitted = session.handle(secs(2), labels(0, 0));
    let on = submitted.iter().find_map(|output| match output {
        Output::Submit { dataset, .. } => Some(*dataset),
        _ => None,
    });
    assert_eq!(on, Some(first));
    let third = offer("third");
    session.handle(secs(3), Input::Dataset { offer: third.0, blob: third.1, earlier: vec![] });
    assert!(session.needed().contains(&blob("dataset")), "the epoch's own version stays");
}

#[test]
fn what_changed_is_sent_once_and_an_unknown_version_is_refused() {
    let mut session = served();
    let to = DatasetVersion(blob("dataset").0);
    let from = DatasetVersion([1; 32]);
    let asked = session.handle(secs(1), order(1, Order::SendDelta { from, to }));
    assert_eq!(replies(&asked), [Status::Accepted]);
    assert!(asked.contains(&Output::SendDelta { from, to }));
    let sent = session.handle(secs(2), Input::Sent { purpose: Purpose::DatasetDelta { from, to } });
    assert_eq!(replies(&sent), [Status::Done]);
    session.handle(secs(3), order(3, Order::SendDelta { from, to }));
    let purpose = Purpose::DatasetDelta { from, to };
    let whole = session.handle(secs(3), Input::NotSent { purpose, why: Refusal::Base });
    assert!(whole.contains(&Output::Send { blob: blob("dataset"), purpose: Purpose::Dataset(to) }), "{whole:?}");
    let refused = session.handle(secs(3), order(2, Order::SendDelta { from: to, to: from }));
    assert!(matches!(replies(&refused)[..], [Status::Failed { code: FailureCode::Missing, .. }]));
}

#[test]
fn a_model_is_active_once_it_is_kept() {
    let mut session = served();
    let version = ModelVersion([4; 32]);
    let model = twin_shared::wire::ModelOffer { version, job: JOB, bundle: blob("bundle"), bytes: 9 };
    let asked = session.handle(secs(1), order(1, Order::Activate(model)));
    assert_eq!(asked, [Output::Activate(version)]);
    let waits = session.handle(secs(1), Input::Activated { version, result: Ok(Activation::Absent) });
    assert_eq!(replies(&waits), [Status::Accepted]);
    let purpose = Purpose::Model { version };
    let came = session.handle(secs(2), Input::Received { blob: blob("bundle"), purpose });
    assert_eq!(came, [Output::Install { version, blob: blob("bundle") }]);
    let kept = session.handle(secs(2), Input::Installed { version, result: Ok(()) });
    assert_eq!(kept, [Output::Activate(version)]);
    let done = session.handle(secs(2), Input::Activated { version, result: Ok(Activation::Switched) });
    assert_eq!(replies(&done), [Status::Done]);
    // A model that comes without being wanted is kept, and that is all.
    let other = ModelVersion([5; 32]);
    assert!(session.handle(secs(3), Input::Installed { version: other, result: Ok(()) }).is_empty());
    session.handle(secs(3), order(2, Order::Activate(twin_shared::wire::ModelOffer { version: other, ..model })));
    let failed = session.handle(secs(3), Input::Activated { version: other, result: Err("full".into()) });
    assert!(matches!(replies(&failed)[..], [Status::Failed { code: FailureCode::Storage, .. }]));
    // The owner, on the board, went back from what the host wants: the operator hears of it.
    session.handle(secs(4), order(3, Order::Activate(model)));
    let declined = session.handle(secs(4), Input::Activated { version, result: Ok(Activation::Declined) });
    assert!(matches!(replies(&declined)[..], [Status::Failed { code: FailureCode::Inhibited, .. }]));
    assert!(declined.iter().any(|output| matches!(output, Output::Warn(text) if text.contains("went back"))));
}

#[test]
fn a_list_of_classes_is_followed() {
    let mut session = served();
    let purpose = Purpose::Classes { version: 3 };
    let manifest = Manifest { blob: blob("classes"), size: 10, chunk: 1024, purpose };
    assert_eq!(session.limit(&manifest), Ok(MAX_CLASSES));
    let came = session.handle(secs(1), Input::Received { blob: blob("classes"), purpose });
    assert_eq!(came, [Output::TakeClasses(blob("classes"))]);
    let purpose = Purpose::WaitingLabels;
    assert_eq!(session.limit(&Manifest { purpose, ..manifest }), Ok(MAX_WAITING_LABELS));
    assert_eq!(session.limit(&Manifest { purpose: Purpose::Waiting, ..manifest }), Err(Refusal::Unexpected));
    let came = session.handle(secs(2), Input::Received { blob: blob("labels"), purpose });
    assert_eq!(came, [Output::TakeLabels(blob("labels"))]);
}
