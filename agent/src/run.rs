//! The resident agent: puts the parts together and turns the event loop.
//!
//! One thread. The loop waits for the connection, the trainer, room to send, the clock or a signal, tells the session,
//! and does what it wants. What takes long (hashing, flushing a disk, sampling) is done off the loop's thread; the
//! tasks of the connection go on meanwhile.

mod about;
mod calibrator;
mod change_over;
mod holdings;
mod perform;
mod speak;
mod telemetry;
mod waiting;

use std::fs::File;
use std::future::pending;
use std::time::{Duration, Instant};

use anyhow::Context;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::sleep_until;
use twin_data::blobs::Blobs;
use twin_shared::id::{BlobHash, BootId};
use twin_shared::pipe::Event;
use twin_shared::wire::BoardState;

use crate::backlog::{self, Backlog};
use crate::clock::{self, Clock};
use crate::config::{Config, Security};
use crate::courier::Courier;
use crate::dataset::{DatasetError, Ready};
use crate::guard::{Guard, Permit};
use crate::identity::{self, Births};
use crate::keys::{self, Keys};
use crate::mailbox::Mailbox;
use crate::models::Models;
use crate::outbox::{Outbox, Parcel};
use crate::pace::Pace;
use crate::renewal::Renewal;
use crate::sampler::{PathMeter, Sampler};
use crate::service::ServiceManager;
use crate::session::{Input, Session};
use crate::trainer::{self, TrainerProcess};
use crate::transport::{Backoff, Connection, Dialer, News, Outgoing};
use crate::workspace::Workspace;
use crate::{dataset, lock, off_loop};
use calibrator::{Calibrator, Progress};
use holdings::Watched;
use waiting::Waiting;

/// Often enough to know the path, and seldom enough that a board at rest costs few bytes.
const PING_EVERY: Duration = Duration::from_secs(30);

/// A broker that takes the connection and not the subscription is given up after so long.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(45);

/// Saving an epoch waits for the step in progress. The service manager gives the agent 90 s to end.
const SAVED_WITHIN: Duration = Duration::from_secs(60);

/// Meanwhile the service manager hears that the agent is alive.
const SIGN_WHILE_SAVING: Duration = Duration::from_secs(5);

/// A goodbye that does not get through is as good as a last will.
const FAREWELL: Duration = Duration::from_secs(2);

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
    Calibration(Progress),
    Room(OwnedPermit<Outgoing>),
    Dataset(Result<Ready, DatasetError>),
    Time,
    End,
}

struct Agent {
    config: Config,
    started: Instant,
    session: Session,
    mailbox: Mailbox,
    boot: BootId,
    keys: Keys,
    /// Keys that the host has given and that are not in use yet.
    next_keys: Option<Keys>,
    renewal: Renewal,
    clock: Clock,
    outbox: Outbox,
    courier: Courier,
    workspace: Workspace,
    dataset: Option<Watched>,
    waiting: Option<Waiting>,
    models: Models,
    /// What changed in the dataset, as it was last sent.
    delta: Option<BlobHash>,
    births: Births,
    dialer: Dialer,
    line: Line,
    backoff: Backoff,
    pace: Pace,
    /// Messages that were handled and are not acknowledged yet.
    handled: Vec<Publish>,
    trainer: Option<TrainerProcess>,
    calibrator: Calibrator,
    sampler: Option<Box<dyn Sampler + Send>>,
    guard: Guard,
    permit: Option<Permit>,
    path: PathMeter,
    ping: Option<(u64, Instant)>,
    backlog: Backlog,
    /// Samples of the backlog that are on their way to the host, and the blob that they are.
    flying: Option<(BlobHash, backlog::Outgoing)>,
    /// When the host may be offered samples of the backlog again.
    next_batch: Instant,
    service: ServiceManager,
    next_sample: Instant,
    next_ping: Instant,
    next_sign: Option<Instant>,
    told_service: &'static str,
    /// Held as long as the agent lives.
    _lock: File,
}

impl Agent {
    async fn start(mut config: Config) -> anyhow::Result<Self> {
        let service = ServiceManager::from_environment().context("the service manager")?;
        // The trainer reads the same paths from a folder of its own.
        config.data_dir = std::path::absolute(&config.data_dir)?;
        let folder = config.data_dir.clone();
        let lock = lock::take(&folder)?;
        let keys = Keys::load(&config.credentials, config.broker.security, &keys::file(&folder))
            .context("this board has no keys: copy the folder that `twin-host enroll` wrote for it")?;
        let clock = Clock::open(clock::file(&folder));
        let births = Births::open(folder.join("births"))?;
        let blobs = Blobs::open(folder.join("blobs"))?;
        let workspace = Workspace::open(folder.join("work"))?;
        let dataset = match config.dataset.clone() {
            None => None,
            Some(described) => Some(dataset::Source::open(described, &folder, blobs.clone())?),
        };
        let mut dataset = dataset.map(Watched::new);
        let ready = match &mut dataset {
            None => None,
            // A folder is read beside everything else; until then the board offers what it had before.
            Some(watched) if watched.source.is_folder() => {
                watched.load();
                watched.source.newest()?
            }
            Some(watched) => {
                let source = watched.source.clone();
                let loaded = off_loop(move || source.load()).await;
                Some(loaded.context("the dataset of [dataset] cannot be used")?)
            }
        };
        let mut memory = perform::recall(&folder)?;
        // A state that is gone, with its disk perhaps, was not trained.
        memory.trained = memory.trained.filter(|trained| blobs.contains(&trained.epoch.state));
        let backlog = telemetry::waiting(&config)?;
        let mut sampler = telemetry::sampler(&config);
        let first = sampler.sample(Instant::now());
        let offered = ready.as_ref().map(|ready| (ready.offer, ready.blob));
        let about = about::of(&config, &first, offered);
        let (device, started, boot) = (config.device.clone(), Instant::now(), identity::new_boot());
        let dialer = Dialer::new(&device, &keys, &config.broker, clock.provider())
            .context("TLS cannot be set up: copy the folder that `twin-host enroll` wrote for this board")?;
        tracing::info!(%device, broker = config.broker.host, port = config.broker.port, "the agent starts");
        Ok(Self {
            session: Session::new(about, memory),
            mailbox: Mailbox::new(device, keys.sealing.clone(), boot),
            boot,
            keys,
            next_keys: None,
            renewal: Renewal::default(),
            clock,
            outbox: Outbox::default(),
            courier: Courier::new(blobs, started),
            workspace,
            dataset,
            waiting: Waiting::of(&config),
            models: Models::at(&folder),
            delta: None,
            births,
            dialer,
            line: Line::Down { retry_at: started },
            backoff: Backoff::default(),
            pace: Pace::new(config.emulate.map(|board| board.uplink)),
            handled: Vec::new(),
            trainer: None,
            calibrator: Calibrator::new(&config),
            sampler: Some(sampler),
            guard: Guard::new(config.guard.clone()),
            permit: None,
            path: PathMeter::default(),
            ping: None,
            backlog,
            flying: None,
            next_batch: started,
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
        self.tell(Input::Begun).await;
        loop {
            match self.wait(&mut signals).await {
                Happening::Line(news) => self.on_line(news).await,
                Happening::Trainer(news) => self.on_trainer(news).await,
                Happening::Calibration(progress) => self.on_calibration(progress).await,
                Happening::Room(permit) => self.speak(permit),
                Happening::Dataset(loaded) => self.on_dataset(loaded).await,
                Happening::Time => {}
                Happening::End => break,
            }
            self.keep_time().await?;
        }
        self.save_epoch().await;
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
        let calibrator = &mut self.calibrator;
        let loading = self.dataset.as_mut().and_then(|watched| watched.loading.as_mut());
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
            progress = calibrator.next() => Happening::Calibration(progress),
            permit = async { match room { Some(room) => room.reserve_owned().await, None => pending().await } } => {
                // A connection that has ended says so itself.
                permit.map_or(Happening::Time, Happening::Room)
            }
            loaded = async { match loading { Some(loading) => loading.await, None => pending().await } } => {
                if let Some(watched) = &mut self.dataset {
                    watched.loading = None;
                }
                match loaded {
                    Ok(loaded) => Happening::Dataset(loaded),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
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
            if let Some(watched) = &mut self.dataset {
                watched.look();
            }
            self.show_waiting(now).await;
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
                // Without TLS nothing has vouched for the clock.
                if self.config.broker.security == Security::Mutual
                    && let Err(error) = self.clock.confirm()
                {
                    tracing::warn!(%error, "the time cannot be written down");
                }
                self.courier.reconnect();
                self.tell(Input::Connected { sequence: birth }).await;
            }
            News::Message(message) => {
                self.hear(message).await;
                if let Some(keys) = self.next_keys.take() {
                    self.change_over(keys).await;
                }
            }
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
                // The host says again that keys are due.
                self.renewal = Renewal::default();
                self.ping = None;
                self.tell(Input::Disconnected).await;
            }
        }
    }

    async fn on_trainer(&mut self, news: trainer::News) {
        match news {
            trainer::News::Event(event) => {
                if let Event::Ready { libtorch, .. } = &event {
                    self.calibrator.on_libtorch(libtorch);
                }
                self.tell(Input::Trainer(event)).await;
            }
            trainer::News::Ended(death) => {
                self.trainer = None;
                self.tell(Input::TrainerDied(death)).await;
            }
        }
    }

    async fn on_calibration(&mut self, progress: Progress) {
        match self.calibrator.on_progress(progress) {
            Some(Ok(known)) => self.tell(Input::Calibrated(known)).await,
            Some(Err(why)) => self.tell(Input::CalibrationFailed(why)).await,
            None => {}
        }
    }

    /// Has the trainer write down how far the epoch in progress is, as long as the service manager has patience.
    async fn save_epoch(&mut self) {
        let until = Instant::now() + SAVED_WITHIN;
        self.tell(Input::Ending).await;
        while self.session.is_saving()
            && let Some(trainer) = &mut self.trainer
        {
            match tokio::time::timeout(SIGN_WHILE_SAVING, trainer.next()).await {
                Ok(news) => self.on_trainer(news).await,
                Err(_) if Instant::now() < until => self.service.alive(),
                Err(_) => {
                    tracing::warn!("the trainer's step takes too long: this epoch begins anew");
                    return;
                }
            }
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
