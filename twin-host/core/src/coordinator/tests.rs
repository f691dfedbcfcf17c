//! Whole jobs with boards and trainer played by the test, well-behaved and not.

mod kept_blobs;

use std::collections::VecDeque;

use proptest::prelude::*;
use twin_shared::id::DatasetVersion;
use twin_shared::pipe::Outcome;
use twin_shared::units::{BitsPerSecond, Gigahertz, Hertz, Seconds};
use twin_shared::wire::{
    Birth, Capabilities, DatasetOffer, FailureCode, Reply, Sparing, Status, TrainedEpoch, TwinDocument, WIRE_VERSIONS,
};

use super::*;

const EPOCHS: u32 = 3;

fn device(name: &str) -> DeviceId {
    name.parse().expect("valid")
}

fn spec() -> JobSpec {
    JobSpec {
        job: JobId(1),
        seed: 1,
        method: Method::SimKd,
        labels: LabelKind::Vector,
        recipe: Recipe::student(EPOCHS),
        batch: 64,
        batches_per_block: 4,
        compression: Compression::None,
        sync_every: SyncEvery::EPOCH,
        metered: BTreeSet::new(),
        augmentation: Augmentation { crop_padding: 4, flip: false },
        patience: Duration::from_secs(100),
        deadline_factor: 5.0,
        decide_every: Duration::from_secs(1000),
        score_every: 0,
    }
}

fn strangers(devices: &[DeviceId]) -> BTreeMap<DeviceId, Twin> {
    devices.iter().map(|device| (device.clone(), Twin::new(None, 0))).collect()
}

fn allotment(site: Site) -> Allotment {
    Allotment {
        architecture: Architecture::Vgg8,
        site,
        frequency: Gigahertz(1.0),
        bandwidth: Hertz(1e6),
        rate: BitsPerSecond(4e6),
        predicted: PredictedDelay { pipelined: Seconds(10.0), ..PredictedDelay::default() },
    }
}

fn birth(sequence: u64, can_train: bool) -> Birth {
    Birth {
        sequence,
        versions: WIRE_VERSIONS,
        agent: "0.1.0".try_into().expect("short"),
        capabilities: Capabilities {
            can_train,
            emulated: true,
            models: heapless::Vec::new(),
            memory_mib: 512,
            cores: 1,
        },
        dataset: Some(DatasetOffer { version: DatasetVersion([1; 32]), bytes: 100, samples: 10 }),
    }
}

/// What a board of the test does with its epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Temper {
    Honest,
    /// Its trainer dies at this epoch.
    Unfit(u32),
    /// It vanishes at this epoch and never returns.
    Dies(u32),
    /// It reports another state than it holds.
    Lies(u32),
    /// It goes silent at this epoch without a will.
    Hangs(u32),
}

struct Fleet {
    coordinator: Coordinator,
    tempers: BTreeMap<DeviceId, Temper>,
    sites: BTreeMap<DeviceId, Site>,
    gone: Vec<DeviceId>,
    inbox: VecDeque<Input>,
    records: Vec<RoundRecord>,
    /// States sent to boards, and epochs whose state was not exchanged.
    sent: usize,
    kept: Vec<u32>,
    /// What the host's tasks were told of sparing.
    spared: Vec<Option<Sparing>>,
    offloaded: usize,
    teachers: usize,
    end: Option<Output>,
    now: Duration,
}

impl Fleet {
    fn new(boards: &[(Temper, Site)]) -> Self {
        Self::sparing(boards, Compression::None, SyncEvery::EPOCH)
    }

    fn sparing(boards: &[(Temper, Site)], compression: Compression, sync_every: SyncEvery) -> Self {
        let names: Vec<DeviceId> = (0..boards.len()).map(|k| device(&format!("board{k}"))).collect();
        let spec = JobSpec { compression, sync_every, ..spec() };
        let mut fleet = Self {
            coordinator: Coordinator::new(spec, strangers(&names), Duration::ZERO),
            tempers: names.iter().cloned().zip(boards.iter().map(|board| board.0)).collect(),
            sites: names.iter().cloned().zip(boards.iter().map(|board| board.1)).collect(),
            gone: Vec::new(),
            inbox: VecDeque::new(),
            records: Vec::new(),
            sent: 0,
            kept: Vec::new(),
            spared: Vec::new(),
            offloaded: 0,
            teachers: 0,
            end: None,
            now: Duration::ZERO,
        };
        for name in names {
            fleet.inbox.push_back(Input::Board(name, BoardInput::Online(birth(1, true))));
        }
        fleet
    }

    fn board(&mut self, device: &DeviceId, input: BoardInput) {
        if !self.gone.contains(device) {
            self.inbox.push_back(Input::Board(device.clone(), input));
        }
    }

    fn on_assignment(&mut self, device: &DeviceId, assignment: &twin_shared::wire::Assignment, sparing: &Sparing) {
        let round = assignment.round;
        let vanish = |fleet: &mut Self, with_will: bool| {
            if with_will {
                fleet.board(device, BoardInput::Offline { sequence: 1 });
            }
            fleet.gone.push(device.clone());
        };
        match self.tempers[device] {
            Temper::Dies(at) if at == round.0 => return vanish(self, true),
            Temper::Hangs(at) if at == round.0 => return vanish(self, false),
            Temper::Unfit(at) if at == round.0 && assignment.site == Site::Local => {
                let status = Status::Failed {
                    code: FailureCode::TrainerDied,
                    message: "out of memory".try_into().expect("short"),
                };
                return self.board(device, BoardInput::Reply(Reply { command: 1, status }));
            }
            Temper::Honest | Temper::Unfit(_) | Temper::Dies(_) | Temper::Lies(_) | Temper::Hangs(_) => {}
        }
        if assignment.site == Site::Local {
            let state = next_state(&assignment.base);
            let trained = TrainedEpoch {
                job: assignment.job,
                round,
                state,
                samples: 10,
                loss: 0.5,
                training_ms: 900,
                starved_ms: 100,
            };
            self.board(device, BoardInput::Reply(Reply { command: 1, status: Status::Trained(trained) }));
            if sparing.upload {
                let purpose = Purpose::Student { job: assignment.job, round };
                self.board(device, BoardInput::Received { purpose, blob: state });
            }
        }
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Command(device, Order::SendDataset(version) | Order::SendDelta { to: version, .. }) => {
                let purpose = Purpose::Dataset(version);
                self.board(&device, BoardInput::Received { purpose, blob: BlobHash([5; 32]) });
            }
            Output::Command(device, Order::Assign(assignment)) => {
                self.on_assignment(&device, &assignment, &Sparing::nothing(assignment.base));
            }
            Output::Command(device, Order::AssignOn { assignment, sparing, .. }) => {
                self.on_assignment(&device, &assignment, &sparing);
            }
            Output::Command(_, Order::Rebirth | Order::Stop(_) | Order::Calibrate { .. } | Order::Activate(_))
            | Output::Share(..)
            | Output::Forget(..) => {}
            Output::Desired(device, document) => {
                let lies = self.tempers[&device] == Temper::Lies(document.round.0);
                let state = if lies { BlobHash([0xee; 32]) } else { document.state };
                self.board(&device, BoardInput::Reported(TwinDocument { state, ..document }));
            }
            Output::Send(device, _, purpose) => {
                if matches!(purpose, Purpose::Student { .. }) {
                    self.sent += 1;
                    self.board(&device, BoardInput::Sent { purpose });
                }
            }
            Output::Run(task) => {
                let done = |outcome| TaskEvent::Done(outcome);
                let student = |hash| Outcome::Student {
                    version: twin_shared::id::ModelVersion([0; 32]),
                    hash,
                    bytes: 10,
                    loss: 0.5,
                    samples: 10,
                };
                if let Task::Epoch { sparing, .. } = &task {
                    self.spared.push(*sparing);
                }
                let event = match &task {
                    Task::Count { .. } => done(Outcome::Counts { train: 10, held: 1, labels: vec![5, 5] }),
                    Task::Teacher { .. } => {
                        self.teachers += 1;
                        done(Outcome::Weights { hash: BlobHash([2; 32]), loss: 0.1 })
                    }
                    Task::Init { .. } => done(student(BlobHash([3; 32]))),
                    Task::Labels { .. } => done(Outcome::Labels { blocks: 0 }),
                    Task::Epoch { base, .. } => done(student(next_state(base))),
                    Task::Score { .. } => {
                        let full_top1 = twin_shared::pipe::Score { correct: 1, total: 1 };
                        done(Outcome::Evaluation(twin_shared::pipe::Evaluation { full_top1, ..Default::default() }))
                    }
                };
                self.inbox.push_back(Input::Task(task, event));
            }
            Output::Cancel(_) | Output::Learnt(_) => {}
            Output::Decide => {
                let allotments = self.sites.iter().map(|(device, site)| (device.clone(), allotment(*site)));
                self.inbox.push_back(Input::Decided(allotments.collect()));
            }
            Output::Note(Note::Round(record)) => self.records.push(*record),
            Output::Note(Note::Offloaded { .. }) => self.offloaded += 1,
            Output::Note(Note::Kept { round, .. }) => self.kept.push(round.0),
            Output::Note(_) => {}
            end @ (Output::Finished | Output::Failed(_)) => self.end = Some(end),
        }
    }

    fn step(&mut self) {
        let input = self.inbox.pop_front().unwrap_or(Input::Tick);
        self.now += Duration::from_millis(100);
        for output in self.coordinator.handle(self.now, input) {
            self.on_output(output);
        }
    }

    fn run(&mut self) {
        for _ in 0..100_000 {
            if self.end.is_some() {
                return;
            }
            self.step();
        }
        panic!("the job never ended: {:?}", self.coordinator);
    }

    /// The host is killed, what was written down is read back, and the boards that are there connect again. What the
    /// trainer had told and what boards had sent and heard no word of is lost.
    fn kill_and_restart(&mut self, births: u64) {
        let job = self.coordinator.progress().expect("not over");
        let members = self.coordinator.members().iter().map(|(device, member)| {
            let written = serde_json::to_string(&member.progress()).expect("plain data");
            let twin = Twin::new(member.twin.dataset().cloned(), member.twin.document());
            (device.clone(), (twin, Some(serde_json::from_str(&written).expect("what was written"))))
        });
        let spec = self.coordinator.spec().clone();
        let (coordinator, outputs) = Coordinator::resume(spec, job, members.collect(), self.now);
        self.coordinator = coordinator;
        self.inbox.clear();
        for output in outputs {
            self.on_output(output);
        }
        for name in self.tempers.keys().cloned().collect::<Vec<_>>() {
            self.board(&name, BoardInput::Online(birth(births, true)));
        }
    }

    fn rounds_of(&self, name: &str) -> Vec<u32> {
        self.records.iter().filter(|record| record.device == device(name)).map(|record| record.round.0).collect()
    }
}

impl Fleet {
    fn last_state(&self, name: &str) -> Option<BlobHash> {
        self.records.iter().rfind(|record| record.device == device(name)).map(|record| record.state)
    }
}

/// A state that stands for one more epoch.
fn next_state(base: &BlobHash) -> BlobHash {
    BlobHash::of(&base.0)
}

#[test]
fn every_epoch_is_done_on_both_sites() {
    let mut fleet = Fleet::new(&[(Temper::Honest, Site::Local), (Temper::Honest, Site::Host)]);
    fleet.run();
    assert_eq!(fleet.end, Some(Output::Finished));
    assert_eq!((fleet.rounds_of("board0"), fleet.rounds_of("board1")), (vec![0, 1, 2], vec![0, 1, 2]));
    let states: Vec<_> = fleet.records.iter().filter(|record| record.round.0 == 2).map(|record| record.state).collect();
    assert_eq!(states[0], states[1], "both sites start from the same base and train alike here");
}

#[test]
fn a_state_that_is_not_exchanged_stays_where_it_is() {
    let two = SyncEvery::Epochs(2.try_into().expect("not 0"));
    for (site, every, rounds) in [
        (Site::Local, two, vec![1, 2]),
        (Site::Host, two, vec![1, 2]),
        (Site::Local, SyncEvery::Final, vec![2]),
        (Site::Host, SyncEvery::Final, vec![2]),
    ] {
        let mut fleet = Fleet::sparing(&[(Temper::Honest, site)], Compression::None, every);
        fleet.run();
        assert_eq!(fleet.end, Some(Output::Finished));
        assert_eq!(fleet.rounds_of("board0"), rounds, "{site} {every:?}");
        assert_eq!(fleet.kept.len() + rounds.len(), EPOCHS as usize);
        assert_eq!(fleet.sent, if site == Site::Host { rounds.len() } else { 0 });
        let mut state = BlobHash([3; 32]);
        (0..EPOCHS).for_each(|_| state = next_state(&state));
        assert_eq!(fleet.records.last().map(|record| record.state), Some(state), "no epoch is lost");
    }
}

#[test]
fn epochs_that_only_the_board_held_are_trained_again_when_it_fails() {
    let mut fleet = Fleet::sparing(&[(Temper::Unfit(2), Site::Local)], Compression::None, SyncEvery::Final);
    fleet.run();
    assert_eq!((fleet.end.clone(), fleet.rounds_of("board0")), (Some(Output::Finished), vec![2]));
    assert_eq!(fleet.kept, [0, 1, 0, 1], "twice on the board, and again on the host");
    assert_eq!(fleet.records[0].site, Site::Host);
}

#[test]
fn the_first_state_goes_whole_and_later_ones_as_differences_to_what_both_hold() {
    let mut fleet = Fleet::sparing(&[(Temper::Honest, Site::Host)], Compression::Int8, SyncEvery::EPOCH);
    fleet.run();
    let common: Vec<_> = fleet.spared.iter().map(|sparing| sparing.map(|sparing| sparing.common)).collect();
    let states: Vec<_> = fleet.records.iter().map(|record| record.state).collect();
    assert_eq!(common, [None, Some(states[0]), Some(states[1])]);
}

/// Where the job says nothing a metered board is spared what can be.
#[test]
fn a_metered_board_is_asked_for_its_last_state_only() {
    let name = device("board0");
    for (compression, sync_every, expected) in [
        (Compression::None, SyncEvery::EPOCH, (Compression::Int8, SyncEvery::Final)),
        (Compression::Bf16, SyncEvery::EPOCH, (Compression::Bf16, SyncEvery::Final)),
        (Compression::None, SyncEvery::Final, (Compression::Int8, SyncEvery::Final)),
    ] {
        let metered = BTreeSet::from([name.clone()]);
        let spec = JobSpec { compression, sync_every, metered, ..spec() };
        assert_eq!((spec.compression(&name), spec.sync_every(&name)), expected);
        assert_eq!((spec.compression(&device("other")), spec.sync_every(&device("other"))), (compression, sync_every));
    }
}

/// A board of the version before is asked for nothing that it does not know.
#[test]
fn a_board_of_the_version_before_is_spared_nothing() {
    for site in [Site::Local, Site::Host] {
        let mut fleet = Fleet::sparing(&[(Temper::Honest, site)], Compression::Int8, SyncEvery::Final);
        let versions = twin_shared::wire::VersionRange { oldest: 1, newest: 1 };
        fleet.inbox.clear();
        fleet.board(&device("board0"), BoardInput::Online(Birth { versions, ..birth(1, true) }));
        fleet.run();
        assert_eq!((fleet.rounds_of("board0"), fleet.kept.len()), (vec![0, 1, 2], 0));
        assert!(fleet.spared.iter().all(Option::is_none));
    }
}

/// What the board cannot read is sent again, as long as it waits for it.
#[test]
fn a_state_that_cannot_be_read_is_sent_again() {
    let mut fleet = Fleet::new(&[(Temper::Honest, Site::Host)]);
    let purpose = Purpose::Student { job: JobId(1), round: RoundId(0) };
    while fleet.sent == 0 {
        let input = fleet.inbox.pop_front().unwrap_or(Input::Tick);
        for output in fleet.coordinator.handle(fleet.now, input) {
            fleet.on_output(output);
        }
    }
    let refused = |why| Input::Board(device("board0"), BoardInput::BlobRefused { purpose, why });
    let again =
        |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Send(_, _, p) if *p == purpose));
    assert!(again(&fleet.coordinator.handle(fleet.now, refused(Refusal::Base))));
    assert!(!again(&fleet.coordinator.handle(fleet.now, refused(Refusal::Storage))));
}

#[test]
fn unequal_states_stop_the_run() {
    let mut fleet = Fleet::new(&[(Temper::Lies(1), Site::Local)]);
    fleet.run();
    assert!(matches!(fleet.end, Some(Output::Failed(Fatal::Unequal { round: RoundId(1), .. }))));
}

#[test]
fn a_board_that_dies_is_passed_by() {
    let mut fleet = Fleet::new(&[(Temper::Dies(1), Site::Local), (Temper::Honest, Site::Local)]);
    fleet.run();
    assert_eq!(fleet.end, Some(Output::Finished));
    assert_eq!(fleet.rounds_of("board0"), vec![0]);
    assert_eq!(fleet.rounds_of("board1"), vec![0, 1, 2]);
}

#[test]
fn a_student_that_does_not_fit_is_trained_on_the_host() {
    let mut fleet = Fleet::new(&[(Temper::Unfit(1), Site::Local)]);
    fleet.run();
    assert_eq!(fleet.end, Some(Output::Finished));
    let sites: Vec<Site> = fleet.records.iter().map(|record| record.site).collect();
    assert_eq!((sites, fleet.offloaded), (vec![Site::Local, Site::Host, Site::Host], 1));
}

#[test]
fn a_silent_board_misses_its_deadline_and_its_epoch_is_offloaded() {
    let mut fleet = Fleet::new(&[(Temper::Hangs(0), Site::Local), (Temper::Honest, Site::Host)]);
    // Nobody ever says that the silent one is gone: only its deadline is seen. The host trains the epoch and waits
    // for the board to take the state.
    for _ in 0..2000 {
        fleet.step();
    }
    assert_eq!((fleet.offloaded, fleet.rounds_of("board1")), (1, vec![0, 1, 2]));
    assert!(matches!(fleet.coordinator.members()[&device("board0")].phase(), Phase::Host(_)));
}

/// A board that is too slow for its deadline, stepped by hand: the job up to the moment at which the host has begun the
/// same epoch. Returns the host's task and what the board was assigned.
#[allow(clippy::wildcard_enum_match_arm, reason = "what else comes out is of no matter here")]
fn late_board() -> (Coordinator, DeviceId, Task, twin_shared::wire::Assignment, Duration) {
    let name = device("board0");
    let mut coordinator = Coordinator::new(spec(), strangers(std::slice::from_ref(&name)), Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut inbox = VecDeque::from([Input::Board(name.clone(), BoardInput::Online(birth(1, true)))]);
    let mut assigned = None;
    loop {
        let input = inbox.pop_front().unwrap_or(Input::Tick);
        now += Duration::from_secs(1);
        for output in coordinator.handle(now, input) {
            match output {
                Output::Command(_, Order::SendDataset(version)) => {
                    let purpose = Purpose::Dataset(version);
                    inbox.push_back(Input::Board(
                        name.clone(),
                        BoardInput::Received { purpose, blob: BlobHash([5; 32]) },
                    ));
                }
                Output::Command(_, Order::Assign(assignment) | Order::AssignOn { assignment, .. }) => {
                    assert_eq!(assignment.site, Site::Local, "nothing takes the epoch from the board");
                    assigned = Some(assignment);
                }
                Output::Decide => {
                    inbox.push_back(Input::Decided(BTreeMap::from([(name.clone(), allotment(Site::Local))])));
                }
                Output::Run(task @ Task::Epoch { .. }) => {
                    return (coordinator, name, task, assigned.expect("assigned first"), now);
                }
                Output::Run(task) => {
                    let student = Outcome::Student {
                        version: twin_shared::id::ModelVersion([0; 32]),
                        hash: BlobHash([3; 32]),
                        bytes: 10,
                        loss: 0.5,
                        samples: 10,
                    };
                    let outcome = match &task {
                        Task::Count { .. } => Outcome::Counts { train: 10, held: 1, labels: vec![5, 5] },
                        Task::Teacher { .. } => Outcome::Weights { hash: BlobHash([2; 32]), loss: 0.1 },
                        Task::Init { .. } => student,
                        other => {
                            assert!(matches!(other, Task::Labels { .. }), "{other}");
                            Outcome::Labels { blocks: 0 }
                        }
                    };
                    inbox.push_back(Input::Task(task, TaskEvent::Done(outcome)));
                }
                _ => {}
            }
        }
    }
}

/// What the board says when it is done after all.
fn done_late(name: &DeviceId, assignment: &twin_shared::wire::Assignment) -> [Input; 2] {
    let state = next_state(&assignment.base);
    let (job, round) = (assignment.job, assignment.round);
    let trained = TrainedEpoch { job, round, state, samples: 10, loss: 0.5, training_ms: 90_000, starved_ms: 0 };
    [
        BoardInput::Reply(Reply { command: 1, status: Status::Trained(trained) }),
        BoardInput::Received { purpose: Purpose::Student { job, round }, blob: state },
    ]
    .map(|input| Input::Board(name.clone(), input))
}

#[test]
fn a_missed_deadline_comes_from_the_pipelined_estimate_and_is_counted() {
    let (coordinator, name, _, assignment, now) = late_board();
    // 10 s pipelined, times 5, is below the shortest deadline of a minute.
    assert_eq!(assignment.deadline_ms, 60_000);
    assert!(now >= Duration::from_secs(60));
    let experience = &coordinator.members()[&name].twin.experience;
    assert_eq!((experience.missed_deadlines, experience.taken_late), (1, 0));
    let speed = experience.speeds.of(Architecture::Vgg8).expect("a missed deadline tells how slow it is at least");
    assert!(speed.seconds_per_sample >= 6.0, "{speed:?}");
}

#[test]
fn a_late_state_is_taken_while_its_base_fits() {
    let (mut coordinator, name, task, assignment, now) = late_board();
    let outputs: Vec<Output> =
        done_late(&name, &assignment).into_iter().flat_map(|input| coordinator.handle(now, input)).collect();
    assert!(outputs.contains(&Output::Cancel(task)), "the host's own attempt ends: {outputs:?}");
    let state_of =
        |output: &Output| if let Output::Desired(_, document) = output { Some(document.state) } else { None };
    let wanted = outputs.iter().find_map(state_of);
    assert_eq!(wanted, Some(next_state(&assignment.base)));
    assert!(outputs.contains(&Output::Note(Note::TakenLate { device: name.clone(), round: assignment.round })));
    assert_eq!(coordinator.members()[&name].twin.experience.taken_late, 1);
}

#[test]
fn a_state_that_comes_after_the_hosts_is_not_taken() {
    let (mut coordinator, name, task, assignment, now) = late_board();
    let hash = BlobHash([9; 32]);
    let version = twin_shared::id::ModelVersion([0; 32]);
    let trained = Outcome::Student { version, hash, bytes: 10, loss: 0.5, samples: 10 };
    let outputs = coordinator.handle(now, Input::Task(task, TaskEvent::Done(trained)));
    let told = outputs
        .iter()
        .any(|output| matches!(
            output,
            Output::Command(_, Order::Assign(told) | Order::AssignOn { assignment: told, .. }) if told.site == Site::Host
        ));
    assert!(told, "the board hears that it is overtaken: {outputs:?}");
    let late: Vec<Output> =
        done_late(&name, &assignment).into_iter().flat_map(|input| coordinator.handle(now, input)).collect();
    assert!(late.iter().all(|output| !matches!(output, Output::Desired(..))), "{late:?}");
    assert!(late.iter().any(|output| matches!(output, Output::Note(Note::Refused(..)))), "{late:?}");
    assert_eq!(coordinator.members()[&name].twin.experience.taken_late, 0);
}

#[test]
fn a_board_without_a_trainer_is_never_assigned_locally() {
    let mut fleet = Fleet::new(&[(Temper::Honest, Site::Local)]);
    fleet.inbox.clear();
    fleet.inbox.push_back(Input::Board(device("board0"), BoardInput::Online(birth(1, false))));
    fleet.run();
    assert_eq!(fleet.end, Some(Output::Finished));
    assert!(fleet.records.iter().all(|record| record.site == Site::Host));
}

#[test]
fn a_board_that_returns_is_told_again() {
    let name = device("board0");
    let mut coordinator = Coordinator::new(spec(), strangers(std::slice::from_ref(&name)), Duration::ZERO);
    let online = |sequence| Input::Board(name.clone(), BoardInput::Online(birth(sequence, true)));
    let first = coordinator.handle(Duration::ZERO, online(1));
    let again = coordinator.handle(Duration::from_secs(1), online(2));
    let asks =
        |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Command(_, Order::SendDataset(_))));
    assert!(asks(&first) && asks(&again));
}

#[test]
fn a_twin_with_an_older_version_is_told_what_changed() {
    let name = device("board0");
    let from = DatasetVersion([9; 32]);
    let held = TwinDataset { version: from, blob: BlobHash([9; 32]), counts: None };
    let twins = BTreeMap::from([(name.clone(), Twin::new(Some(held), 0))]);
    let mut coordinator = Coordinator::new(spec(), twins, Duration::ZERO);
    let born = birth(1, true);
    let to = born.dataset.expect("offered").version;
    let asked = coordinator.handle(Duration::ZERO, Input::Board(name.clone(), BoardInput::Online(born)));
    assert!(asked.contains(&Output::Command(name, Order::SendDelta { from, to })), "{asked:?}");
}

fn temper() -> impl Strategy<Value = Temper> {
    prop_oneof![
        3 => Just(Temper::Honest),
        1 => (0..EPOCHS).prop_map(Temper::Unfit),
        1 => (0..EPOCHS).prop_map(Temper::Dies),
    ]
}

fn site() -> impl Strategy<Value = Site> {
    prop_oneof![Just(Site::Local), Just(Site::Host)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever becomes of some, every honest board does every epoch, in order, and each that is exchanged once.
    #[test]
    fn honest_boards_finish(
        boards in proptest::collection::vec((temper(), site()), 1..6),
        every in prop_oneof![
            (1u32..5).prop_map(|epochs| SyncEvery::Epochs(epochs.try_into().expect("not 0"))),
            Just(SyncEvery::Final),
        ],
    ) {
        let mut fleet = Fleet::sparing(&boards, Compression::Int8, every);
        fleet.run();
        prop_assert_eq!(&fleet.end, &Some(Output::Finished));
        for (k, (temper, _)) in boards.iter().enumerate() {
            let rounds = fleet.rounds_of(&format!("board{k}"));
            let expected = match temper {
                Temper::Dies(at) => *at,
                Temper::Honest | Temper::Unfit(_) | Temper::Lies(_) | Temper::Hangs(_) => EPOCHS,
            };
            let due = (0..expected).filter(|&epoch| every.is_due(epoch, EPOCHS));
            prop_assert_eq!(rounds, due.collect::<Vec<_>>());
        }
    }
}

#[test]
fn members_start_absent() {
    let coordinator = Coordinator::new(spec(), strangers(&[device("board0")]), Duration::ZERO);
    assert_eq!(coordinator.members()[&device("board0")].phase(), &Phase::Absent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A host that is killed again and again goes on with the same rounds, and the students end as they would have
    /// without.
    #[test]
    fn a_killed_host_goes_on_with_the_same_rounds(
        sites in proptest::collection::vec(site(), 1..4),
        kills in proptest::collection::vec(0usize..40, 1..6),
    ) {
        let boards: Vec<_> = sites.into_iter().map(|site| (Temper::Honest, site)).collect();
        let mut undisturbed = Fleet::new(&boards);
        undisturbed.run();
        let mut fleet = Fleet::new(&boards);
        for (births, inputs) in (2..).zip(kills) {
            for _ in 0..inputs {
                fleet.step();
            }
            if fleet.end.is_none() {
                fleet.kill_and_restart(births);
            }
        }
        fleet.run();
        prop_assert_eq!(&fleet.end, &Some(Output::Finished));
        for k in 0..boards.len() {
            let name = format!("board{k}");
            prop_assert_eq!(fleet.rounds_of(&name), (0..EPOCHS).collect::<Vec<_>>());
            prop_assert_eq!(fleet.last_state(&name), undisturbed.last_state(&name));
        }
    }
}

#[test]
fn a_board_that_comes_late_starts_from_the_present_teacher() {
    let mut fleet = Fleet::new(&[(Temper::Honest, Site::Local)]);
    let (late, first) = (device("late"), device("board0"));
    while !matches!(fleet.coordinator.members()[&first].phase(), Phase::Local(epoch) if epoch.run.student.round.0 == 1)
    {
        fleet.step();
    }
    fleet.tempers.insert(late.clone(), Temper::Honest);
    fleet.sites.insert(late.clone(), Site::Host);
    fleet.inbox.push_back(Input::Join(late.clone(), Box::new(Twin::new(None, 0))));
    fleet.inbox.push_back(Input::Board(late, BoardInput::Online(birth(1, true))));
    fleet.run();
    assert_eq!(fleet.end, Some(Output::Finished));
    assert_eq!((fleet.rounds_of("board0"), fleet.rounds_of("late")), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!(fleet.teachers, 1, "the teacher is not trained again for a late board");
}

#[test]
fn a_board_that_is_taken_out_ends_the_job_for_itself_alone() {
    let mut fleet = Fleet::new(&[(Temper::Honest, Site::Local), (Temper::Honest, Site::Host)]);
    while fleet.rounds_of("board0").is_empty() {
        fleet.step();
    }
    fleet.inbox.push_back(Input::Leave(device("board0")));
    fleet.run();
    assert_eq!(fleet.end, Some(Output::Finished));
    assert!(fleet.rounds_of("board0").len() < EPOCHS as usize);
    assert_eq!(fleet.rounds_of("board1"), vec![0, 1, 2]);
    assert!(matches!(
        fleet.coordinator.members()[&device("board0")].phase(),
        Phase::Left { why: Departure::Removed, .. }
    ));
}

#[test]
fn a_board_that_stayed_away_goes_on_where_it_was() {
    let mut fleet = Fleet::new(&[(Temper::Dies(1), Site::Local), (Temper::Hangs(0), Site::Host)]);
    let name = device("board0");
    while !matches!(fleet.coordinator.members()[&name].phase(), Phase::Left { .. }) {
        fleet.step();
    }
    fleet.tempers.insert(name.clone(), Temper::Honest);
    fleet.gone.retain(|gone| *gone != name);
    fleet.board(&name, BoardInput::Online(birth(2, true)));
    while fleet.rounds_of("board0").len() < EPOCHS as usize {
        fleet.step();
    }
    assert_eq!(fleet.rounds_of("board0"), vec![0, 1, 2]);
}

#[test]
fn a_state_that_a_returning_board_did_not_expect_is_offered_again() {
    let mut fleet = Fleet::new(&[(Temper::Honest, Site::Host)]);
    let name = device("board0");
    while !matches!(fleet.coordinator.members()[&name].phase(), Phase::Host(epoch) if epoch.trained.is_some()) {
        fleet.step();
    }
    fleet.inbox.clear();
    let purpose = Purpose::Student { job: JobId(1), round: RoundId(0) };
    fleet.board(&name, BoardInput::BlobRefused { purpose, why: twin_shared::wire::Refusal::Unexpected });
    fleet.run();
    assert_eq!((&fleet.end, fleet.rounds_of("board0")), (&Some(Output::Finished), vec![0, 1, 2]));
}

#[test]
fn a_restarted_host_decides_nothing_anew_before_its_boards_have_spoken() {
    let mut fleet = Fleet::new(&[(Temper::Honest, Site::Local)]);
    let name = device("board0");
    while !matches!(fleet.coordinator.members()[&name].phase(), Phase::Local(_)) {
        fleet.step();
    }
    let job = fleet.coordinator.progress().expect("not over");
    let progress = fleet.coordinator.members()[&name].progress();
    let twin = Twin::new(fleet.coordinator.members()[&name].twin.dataset().cloned(), 1);
    let members = BTreeMap::from([(name.clone(), (twin, Some(progress)))]);
    let (mut coordinator, mut outputs) = Coordinator::resume(spec(), job, members, Duration::ZERO);
    outputs.extend(coordinator.handle(Duration::from_millis(200), Input::Tick));
    assert!(!outputs.contains(&Output::Decide), "{outputs:?}");
    assert!(coordinator.members()[&name].can_train(), "a board that trained is taken to be able to");
}
