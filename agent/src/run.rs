//! The resident agent: puts the parts together and turns the event loop.
//!
//! One thread. The loop waits for the connection, the trainer, room to send, the clock or a signal, tells the session,
//! and does what it wants. What takes long (hashing, flushing a disk, sampling) is done off the loop's thread; the
//! tasks of the connection go on meanwhile.

mod about;
mod perform;
mod speak;

use std::fs::{self, File, TryLockError};
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::sleep_until;
use twin_data::blobs::Blobs;
use twin_shared::id::BlobHash;
use twin_shared::wire::BoardState;
use twin_shared::wire::telemetry::Telemetry;

use crate::backlog::Backlog;
use crate::config::Config;
use crate::courier::Courier;
use crate::guard::{Conditions, Guard, Permit};
use crate::identity::{self, Births};
use crate::mailbox::Mailbox;
use crate::outbox::{Outbox, Parcel};
use crate::pace::Pace;
use crate::sampler::{EmulatedSampler, LinuxSampler, PathMeter, Root, Sampler};
use crate::service::ServiceManager;
use crate::session::{Input, Session};
use crate::trainer::{self, TrainerProcess};
use crate::transport::{Backoff, Connection, Dialer, News, Outgoing};
use crate::workspace::Workspace;
use crate::{dataset, durable, off_loop};

const PING_EVERY: Duration = Duration::from_secs(10);

/// A broker that takes the connection and not the subscription is given up after so long.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(45);

/// A goodbye that does not get through is as good as a last will.
const FAREWELL: Duration = Duration::from_secs(2);

/// A clock before 2025 was never set.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_735_689_600);

/// Runs the agent until it is told to end.
///
/// # Errors
/// When it cannot start: no key, a broken dataset, a disk that refuses, another agent on the same data.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        Agent::start(config).await?.turn(signals).await
    })
}

/// The connection to the broker.
enum Line {
    Down { retry_at: Instant },
    Dialling { connection: Connection, birth: u64, since: Instant },
    Up { connection: Connection, birth: u64, since: Instant },
}

/// What the loop waits for.
enum Happening {
    Line(News),
    Trainer(trainer::News),
    Room(OwnedPermit<Outgoing>),
    Time,
    End,
}

struct Agent {
    config: Config,
    started: Instant,
    session: Session,
    mailbox: Mailbox,
    outbox: Outbox,
    courier: Courier,
    workspace: Workspace,
    dataset: Option<BlobHash>,
    births: Births,
    dialer: Dialer,
    line: Line,
    backoff: Backoff,
    pace: Pace,
    /// Messages that were handled and are not acknowledged yet.
    handled: Vec<Publish>,
    trainer: Option<TrainerProcess>,
    sampler: Option<Box<dyn Sampler + Send>>,
    guard: Guard,
    permit: Option<Permit>,
    path: PathMeter,
    ping: Option<(u64, Instant)>,
    backlog: Backlog,
    service: ServiceManager,
    next_sample: Instant,
    next_ping: Instant,
    next_sign: Option<Instant>,
    told_service: &'static str,
    /// Held as long as the agent lives: two agents on the same data would undo each other.
    _lock: File,
}

impl Agent {
    async fn start(mut config: Config) -> anyhow::Result<Self> {
        let service = ServiceManager::from_environment().context("the service manager")?;
        // The trainer reads the same paths from a folder of its own.
        config.data_dir = std::path::absolute(&config.data_dir)?;
        let folder = config.data_dir.clone();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = lock(&folder)?;
        let key = identity::read_key(&config.credentials.sealing_key)
            .context("this board has no key: copy the folder that `twin-host enroll` wrote for it")?;
        let births = Births::open(folder.join("births"))?;
        let blobs = Blobs::open(folder.join("blobs"))?;
        let workspace = Workspace::open(folder.join("work"))?;
        let dataset = match config.dataset.clone() {
            None => None,
            Some(described) => {
                let blobs = blobs.clone();
                let loaded = off_loop(move || dataset::load(&described, &blobs)).await;
                Some(loaded.context("the dataset of [dataset] cannot be used")?)
            }
        };
        let mut memory = perform::recall(&folder)?;
        // A state that is gone, with its disk perhaps, was not trained.
        memory.trained = memory.trained.filter(|trained| blobs.contains(&trained.epoch.state));
        let stored = durable::read(&backlog_file(&folder))?.unwrap_or_default();
        let backlog = Backlog::restore(config.telemetry.backlog_bytes, &stored);
        let mut sampler = sampler(&config);
        let first = sampler.sample(Instant::now());
        let about = about::of(&config, &first, dataset);
        let (device, started) = (config.device.clone(), Instant::now());
        let dialer = Dialer::new(&device, &key, &config.broker, &config.credentials)
            .context("TLS cannot be set up: copy the folder that `twin-host enroll` wrote for this board")?;
        tracing::info!(%device, broker = config.broker.host, port = config.broker.port, "the agent starts");
        Ok(Self {
            session: Session::new(about, memory),
            mailbox: Mailbox::new(device, key, identity::new_boot()),
            outbox: Outbox::default(),
            courier: Courier::new(blobs, started),
            workspace,
            dataset: dataset.map(|(_, blob)| blob),
            births,
            dialer,
            line: Line::Down { retry_at: started },
            backoff: Backoff::default(),
            pace: Pace::new(config.emulate.map(|board| board.uplink)),
            handled: Vec::new(),
            trainer: None,
            sampler: Some(sampler),
            guard: Guard::new(config.guard.clone()),
            permit: None,
            path: PathMeter::default(),
            ping: None,
            backlog,
            next_sample: started,
            next_ping: started,
            next_sign: service.sign_of_life_every().map(|_| started),
            service,
            told_service: "",
            started,
            config,
            _lock: lock,
        })
    }

    async fn turn(mut self, mut signals: [Signal; 2]) -> anyhow::Result<()> {
        self.service.ready();
        loop {
            match self.wait(&mut signals).await {
                Happening::Line(news) => self.on_line(news).await,
                Happening::Trainer(news) => self.on_trainer(news).await,
                Happening::Room(permit) => self.speak(permit),
                Happening::Time => {}
                Happening::End => break,
            }
            self.keep_time().await?;
        }
        self.end().await;
        Ok(())
    }

    async fn wait(&mut self, signals: &mut [Signal; 2]) -> Happening {
        let (room, paced) = self.room_wanted();
        let wake = self.wake_at(paced);
        let connection = match &mut self.line {
            Line::Down { .. } => None,
            Line::Dialling { connection, .. } | Line::Up { connection, .. } => Some(connection),
        };
        let trainer = self.trainer.as_mut();
        let [terminate, interrupt] = signals;
        tokio::select! {
            _ = terminate.recv() => Happening::End,
            _ = interrupt.recv() => Happening::End,
            news = async { match connection { Some(connection) => connection.next().await, None => pending().await } } => {
                Happening::Line(news)
            }
            news = async { match trainer { Some(trainer) => trainer.next().await, None => pending().await } } => {
                Happening::Trainer(news)
            }
            permit = async { match room { Some(room) => room.reserve_owned().await, None => pending().await } } => {
                // A connection that has ended says so itself.
                permit.map_or(Happening::Time, Happening::Room)
            }
            () = sleep_until(wake.into()) => Happening::Time,
        }
    }

    /// When something is to be done without anything happening; `paced` is when the pace allows the next message.
    fn wake_at(&self, paced: Option<Instant>) -> Instant {
        let line = match self.line {
            Line::Down { retry_at } => Some(retry_at),
            Line::Dialling { since, .. } => Some(since + SUBSCRIBED_WITHIN),
            Line::Up { .. } => None,
        };
        let session = self.session.wake_at().map(|at| self.started + at);
        let courier = self.courier.wake_at().filter(|_| self.session.is_served()).map(|at| self.started + at);
        // What is due already waits for room or pace, and these wake the loop.
        let courier = courier.filter(|at| *at > Instant::now());
        let ping = self.session.is_served().then_some(self.next_ping);
        [line, session, courier, ping, paced, self.next_sign].into_iter().flatten().fold(self.next_sample, Instant::min)
    }

    /// Does what the clock says.
    async fn keep_time(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        match self.line {
            Line::Down { retry_at } if now >= retry_at => self.dial(now)?,
            Line::Dialling { since, .. } if now >= since + SUBSCRIBED_WITHIN => {
                let seconds = SUBSCRIBED_WITHIN.as_secs();
                self.on_line(News::Lost(format!("the broker does not answer within {seconds} s"))).await;
            }
            Line::Down { .. } | Line::Dialling { .. } | Line::Up { .. } => {}
        }
        if now >= self.next_sample {
            self.next_sample = now + self.config.telemetry.period;
            self.sample(now).await;
        }
        if self.session.is_served() && now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            self.outbox.push(Parcel::Ping(twin_shared::wire::Nonce(rand::random())));
        }
        if let (Some(at), Some(every)) = (self.next_sign, self.service.sign_of_life_every())
            && now >= at
        {
            self.next_sign = Some(now + every);
            self.service.alive();
        }
        if self.session.wake_at().is_some_and(|at| self.started.elapsed() >= at) {
            self.tell(Input::Tick).await;
        }
        Ok(())
    }

    fn dial(&mut self, now: Instant) -> anyhow::Result<()> {
        let birth = self.births.take()?;
        let will = BoardState::Offline { sequence: birth };
        let sealed = self.mailbox.seal(twin_shared::wire::Channel::UpState, self.started.elapsed(), &will)?;
        self.line = Line::Dialling { connection: self.dialer.dial(sealed), birth, since: now };
        Ok(())
    }

    async fn on_line(&mut self, news: News) {
        match news {
            News::Ready => {
                let down = Line::Down { retry_at: Instant::now() };
                let (Line::Dialling { connection, birth, .. } | Line::Up { connection, birth, .. }) =
                    std::mem::replace(&mut self.line, down)
                else {
                    return;
                };
                tracing::info!(birth, "connected to the broker");
                self.line = Line::Up { connection, birth, since: Instant::now() };
                self.courier.reconnect();
                self.tell(Input::Connected { sequence: birth }).await;
            }
            News::Message(message) => self.hear(message).await,
            News::Lost(why) => {
                let now = Instant::now();
                let held = match self.line {
                    Line::Up { since, .. } => now.saturating_duration_since(since),
                    Line::Dialling { since, .. } => {
                        tracing::debug!(seconds = now.saturating_duration_since(since).as_secs_f64(), "no connection");
                        Duration::ZERO
                    }
                    Line::Down { .. } => Duration::ZERO,
                };
                let wait = self.backoff.next(held, &mut rand::rng());
                tracing::warn!(why, again_in_s = wait.as_secs_f64(), "no connection to the broker");
                self.line = Line::Down { retry_at: now + wait };
                self.outbox.clear();
                self.handled.clear();
                self.ping = None;
                self.tell(Input::Disconnected).await;
            }
        }
    }

    async fn on_trainer(&mut self, news: trainer::News) {
        match news {
            trainer::News::Event(event) => self.tell(Input::Trainer(event)).await,
            trainer::News::Ended(why) => {
                self.trainer = None;
                self.tell(Input::TrainerDied(why)).await;
            }
        }
    }

    /// One sample: for the host, the guard and the trainer's limit.
    async fn sample(&mut self, now: Instant) {
        let Some(mut sampler) = self.sampler.take() else { return };
        let (sampler, mut sample) = off_loop(move || {
            let sample = sampler.sample(now);
            (sampler, sample)
        })
        .await;
        self.sampler = Some(sampler);
        sample.path = self.path.reading(now);
        sample.activity = self.session.activity();
        let permit = self.guard.assess(now, &self.conditions(&sample));
        if self.permit != Some(permit) {
            if let Permit::Wait(cause) = permit {
                tracing::info!(%cause, "training waits");
            }
            self.permit = Some(permit);
            self.tell(Input::Permit(permit)).await;
        }
        if let (Some(limit), Some(trainer)) = (self.config.trainer.memory_limit, &self.trainer)
            && let Some(resident) = trainer.resident().filter(|resident| *resident > limit)
        {
            let why = format!("it held {} MiB of memory, {} are allowed", resident >> 20, limit >> 20);
            self.on_trainer(trainer::News::Ended(why)).await;
        }
        if self.session.is_served() {
            self.outbox.push(Parcel::Telemetry(Box::new(sample)));
        } else {
            let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.backlog.push(elapsed, &sample);
        }
        if let Some(bytes) = self.backlog.flush(now) {
            let file = backlog_file(&self.config.data_dir);
            if let Err(error) = off_loop(move || durable::replace(&file, &bytes)).await {
                tracing::warn!(%error, "telemetry that waits cannot be stored");
            }
        }
    }

    fn conditions(&self, sample: &Telemetry) -> Conditions {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
        Conditions {
            temperature: sample.health.temperature.value().map(|celsius| celsius.degrees()),
            under_voltage: sample.health.under_voltage.value().copied(),
            inhibited: self.config.inhibit_file.as_deref().is_some_and(Path::exists),
            paused: false,
            unix_seconds: clock.filter(|now| *now >= CLOCK_IS_SET).map(|now| now.as_secs()),
        }
    }

    /// Says goodbye to host and trainer.
    async fn end(mut self) {
        tracing::info!("the agent ends");
        self.service.stopping();
        let trainer = self.trainer.take();
        let farewell = async {
            if let Line::Up { mut connection, birth, .. } = self.line {
                let channel = twin_shared::wire::Channel::UpState;
                let state = BoardState::Offline { sequence: birth };
                match self.mailbox.seal(channel, self.started.elapsed(), &state) {
                    Ok(sealed) => {
                        let outgoing = connection.outgoing();
                        let _ = outgoing.send(Outgoing::Publish(self.mailbox.topic(channel), sealed)).await;
                        let _ = outgoing.send(Outgoing::Disconnect).await;
                        while !matches!(connection.next().await, News::Lost(_)) {}
                    }
                    Err(error) => tracing::warn!(%error, "the goodbye cannot be sealed"),
                }
            }
        };
        let retired = async {
            if let Some(trainer) = trainer {
                trainer.retire().await;
            }
        };
        let (farewell, ()) = tokio::join!(tokio::time::timeout(FAREWELL, farewell), retired);
        if farewell.is_err() {
            tracing::debug!("the goodbye did not get through");
        }
    }
}

fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another agent runs on {}", folder.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn backlog_file(folder: &Path) -> PathBuf {
    folder.join("backlog")
}

fn sampler(config: &Config) -> Box<dyn Sampler + Send> {
    let root = Root::Live { data_dir: config.data_dir.clone() };
    let machine = LinuxSampler::new(root, config.telemetry.interface.clone());
    match config.emulate {
        Some(board) => Box::new(EmulatedSampler::new(machine, board)),
        None => Box::new(machine),
    }
}
