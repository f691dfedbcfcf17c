//! The composition root of the serving host: broker, one link a board, store, trainers and the coordinator of a job.
//! One task owns the coordinator and the store; nobody shares them.

mod bookkeeper;
mod job;
mod life;
mod links;
mod listening;
mod models;
mod registrar;
mod requests;
mod roster;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use twin_shared::id::{BootId, DeviceId};

use bookkeeper::Bookkeeper;
pub use job::{JobFailure, JobReport, MemberReport};

use crate::broker::embedded::{StartError, TlsError};
use crate::broker::external::{CanaryError, ExternalError};
use crate::broker::{Address, Broker};
use crate::config::{BrokerChoice, Config};
use crate::control::{Control, ControlStartError};
use crate::enroll::{AuthorityError, EnrollError};
use crate::link::{FromBoard, LinkCounts, LinkOrder};
use crate::recording::Recorder;
use crate::store::{Store, StoreError};
use links::{Links, Surroundings};
use listening::Notary;
use registrar::Registrar;
use roster::Roster;

/// A host that serves.
pub struct Host {
    config: Config,
    store: Store,
    broker: Arc<dyn Broker>,
    links: Arc<Links>,
    from_boards: mpsc::Receiver<FromBoard>,
    control: Control,
    /// Counts the host's starts.
    life: u64,
    /// Jobs that this life has run, or gone on with.
    runs: u32,
    /// Where this life's trainers write; what they have written is moved from there to its place.
    work: PathBuf,
    started: Instant,
    dispatcher: JoinHandle<()>,
    bookkeeper: Bookkeeper,
    registrar: JoinHandle<()>,
    stop_registrar: watch::Sender<bool>,
    recorder: Option<Recorder>,
}

/// Why the host does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The embedded broker.
    #[error(transparent)]
    Broker(#[from] StartError),
    /// The control socket, or another host has it.
    #[error(transparent)]
    Control(#[from] ControlStartError),
    /// The broker's certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The certificate authority's beginning.
    #[error(transparent)]
    Enrolment(#[from] EnrollError),
    /// The external broker lets devices reach each other, or could not be examined.
    #[error(transparent)]
    Canary(#[from] CanaryError),
    /// The external broker is not there, or does not want the host.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// An external broker needs certificates.
    #[error("an external broker is reached with certificates, and there is no authority")]
    NoAuthority,
}

impl Host {
    /// Opens the data directory, starts the broker or examines the external one, and greets every enrolled board.
    /// Devices that are enrolled or locked out later are seen while the host serves.
    ///
    /// # Errors
    /// When store, authority or broker refuse, or another host serves the directory.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let store = Store::open(&config.data_dir)?;
        let control = Control::start(store.root())?;
        let epoch = store.begin_epoch()?;
        let work = store.begin_work(epoch)?;
        let started = Instant::now();
        let boot = BootId(rand::random());
        let needs_authority = match config.broker {
            BrokerChoice::Embedded => config.tls.is_some(),
            BrokerChoice::External { .. } => true,
        };
        let notary = needs_authority.then(|| Notary::open(&store, &config, SystemTime::now())).transpose()?;
        let roster = Arc::new(Roster::default());
        let (broker, inbox) = listening::start(&config, notary.as_ref(), Arc::clone(&roster)).await?;
        let (up, from_boards) = mpsc::channel(256);
        let devices = store.devices()?;
        let bookkeeper = Bookkeeper::start(&store, devices.iter().map(|record| &record.device))?;
        let (desk, asks) = mpsc::channel(64);
        let (ledger, metered) = (bookkeeper.ledger(), config.metered.clone());
        let surroundings = Surroundings { broker: broker.any(), boot, epoch, started, up, desk, ledger, metered };
        let links = Arc::new(Links::new(surroundings));
        let any = broker.any();
        let mut registrar = Registrar::new(Store::open(&config.data_dir)?, broker, Arc::clone(&links), roster, notary);
        if let Err(error) = registrar.look().await {
            any.shutdown().await;
            return Err(error);
        }
        let (stop_registrar, stopped) = watch::channel(false);
        let registrar = tokio::spawn(registrar.run(asks, stopped));
        let dispatching = Arc::clone(&links);
        let dispatcher = tokio::spawn(async move { dispatching.dispatch(inbox).await });
        Ok(Self {
            config,
            store,
            broker: any,
            links,
            from_boards,
            control,
            life: epoch,
            runs: 0,
            work,
            started,
            dispatcher,
            bookkeeper,
            registrar,
            stop_registrar,
            recorder: None,
        })
    }

    /// Writes down what is seen from now on: samples, events, decisions. See `twin-host experiment replay`.
    ///
    /// # Errors
    /// When the folder refuses.
    pub fn record(&mut self, folder: &Path) -> io::Result<()> {
        self.recorder = Some(Recorder::open(folder)?);
        Ok(())
    }

    /// Where boards connect.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.broker.addresses()
    }

    /// Has a board's link do something; a board without one is locked out.
    pub(crate) fn order(&self, device: &DeviceId, order: LinkOrder) {
        self.links.order(device, order);
    }

    /// The host's memory.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Tells every board that the host stops, and ends all connections. Returns what each link counted.
    pub async fn stop(mut self) -> BTreeMap<DeviceId, LinkCounts> {
        // Nobody reads what boards say any more: no link may wait for that.
        self.from_boards.close();
        while self.from_boards.recv().await.is_some() {}
        self.stop_registrar.send_replace(true);
        if let Err(error) = self.registrar.await {
            tracing::error!(%error, "the registrar ended badly");
        }
        let counts = self.links.farewell().await;
        self.broker.shutdown().await;
        self.dispatcher.abort();
        self.bookkeeper.close().await;
        counts
    }
}
