//! The trainer's process: started when there is something to train, spoken to over its pipes, watched, and gone with
//! whoever started it.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use twin_shared::pipe::{Event, MAX_FRAME, PIPE_VERSION, PipeError, Request, decode_body, encode_frame};

use crate::config::Trainer;

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
    Ended(String),
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
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
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
        let reader = tokio::spawn(read(child, stdout, news_in)).abort_handle();
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
        self.news.recv().await.unwrap_or_else(|| News::Ended("its pipe is closed".to_owned()))
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
async fn read(mut child: Child, mut pipe: ChildStdout, news: mpsc::Sender<News>) {
    let why = loop {
        match next_event(&mut pipe).await {
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
            Err(error) => break Some(error.to_string()),
        }
    };
    if why.is_some()
        && let Err(error) = child.start_kill()
    {
        tracing::debug!(%error, "the trainer has ended already");
    }
    let end = match child.wait().await {
        Ok(status) => describe(status),
        Err(error) => error.to_string(),
    };
    let message = why.map_or_else(|| end.clone(), |why| format!("{why}; {end}"));
    // Nobody may want to know any more.
    let _ = news.send(News::Ended(message)).await;
}

async fn next_event(pipe: &mut ChildStdout) -> Result<Event, PipeError> {
    let mut prefix = [0; 4];
    match pipe.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(PipeError::Closed),
        Err(error) => return Err(error.into()),
    }
    let length = u32::from_le_bytes(prefix) as usize;
    if length > MAX_FRAME {
        return Err(PipeError::TooLong(length));
    }
    let mut body = vec![0; length];
    pipe.read_exact(&mut body).await?;
    decode_body(&body)
}

/// How a process ended, and what that often means.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "killed by signal 9: by the kernel, if memory ran out".to_owned(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
