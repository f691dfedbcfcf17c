//! What a job removes of its own: never anything that it comes back to, and enough that the rest does not grow.

#![allow(clippy::wildcard_enum_match_arm, reason = "an output that needs no blob is skipped")]

use super::*;

/// The blobs of each device, with the shell's rule for removing them.
#[derive(Default)]
struct Disk {
    there: BTreeSet<(DeviceId, BlobHash)>,
    /// What the job has brought in.
    own: BTreeMap<DeviceId, BTreeSet<BlobHash>>,
}

impl Disk {
    /// What an input brings is taken in before the coordinator hears of it.
    fn take(&mut self, input: &Input) {
        let brought = match input {
            Input::Board(device, BoardInput::Received { purpose: Purpose::Dataset(_), blob }) => {
                self.there.insert((device.clone(), *blob));
                None
            }
            Input::Board(device, BoardInput::Received { blob, .. }) => Some((device, *blob)),
            Input::Task(Task::Labels { device, .. }, TaskEvent::Block { blob, .. }) => Some((device, *blob)),
            Input::Task(
                Task::Init { device, .. } | Task::Epoch { device, .. },
                TaskEvent::Done(Outcome::Student { hash, .. }),
            ) => Some((device, *hash)),
            _ => None,
        };
        if let Some((device, blob)) = brought {
            self.there.insert((device.clone(), blob));
            self.own.entry(device.clone()).or_default().insert(blob);
        }
    }

    /// A new life of the host knows what is written down.
    fn resume(&mut self, coordinator: &Coordinator) {
        let written = coordinator.members().iter();
        self.own = written.map(|(device, member)| (device.clone(), member.progress().blobs())).collect();
    }

    /// An output is done: what it needs is there.
    fn apply(&mut self, coordinator: &Coordinator, output: &Output) {
        let mut needed = Vec::new();
        match output {
            Output::Send(device, blob, _) => needed.push((device, *blob)),
            Output::Desired(device, document) => needed.push((device, document.state)),
            Output::Run(Task::Score { device, state, .. }) => needed.push((device, *state)),
            Output::Run(Task::Epoch { device, base, sparing, .. }) => {
                needed.push((device, *base));
                needed.extend(sparing.map(|sparing| (device, sparing.common)));
            }
            Output::Command(device, Order::AssignOn { sparing, .. }) if sparing.upload => {
                needed.push((device, sparing.common));
            }
            Output::Forget(device, _) => {
                let wanted = coordinator.blobs(device);
                let own = self.own.remove(device).unwrap_or_default();
                let (stay, go): (BTreeSet<_>, BTreeSet<_>) = own.into_iter().partition(|blob| wanted.contains(blob));
                self.there.retain(|(of, blob)| of != device || !go.contains(blob));
                self.own.insert(device.clone(), stay);
            }
            _ => {}
        }
        for (device, blob) in needed {
            assert!(self.there.contains(&(device.clone(), blob)), "{output:?} needs {blob:?} of {device}");
        }
    }
}

/// Runs a fleet to its end; after these many inputs the host is killed and goes on from what is written down.
fn run(fleet: &mut Fleet, kills: &BTreeSet<usize>) -> Disk {
    let mut disk = Disk::default();
    let mut births = 1;
    for step in 0..100_000 {
        if fleet.end.is_some() {
            return disk;
        }
        if kills.contains(&step) {
            births += 1;
            // A board that had gone is back, and stays.
            fleet.gone.clear();
            fleet
                .tempers
                .values_mut()
                .filter(|temper| matches!(temper, Temper::Dies(_)))
                .for_each(|temper| *temper = Temper::Honest);
            fleet.kill_and_restart(births);
            disk.resume(&fleet.coordinator);
        }
        let input = fleet.inbox.pop_front().unwrap_or(Input::Tick);
        fleet.now += Duration::from_millis(100);
        disk.take(&input);
        let outputs = fleet.coordinator.handle(fleet.now, input);
        for output in outputs {
            disk.apply(&fleet.coordinator, &output);
            if let Output::Run(task @ Task::Labels { device, round }) = &output {
                let blob = BlobHash::of(format!("labels of {device} {round:?}").as_bytes());
                fleet.inbox.push_back(Input::Task(task.clone(), TaskEvent::Block { block: 0, blob }));
            }
            fleet.on_output(output);
        }
    }
    panic!("the job never ended: {:?}", fleet.coordinator);
}

fn temper() -> impl Strategy<Value = Temper> {
    prop_oneof![
        3 => Just(Temper::Honest),
        1 => (0..EPOCHS).prop_map(Temper::Unfit),
        1 => (0..EPOCHS).prop_map(Temper::Dies),
    ]
}

proptest! {
    #[test]
    fn what_a_job_comes_back_to_is_never_removed(
        boards in proptest::collection::vec((temper(), prop_oneof![Just(Site::Local), Just(Site::Host)]), 1..4),
        every in 1u32..4,
        sparing in any::<bool>(),
        score in any::<bool>(),
        kills in proptest::collection::btree_set(10usize..300, 0..4),
    ) {
        let compression = if sparing { Compression::Int8 } else { Compression::None };
        let every = SyncEvery::Epochs(core::num::NonZeroU32::new(every).expect("one at least"));
        let mut fleet = Fleet::sparing(&boards, compression, every);
        fleet.coordinator.spec.score_every = u32::from(score);
        run(&mut fleet, &kills);
    }
}

#[test]
fn what_stays_does_not_grow_with_the_epochs() {
    for site in [Site::Local, Site::Host] {
        let left = [3, 30].map(|epochs| {
            let mut fleet = Fleet::new(&[(Temper::Honest, site)]);
            fleet.coordinator.spec.recipe = Recipe::student(epochs);
            run(&mut fleet, &BTreeSet::new()).there.len()
        });
        assert_eq!(left[0], left[1], "{site:?}");
    }
}
