//! The host's end of the socket. A connection can disturb nobody: it is bounded in number, length and time, and what it
//! asks goes to the task that owns the store.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use twin_shared::id::JobId;

use super::address::Address;
use super::event::Event;
use super::message::{Answer, Request};

/// Longest request, bytes: a job file of many devices.
const LONGEST_REQUEST: u64 = 1 << 20;

/// Connections at a time.
const CONNECTIONS: usize = 64;

/// How long a connection may take to ask, and one line may take to be read by it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Events that a slow watcher may be behind; one that is further behind is cut off.
const EVENTS: usize = 1024;

/// A request, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// Why the socket is not there.
#[derive(Debug, thiserror::Error)]
pub enum ControlStartError {
    /// Another host serves this directory.
    #[error("another twin-host serves {0}: end it first")]
    Taken(PathBuf),
    /// The system refused.
    #[error("{path}: {error}")]
    Socket {
        /// The data directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// The socket of a host that serves.
pub(crate) struct Control {
    /// What is asked.
    pub(crate) asked: mpsc::Receiver<Asked>,
    /// What is told.
    pub(crate) events: broadcast::Sender<Event>,
    accepting: JoinHandle<()>,
    /// Held for as long as the host serves: two on one data directory would undo each other's work.
    _lock: fs::File,
}

impl Control {
    /// Takes the data directory for this host, and listens.
    pub(crate) fn start(data_dir: &Path) -> Result<Self, ControlStartError> {
        let refused = |error| ControlStartError::Socket { path: data_dir.to_owned(), error };
        let lock = fs::File::create(data_dir.join("serve.lock")).map_err(refused)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(ControlStartError::Taken(data_dir.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(refused(error)),
        }
        let address = Address::of(data_dir).map_err(refused)?;
        // The lock is ours, so a socket that is there belongs to a host that is gone.
        match fs::remove_file(address.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(address.path()).map_err(refused)?;
        fs::set_permissions(address.path(), fs::Permissions::from_mode(0o600)).map_err(refused)?;
        let (ask, asked) = mpsc::channel(CONNECTIONS);
        let (events, _) = broadcast::channel(EVENTS);
        let accepting = tokio::spawn(accept(listener, ask, events.clone()));
        Ok(Self { asked, events, accepting, _lock: lock })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: UnixListener, ask: mpsc::Sender<Asked>, events: broadcast::Sender<Event>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (ask, events) = (ask.clone(), events.clone());
                tokio::spawn(async move {
                    // Whoever asked has gone away: nobody is left to be told.
                    let _ = serve(stream, ask, &events).await;
                    drop(place);
                });
            }
            // Too many open files, perhaps: not the listener's end.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve(stream: UnixStream, ask: mpsc::Sender<Asked>, events: &broadcast::Sender<Event>) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading.take(LONGEST_REQUEST));
    let mut line = String::new();
    tokio::time::timeout(PATIENCE, reading.read_line(&mut line)).await??;
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request,
        Err(error) => {
            let why = format!("the host does not understand the request: {error}");
            return write(&mut writing, &Answer::Refused(why)).await;
        }
    };
    // Before it is asked, so that nothing is missed.
    let watched = request.watches().then(|| events.subscribe());
    let named = request.watched();
    let (answer, answered) = oneshot::channel();
    let asked = ask.send(Asked { request, answer }).await;
    let answer = match asked {
        Ok(()) => answered.await.unwrap_or_else(|_| Answer::Refused("the host stops".into())),
        Err(_) => Answer::Refused("the host stops".into()),
    };
    write(&mut writing, &answer).await?;
    match (watched, answer) {
        (Some(watched), Answer::Done { job, .. }) => watch(watched, job.or(named), &mut reading, &mut writing).await,
        (None | Some(_), _) => Ok(()),
    }
}

/// Passes events on until the job's end, the watcher's or the host's.
async fn watch(
    mut events: broadcast::Receiver<Event>,
    job: Option<JobId>,
    reading: &mut BufReader<tokio::io::Take<OwnedReadHalf>>,
    writing: &mut tokio::net::unix::OwnedWriteHalf,
) -> io::Result<()> {
    let mut gone = [0];
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            // A watcher says nothing more: what can be read is its end.
            _ = reading.read(&mut gone) => return Ok(()),
        };
        match event {
            Ok(event) if job.is_none_or(|job| job == event.job) => {
                write(writing, &event).await?;
                if job.is_some() && event.is_end() {
                    return Ok(());
                }
            }
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

async fn write<T: serde::Serialize>(writing: &mut tokio::net::unix::OwnedWriteHalf, value: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(value).expect("plain data serialises");
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, writing.write_all(&line)).await?
}
