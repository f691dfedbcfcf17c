//! Runs one job on a serving host: the shell around the coordinator.

mod begin;
mod decisions;
mod report;
mod tasks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use twin_core::coordinator::{
    BoardInput, Coordinator, Input, JobProgress, Note, Output, Phase, Progress, RoundRecord, Task,
};
use twin_shared::id::{BlobHash, DeviceId, JobId};
use twin_shared::wire::{Purpose, Refusal};

use decisions::{Answered, Decisions};
pub use report::{JobFailure, JobReport, MemberReport};
pub(super) use tasks::Work;

use super::Host;
use super::requests::Wish;
use crate::calibration::Calibration;
use crate::config::Job;
use crate::control::{Asked, Happened};
use crate::link::{FromBoard, LinkOrder, Said};
use crate::store::Advance;
use crate::train::{Ask, Told};

/// Progress of a task is told at most this often.
const PROGRESS: Duration = Duration::from_secs(1);

/// How a job's run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All students are trained.
    Finished,
    /// It was paused.
    Paused,
    /// It was ended.
    Stopped,
}

pub(super) struct JobRun<'a> {
    pub(super) host: &'a mut Host,
    pub(super) job: &'a Job,
    /// Its classes by index.
    pub(super) classes: Vec<String>,
    /// The teacher that its own goes on from.
    warm_start: Option<PathBuf>,
    pub(super) id: JobId,
    pub(super) coordinator: Coordinator,
    /// What is written down of the job and of its devices.
    pub(super) kept: (Option<JobProgress>, BTreeMap<DeviceId, Progress>),
    /// Where its trainers write.
    work: PathBuf,
    /// Of each device the newest state that the host trained and the file that carries it in few bytes.
    deltas: BTreeMap<DeviceId, (BlobHash, BlobHash)>,
    /// Blobs that this job has brought into each device's twin.
    own: BTreeMap<DeviceId, BTreeSet<BlobHash>>,
    /// When progress was last told, by task: a step can take a millisecond.
    told: BTreeMap<Task, Instant>,
    calibration: Calibration,
    rounds: Vec<RoundRecord>,
    teacher_asks: mpsc::UnboundedSender<Ask<Work>>,
    pub(super) student_asks: mpsc::UnboundedSender<Ask<Work>>,
    decisions: Decisions,
    /// Eq. (6) at the first decision.
    objective: Option<f64>,
}

/// Where a job's run hears from.
pub(super) struct Voices {
    teacher: mpsc::UnboundedReceiver<(Work, Told)>,
    pub(super) students: mpsc::UnboundedReceiver<(Work, Told)>,
    decisions: mpsc::Receiver<Answered>,
    /// What boards said before the run could hear.
    earlier: VecDeque<FromBoard>,
}

/// What is to be done after one thing was heard.
enum Heard {
    /// The coordinator is told, and whoever waits for it to be written down.
    Inputs(Vec<Input>, Option<oneshot::Sender<()>>),
    Nothing,
    End(Ending),
}

impl JobRun<'_> {
    /// Runs to the end; `first` is what the coordinator wants before it has heard anything.
    async fn run(
        &mut self,
        voices: &mut Voices,
        first: Vec<Output>,
        note: &mut (dyn FnMut(&Note) + Send),
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Ending, JobFailure> {
        self.keep(None, &first)?;
        if let Next::End(ending) = self.apply_all(first, note)? {
            return Ok(ending);
        }
        // Boards that are connected already have told their birth before the job began.
        self.host.links.order_all(|| LinkOrder::Command(twin_shared::wire::Order::Rebirth));
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            let heard = match voices.earlier.pop_front() {
                Some(from) => self.on_board(from)?,
                None => tokio::select! {
                    from = self.host.from_boards.recv() => match from {
                        Some(from) => self.on_board(from)?,
                        None => return Err(JobFailure::Stopped),
                    },
                    told = voices.teacher.recv() => Heard::of(self.on_told(told)?),
                    told = voices.students.recv() => Heard::of(self.on_told(told)?),
                    answer = voices.decisions.recv() => Heard::of(self.on_answer(answer)?),
                    asked = self.host.control.asked.recv() => match asked {
                        Some(asked) => self.on_asked(asked)?,
                        None => return Err(JobFailure::Stopped),
                    },
                    _ = tick.tick() => Heard::of(Some(Input::Tick)),
                    changed = stop.changed() => {
                        if changed.is_err() || *stop.borrow() {
                            return Err(JobFailure::Stopped);
                        }
                        Heard::Nothing
                    }
                },
            };
            let (inputs, stored) = match heard {
                Heard::Inputs(inputs, stored) => (inputs, stored),
                Heard::Nothing => continue,
                Heard::End(ending) => {
                    for output in self.coordinator.halt() {
                        self.apply(output, note)?;
                    }
                    return Ok(ending);
                }
            };
            for input in inputs {
                let now = self.host.started.elapsed();
                let touched = touched(&input);
                let outputs = self.coordinator.handle(now, input);
                self.keep(touched.as_ref(), &outputs)?;
                if let Next::End(ending) = self.apply_all(outputs, note)? {
                    return Ok(ending);
                }
            }
            if let Some(stored) = stored {
                // The link is gone only when its board was locked out.
                let _ = stored.send(());
            }
        }
    }

    /// What a board said, in the coordinator's words. What a restart must find is stored before anything is built on it.
    fn on_board(&mut self, from: FromBoard) -> Result<Heard, JobFailure> {
        self.host.remember(&from)?;
        let FromBoard { device, said, stored } = from;
        let input = match said {
            Said::Board(input) => input,
            Said::Log(_) => return Ok(Heard::Nothing),
        };
        if let BoardInput::Received { purpose: Purpose::Dataset(version), blob } = &input {
            self.host.store.hold_dataset(&device, *version, *blob)?;
        }
        if let BoardInput::BlobRefused { purpose: Purpose::Student { .. }, why: Refusal::Base } = &input {
            // The board cannot read it: the state goes whole.
            self.deltas.remove(&device);
        }
        if let BoardInput::Received { purpose: Purpose::Student { .. }, blob } = &input {
            self.bring(&device, *blob);
        }
        let mut inputs = Vec::new();
        let newcomer = self.job.devices.includes(&device) && !self.coordinator.members().contains_key(&device);
        if newcomer && matches!(input, BoardInput::Online(_)) {
            inputs.push(Input::Join(device.clone(), Box::new(self.host.store.twin(&device)?)));
        }
        inputs.push(Input::Board(device, input));
        Ok(Heard::Inputs(inputs, Some(stored)))
    }

    fn on_answer(&mut self, answer: Option<Answered>) -> Result<Option<Input>, JobFailure> {
        let Some(answer) = answer else { return Ok(None) };
        let Some(answer) = answer? else { return Ok(Some(Input::Decided(BTreeMap::new()))) };
        self.keep_answer(&answer)?;
        if self.objective.is_none() {
            self.objective = Some(answer.objective);
            self.host.store.set_objective(self.id, answer.objective)?;
        }
        Ok(Some(Input::Decided(answer.allotments)))
    }

    fn on_asked(&self, asked: Asked) -> Result<Heard, JobFailure> {
        Ok(match self.host.answer(asked, Some(self.id))? {
            Wish::None => Heard::Nothing,
            Wish::Pause => Heard::End(Ending::Paused),
            Wish::Stop => Heard::End(Ending::Stopped),
            Wish::Join(device) => {
                let twin = self.host.store.twin(&device)?;
                self.host.tell(self.id, Happened::Joined { device: device.clone() });
                Heard::of(Some(Input::Join(device, Box::new(twin))))
            }
            Wish::Leave(device) => Heard::of(Some(Input::Leave(device))),
            Wish::Replaced(device) => Heard::of(Some(Input::Replaced(device))),
        })
    }

    /// Writes down what has changed, before anything is done that stands on it.
    fn keep(&mut self, touched: Option<&DeviceId>, outputs: &[Output]) -> Result<(), JobFailure> {
        let job = self.coordinator.progress().filter(|progress| self.kept.0.as_ref() != Some(progress));
        let members = self.coordinator.members().iter().filter(|(device, _)| touched.is_none_or(|one| one == *device));
        let changed: Vec<_> = members
            .map(|(device, member)| (device.clone(), member.progress(), member.twin.document()))
            .filter(|(device, progress, _)| self.kept.1.get(device) != Some(progress))
            .collect();
        let rounds = outputs
            .iter()
            .filter_map(|output| if let Output::Note(Note::Round(record)) = output { Some(&**record) } else { None });
        let advance = Advance {
            job: job.as_ref(),
            members: changed.iter().map(|(device, progress, document)| (device, progress, *document)).collect(),
            rounds: rounds.collect(),
        };
        if !advance.is_empty() {
            self.host.store.advance_job(self.id, &advance)?;
        }
        if job.is_some() {
            self.kept.0 = job;
        }
        self.kept.1.extend(changed.into_iter().map(|(device, progress, _)| (device, progress)));
        Ok(())
    }

    fn apply_all(&mut self, outputs: Vec<Output>, note: &mut (dyn FnMut(&Note) + Send)) -> Result<Next, JobFailure> {
        for output in outputs {
            if let Next::End(ending) = self.apply(output, note)? {
                return Ok(Next::End(ending));
            }
        }
        Ok(Next::GoOn)
    }

    fn apply(&mut self, output: Output, note: &mut (dyn FnMut(&Note) + Send)) -> Result<Next, JobFailure> {
        match output {
            Output::Command(device, order) => self.host.order(&device, LinkOrder::Command(order)),
            Output::Desired(device, mut document) => {
                // What the twin holds is what lies on its disk, not what was meant to.
                document.state = self.host.store.blobs(&device)?.rehash(&document.state)?;
                self.host.order(&device, LinkOrder::Desired(document));
            }
            Output::Send(device, blob, purpose) => {
                let carried = match (purpose, self.deltas.get(&device)) {
                    (Purpose::Student { .. }, Some(&(state, delta))) if state == blob => delta,
                    (_, _) => blob,
                };
                self.host.order(&device, LinkOrder::Send(carried, purpose));
            }
            Output::Forget(device, round) => {
                self.host.order(&device, LinkOrder::Forget(round));
                self.clear_momentum(&device, round)?;
                self.collect(&device)?;
            }
            Output::Share(device, allotment) => {
                let weight = Ask::Weight(device.as_str().to_owned(), allotment.frequency.0);
                let _ = self.student_asks.send(weight);
                self.host.order(&device, LinkOrder::Pace(allotment.rate));
            }
            Output::Run(task) => self.start(task)?,
            Output::Cancel(task) => {
                let _ = self.student_asks.send(Ask::Cancel(Work::Task(task)));
            }
            Output::Learnt(device) => {
                if let Some(member) = self.coordinator.members().get(&device) {
                    self.host.store.keep_experience(&device, &member.twin.experience)?;
                }
            }
            Output::Decide => self.decide()?,
            Output::Note(told) => {
                if let Note::Round(record) = &told {
                    self.rounds.push((**record).clone());
                }
                self.tell(&told);
                note(&told);
            }
            Output::Finished => return Ok(Next::End(Ending::Finished)),
            Output::Failed(fatal) => return Err(fatal.into()),
        }
        Ok(Next::GoOn)
    }

    /// A blob has come into a device's twin by this job.
    fn bring(&mut self, device: &DeviceId, blob: BlobHash) {
        self.own.entry(device.clone()).or_default().insert(blob);
    }

    /// Removes what this job has brought into a device's twin and nothing names any more. The board is told of its next
    /// epoch after that: nothing that it brings for it is taken for what was there before.
    fn collect(&mut self, device: &DeviceId) -> Result<(), JobFailure> {
        let Some(own) = self.own.remove(device) else { return Ok(()) };
        let stay = match self.host.store.turn_to_collect()? {
            Some(turn) => {
                let mut wanted = self.coordinator.blobs(device);
                wanted.extend(self.deltas.get(device).map(|(_, delta)| *delta));
                self.host.store.remove_unnamed(device, own, &wanted, &turn)?
            }
            None => own,
        };
        self.own.insert(device.clone(), stay);
        Ok(())
    }

    /// Tells whoever watches.
    fn tell(&mut self, note: &Note) {
        if let Note::Progress { task, step, steps } = note {
            let now = Instant::now();
            let recent = self.told.get(task).is_some_and(|at| now.duration_since(*at) < PROGRESS);
            if step == steps {
                self.told.remove(task);
            } else if recent {
                return;
            } else {
                self.told.insert(task.clone(), now);
            }
        }
        if let Some(happened) = Happened::of(note) {
            self.host.tell(self.id, happened);
        }
    }

    fn report(self) -> Result<JobReport, JobFailure> {
        let now = self.host.started.elapsed();
        let mut members = BTreeMap::new();
        for (device, member) in self.coordinator.members() {
            let blobs = self.host.store.blobs(device)?;
            let (student, left) = match member.phase() {
                Phase::Finished { state } => (Some(blobs.path(state)), None),
                Phase::Left { why, .. } => (None, Some(why.to_string())),
                Phase::Absent
                | Phase::Copying
                | Phase::Counting
                | Phase::Ready
                | Phase::Starting
                | Phase::Local(_)
                | Phase::Host(_)
                | Phase::Confirming(_) => (None, Some("the job ended before it".into())),
            };
            let report = MemberReport {
                counts: member.twin.counts().cloned(),
                dataset: member.twin.dataset().map(|dataset| blobs.path(&dataset.blob)),
                telemetry: member.twin.telemetry(now).map(|(sample, _)| sample.clone()),
                birth: member.twin.birth().cloned(),
                student,
                left,
            };
            members.insert(device.clone(), report);
        }
        let teacher = self.host.store.teacher(self.id);
        Ok(JobReport {
            job: self.id,
            teacher,
            rounds: self.rounds,
            members,
            calibration: self.calibration,
            objective: self.objective.unwrap_or(f64::NAN),
        })
    }
}

enum Next {
    GoOn,
    End(Ending),
}

impl Heard {
    fn of(input: Option<Input>) -> Self {
        input.map_or(Self::Nothing, |input| Self::Inputs(vec![input], None))
    }
}

/// The one device whose standing an input can change; `None` where it may be any.
fn touched(input: &Input) -> Option<DeviceId> {
    match input {
        Input::Board(device, _) | Input::Join(device, _) | Input::Leave(device) | Input::Replaced(device) => {
            Some(device.clone())
        }
        Input::Task(task, _) => match task {
            Task::Count { device, .. }
            | Task::Init { device, .. }
            | Task::Labels { device, .. }
            | Task::Epoch { device, .. }
            | Task::Score { device, .. } => Some(device.clone()),
            Task::Teacher { .. } => None,
        },
        Input::Decided(_) | Input::Tick => None,
    }
}
