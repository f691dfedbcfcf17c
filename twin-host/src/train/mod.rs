//! Drives a `twin-trainer` process: submits jobs, grants their steps by weighted fair queueing between devices, and
//! reports what becomes of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use twin_core::share::FairShare;
use twin_shared::pipe::{
    Event, Job, LabelBlock, Outcome, PIPE_VERSION, PipeError, Request, Ticket, encode_frame, receive_frame,
};

/// How a trainer is started.
#[derive(Debug, Clone)]
pub struct TrainerConfig {
    /// The program.
    pub program: PathBuf,
    /// Threads of a step.
    pub threads: u32,
    /// `auto`, `cpu` or `cuda:0`.
    pub device: String,
    /// `auto`, `f32` or `bf16`.
    pub precision: String,
}

/// Whose share of the compute a job uses.
pub type Flow = String;

/// What is asked of the driver. `K` names a job.
#[derive(Debug)]
pub enum Ask<K> {
    /// Run a job.
    Run {
        /// Its name.
        key: K,
        /// Whose share it uses.
        flow: Flow,
        /// The job.
        job: Box<Job>,
    },
    /// It is no longer wanted; nothing more is heard of it.
    Cancel(K),
    /// The weight of a flow; 1 unless said.
    Weight(Flow, f64),
}

/// What the driver says of a job.
#[derive(Debug, Clone)]
pub enum Told {
    /// A step is done.
    Progress {
        /// Steps done.
        step: u32,
        /// Steps in all.
        steps: u32,
    },
    /// A block of labels is on disk.
    Block(LabelBlock),
    /// It is done.
    Done(Outcome),
    /// It failed.
    Failed(String),
}

/// Why a trainer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// It does not start.
    #[error("{program}: {error}; build it with scripts/demo or cargo build -p twin-trainer")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It started and said something else than it should.
    #[error("the trainer ended before it was ready: {0}")]
    NotReady(String),
    /// It speaks another version of the pipe.
    #[error(
        "the trainer speaks version {0} of the pipe, this program version {PIPE_VERSION}: use the two of one build"
    )]
    Version(u16),
}

/// How long a trainer may take to load its libraries.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// What a trainer said of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TrainerInfo {
    /// LibTorch's version.
    pub libtorch: String,
    /// Where it trains.
    pub device: String,
    /// Threads of a step.
    pub threads: u32,
    /// Number format of convolutions.
    pub precision: String,
}

/// A running trainer: hand it [`Ask`]s, hear [`Told`]s. It ends with the last sender.
pub struct Trainer<K> {
    /// What it said of itself.
    pub info: TrainerInfo,
    /// Where to ask.
    pub asks: mpsc::UnboundedSender<Ask<K>>,
    /// What it tells.
    pub told: mpsc::UnboundedReceiver<(K, Told)>,
}

impl<K: Ord + Clone + Send + 'static> Trainer<K> {
    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, or is of another version.
    pub async fn start(config: &TrainerConfig) -> Result<Self, TrainError> {
        let mut child = Command::new(&config.program)
            .args(["--threads", &config.threads.to_string(), "--device", &config.device])
            .args(["--precision", &config.precision])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| TrainError::Start { program: config.program.display().to_string(), error })?;
        let stdin = child.stdin.take().expect("it was asked for");
        let mut stdout = child.stdout.take().expect("it was asked for");
        let ready = tokio::time::timeout(START_PATIENCE, receive_frame(&mut stdout)).await;
        let info = match ready {
            Ok(Ok(Event::Ready { version: PIPE_VERSION, libtorch, device, threads, precision })) => {
                TrainerInfo { libtorch, device, threads, precision }
            }
            Ok(Ok(Event::Ready { version, .. })) => return Err(TrainError::Version(version)),
            Ok(Ok(other)) => return Err(TrainError::NotReady(format!("it said {other:?}"))),
            Ok(Err(error)) => {
                let status = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
                return Err(TrainError::NotReady(format!("{error}; {}", describe(status.ok().and_then(Result::ok)))));
            }
            Err(_) => return Err(TrainError::NotReady(format!("nothing in {} s", START_PATIENCE.as_secs()))),
        };
        let (asks, asked) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::unbounded_channel();
        let driver =
            Driver { child, stdin, jobs: BTreeMap::new(), share: FairShare::default(), granted: None, next: 0, tell };
        tokio::spawn(driver.run(stdout, asked));
        Ok(Self { info, asks, told })
    }
}

/// A job in the trainer.
struct Running<K> {
    key: K,
    flow: Flow,
    /// Steps in all, once the trainer has accepted it.
    steps: Option<u32>,
}

struct Driver<K> {
    child: Child,
    stdin: ChildStdin,
    jobs: BTreeMap<Ticket, Running<K>>,
    share: FairShare<Flow>,
    /// The one step that the trainer is at.
    granted: Option<Ticket>,
    next: u32,
    tell: mpsc::UnboundedSender<(K, Told)>,
}

impl<K: Ord + Clone + Send + 'static> Driver<K> {
    async fn run(mut self, mut stdout: ChildStdout, mut asked: mpsc::UnboundedReceiver<Ask<K>>) {
        let (events, mut event) = mpsc::channel(16);
        // Reading a frame must not be cut off in its middle, so it has a task of its own.
        tokio::spawn(async move {
            loop {
                let read: Result<Event, PipeError> = receive_frame(&mut stdout).await;
                let ended = read.is_err();
                if events.send(read).await.is_err() || ended {
                    return;
                }
            }
        });
        let mut open = true;
        while open || !self.jobs.is_empty() {
            let went_on = tokio::select! {
                ask = asked.recv(), if open => match ask {
                    Some(ask) => self.on_ask(ask).await,
                    None => {
                        open = false;
                        // Nobody is left to hear of the jobs.
                        self.jobs.clear();
                        Ok(())
                    }
                },
                event = event.recv() => match event {
                    Some(Ok(event)) => self.on_event(event).await,
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("its output ended".to_owned()),
                },
            };
            if let Err(error) = went_on {
                self.on_death(&error).await;
                // Whoever asks from now on hears that it is gone.
                while let Some(ask) = asked.recv().await {
                    if let Ask::Run { key, .. } = ask {
                        let _ = self.tell.send((key, Told::Failed("the trainer is gone".into())));
                    }
                }
                return;
            }
        }
        // Its input closes: it ends after the step in progress; kill_on_drop sees to it in any case.
        drop(self.stdin);
        let _ = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
    }

    async fn on_ask(&mut self, ask: Ask<K>) -> Result<(), String> {
        match ask {
            Ask::Run { key, flow, job } => {
                self.next += 1;
                let ticket = Ticket(self.next);
                self.jobs.insert(ticket, Running { key, flow, steps: None });
                self.request(&Request::Submit { ticket, job }).await?;
            }
            Ask::Cancel(key) => {
                let tickets: Vec<Ticket> =
                    self.jobs.iter().filter(|(_, job)| job.key == key).map(|(ticket, _)| *ticket).collect();
                for ticket in tickets {
                    self.jobs.remove(&ticket);
                    self.request(&Request::Cancel { ticket }).await?;
                    if self.granted == Some(ticket) {
                        // The trainer may be in that step still, or will never report it: either way it is free for
                        // the next grant, which it takes up after it.
                        self.granted = None;
                    }
                }
            }
            Ask::Weight(flow, weight) => self.share.set_weight(flow, weight),
        }
        self.grant().await
    }

    async fn on_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Ready { .. } | Event::Saved { .. } => {}
            Event::Accepted { ticket, steps } => {
                if let Some(job) = self.jobs.get_mut(&ticket) {
                    job.steps = Some(steps);
                }
            }
            Event::Stepped { ticket, step, seconds, .. } => {
                if self.granted == Some(ticket) {
                    self.granted = None;
                }
                if let Some(job) = self.jobs.get(&ticket) {
                    self.share.charge(&job.flow, seconds);
                    let steps = job.steps.unwrap_or(step);
                    self.say(ticket, Told::Progress { step, steps });
                }
            }
            Event::Block { ticket, block } => self.say(ticket, Told::Block(block)),
            Event::Done { ticket, outcome } => self.finish(ticket, Told::Done(outcome)),
            Event::Failed { ticket, message } => self.finish(ticket, Told::Failed(message)),
        }
        self.grant().await
    }

    /// Grants one step to the flow whose turn it is, unless one is being made.
    async fn grant(&mut self) -> Result<(), String> {
        if self.granted.is_some() {
            return Ok(());
        }
        let ready = self.jobs.values().filter(|job| job.steps.is_some()).map(|job| job.flow.clone());
        let Some(flow) = self.share.next(ready) else { return Ok(()) };
        // Jobs of one flow go one after the other: labels before the epoch that was submitted after them.
        let first = self.jobs.iter().find(|(_, job)| job.flow == flow && job.steps.is_some());
        let Some((&ticket, _)) = first else { return Ok(()) };
        self.granted = Some(ticket);
        self.request(&Request::Grant { ticket, steps: 1 }).await
    }

    fn finish(&mut self, ticket: Ticket, told: Told) {
        if self.granted == Some(ticket) {
            self.granted = None;
        }
        self.say(ticket, told);
        self.jobs.remove(&ticket);
    }

    fn say(&self, ticket: Ticket, told: Told) {
        if let Some(job) = self.jobs.get(&ticket) {
            // Nobody listens only when the host stops.
            let _ = self.tell.send((job.key.clone(), told));
        }
    }

    async fn request(&mut self, request: &Request) -> Result<(), String> {
        let frame = encode_frame(request).map_err(|error| error.to_string())?;
        self.stdin.write_all(&frame).await.map_err(|error| format!("it takes no more requests: {error}"))
    }

    async fn on_death(&mut self, error: &str) {
        let status = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
        let message = format!("the trainer died: {error}; {}", describe(status.ok().and_then(Result::ok)));
        for (_, job) in std::mem::take(&mut self.jobs) {
            let _ = self.tell.send((job.key, Told::Failed(message.clone())));
        }
    }
}

/// How a process ended, for people.
fn describe(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        None => "it has not ended".into(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(9)) => "killed by signal 9, for want of memory perhaps".into(),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "it ended".into(),
        },
    }
}
