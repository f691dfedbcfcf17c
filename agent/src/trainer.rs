//! The trainer's process: started when there is something to train, spoken to over its pipes, watched, and gone with
//! whoever started it.

mod death;

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use twin_shared::pipe::{Event, PIPE_VERSION, PipeError, Request, encode_frame, receive_frame};

use crate::config::Trainer;
use death::OomKills;
pub use death::{Death, is_want_of_memory};

/// A trainer that was asked to end has so long for it.
const FAREWELL: Duration = Duration::from_secs(10);

/// Events that wait; a trainer that says more waits itself.
const QUEUE: usize = 16;

/// How much more readily than others the kernel takes the trainer when memory runs out: the board's own work and the
/// agent go on.
const OUT_OF_MEMORY_SCORE: &str = "800";

/// A running trainer; dropping it kills it.
#[derive(Debug)]
pub struct TrainerProcess {
    id: Option<u32>,
    requests: mpsc::UnboundedSender<Request>,
    news: mpsc::Receiver<News>,
    tasks: [AbortHandle; 2],
}

/// What a trainer's process says.
#[derive(Debug)]
pub enum News {
    /// An event.
    Event(Event),
    /// It has ended; why.
    Ended(Death),
}

/// Why a trainer does not start.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", program.display())]
pub struct NotStarted {
    program: PathBuf,
    error: io::Error,
}

impl TrainerProcess {
    /// Starts it, with the priority that the configuration gives it.
    ///
    /// # Errors
    /// When the program is missing or cannot be run.
    pub fn start(config: &Trainer) -> Result<Self, NotStarted> {
        let failed = |error| NotStarted { program: config.program.clone(), error };
        // Seen through `nice` a missing program would be an exit status.
        std::fs::metadata(&config.program).map_err(failed)?;
        let mut command = if config.niceness == 0 {
            Command::new(&config.program)
        } else {
            let mut nice = Command::new("nice");
            nice.arg("-n").arg(config.niceness.to_string()).arg(&config.program);
            nice
        };
        if let Some(threads) = config.threads {
            command.arg("--threads").arg(threads.to_string());
        }
        // In a group of its own: who interrupts the agent at a terminal leaves it to the agent to end its trainer.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let kills_before = OomKills::read();
        let mut child = command.spawn().map_err(failed)?;
        let id = child.id();
        if let Some(id) = id
            && let Err(error) = std::fs::write(format!("/proc/{id}/oom_score_adj"), OUT_OF_MEMORY_SCORE)
        {
            tracing::debug!(%error, "the trainer keeps its place in the kernel's list for want of memory");
        }
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(failed(io::Error::other("no pipes")));
        };
        let (requests, queue) = mpsc::unbounded_channel();
        let (news_in, news) = mpsc::channel(QUEUE);
        let writer = tokio::spawn(write(stdin, queue)).abort_handle();
        let reader = tokio::spawn(read(child, stdout, news_in, kills_before)).abort_handle();
        Ok(Self { id, requests, news, tasks: [writer, reader] })
    }

    /// Asks something of it. One that has ended says so by [`Self::next`].
    pub fn request(&self, request: Request) {
        if self.requests.send(request).is_err() {
            tracing::debug!("a trainer that has ended is asked for more");
        }
    }

    /// What it says next.
    pub async fn next(&mut self) -> News {
        self.news.recv().await.unwrap_or_else(|| News::Ended(Death::Pipe("its pipe is closed".to_owned())))
    }

    /// Memory that it holds, bytes, where the kernel says.
    #[must_use]
    pub fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// Lets it end by itself, and kills it if it does not in time.
    pub async fn retire(mut self) {
        self.request(Request::Shutdown);
        let ended = async { while let News::Event(_) = self.next().await {} };
        if timeout(FAREWELL, ended).await.is_err() {
            tracing::warn!("the trainer does not end and is killed");
        }
    }
}

impl Drop for TrainerProcess {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn write(mut pipe: ChildStdin, mut queue: mpsc::UnboundedReceiver<Request>) {
    while let Some(request) = queue.recv().await {
        let written = match encode_frame(&request) {
            Ok(frame) => pipe.write_all(&frame).await.map_err(PipeError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            // If the process has ended, the reader finds out why.
            tracing::warn!(%error, "the trainer cannot be told");
        }
    }
}

/// Passes on what the trainer says, to its end.
async fn read(mut child: Child, mut pipe: ChildStdout, news: mpsc::Sender<News>, kills_before: OomKills) {
    let nonsense = loop {
        match receive_frame(&mut pipe).await {
            Ok(Event::Ready { version, .. }) if version != PIPE_VERSION => {
                break Some(format!("it speaks version {version} of the pipe, not {PIPE_VERSION}"));
            }
            Ok(event) => {
                if let Event::Ready { libtorch, device, threads, .. } = &event {
                    tracing::info!(libtorch, device, threads, "the trainer is ready");
                }
                if news.send(News::Event(event)).await.is_err() {
                    return;
                }
            }
            Err(PipeError::Closed) => break None,
            // In the middle of a frame: it was cut off, and its end says by what.
            Err(PipeError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    if nonsense.is_some()
        && let Err(error) = child.start_kill()
    {
        tracing::debug!(%error, "the trainer has ended already");
    }
    let death = match (nonsense, child.wait().await) {
        (Some(nonsense), _) => Death::Pipe(nonsense),
        (None, Ok(status)) => Death::of(status, kills_before, OomKills::read()),
        (None, Err(error)) => Death::Pipe(error.to_string()),
    };
    // Nobody may want to know any more.
    let _ = news.send(News::Ended(death)).await;
}
