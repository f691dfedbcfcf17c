//! The loop: requests in, one granted step at a time, events out.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Instant;

use anyhow::Context;
use twin_learn::device::Choice;
use twin_learn::{LearnError, Place, Progress, Run, precision};
use twin_shared::pipe::{Event, Job, PIPE_VERSION, PipeError, Request, Ticket, read_frame, write_frame};

use crate::jobs::prepare;

/// The LibTorch that tch is made for; it offers no way to ask the library itself.
const LIBTORCH: &str = "2.9";

/// A line for people. A closed standard error is no reason to stop training.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Serves requests until standard input closes or a shutdown is asked for.
pub(crate) fn serve(choice: &Choice, place: Place, threads: i32) -> anyhow::Result<()> {
    let ready = Event::Ready {
        version: PIPE_VERSION,
        libtorch: LIBTORCH.into(),
        device: choice.told.clone(),
        threads: u32::try_from(threads).unwrap_or(1),
        precision: precision::name(place.compute).into(),
    };
    let mut server = Server { place, jobs: BTreeMap::new(), grants: VecDeque::new() };
    send(&ready)?;
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("requests".into())
        .spawn(move || read_requests(&sender))
        .context("starting the thread that reads requests")?;
    server.run(&receiver)
}

fn send(event: &Event) -> anyhow::Result<()> {
    write_frame(&mut io::stdout().lock(), event).context("writing an event")
}

/// Ends with the pipe; the error of a broken one goes to whoever receives.
fn read_requests(sender: &Sender<Result<Request, PipeError>>) {
    let mut input = io::stdin().lock();
    loop {
        let request = read_frame(&mut input);
        let last = request.is_err();
        if sender.send(request).is_err() || last {
            return;
        }
    }
}

enum Next {
    Request(Request),
    Step,
    End,
}

struct Active {
    run: Box<dyn Run>,
    done: u32,
}

struct Server {
    place: Place,
    jobs: BTreeMap<Ticket, Active>,
    /// Steps granted and not yet done, in the order of arrival.
    grants: VecDeque<(Ticket, u32)>,
}

impl Server {
    fn run(&mut self, requests: &Receiver<Result<Request, PipeError>>) -> anyhow::Result<()> {
        loop {
            match self.next(requests)? {
                Next::Request(Request::Submit { ticket, job }) => self.submit(ticket, *job)?,
                Next::Request(Request::Grant { ticket, steps }) => {
                    // A grant to a job that has just ended crossed its last event on the way.
                    if self.jobs.contains_key(&ticket) && steps > 0 {
                        self.grants.push_back((ticket, steps));
                    }
                }
                Next::Request(Request::Cancel { ticket }) => self.forget(ticket),
                Next::Request(Request::Save { ticket }) => self.save(ticket)?,
                Next::Request(Request::Shutdown) | Next::End => return Ok(()),
                Next::Step => self.step()?,
            }
        }
    }

    /// Requests come before steps, so a cancellation is never overtaken.
    fn next(&self, requests: &Receiver<Result<Request, PipeError>>) -> anyhow::Result<Next> {
        let received = if self.grants.is_empty() {
            requests.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            requests.try_recv()
        };
        match received {
            Ok(Ok(request)) => Ok(Next::Request(request)),
            Ok(Err(PipeError::Closed)) | Err(TryRecvError::Disconnected) => Ok(Next::End),
            Ok(Err(error)) => Err(error).context("reading a request"),
            Err(TryRecvError::Empty) => Ok(Next::Step),
        }
    }

    fn submit(&mut self, ticket: Ticket, job: Job) -> anyhow::Result<()> {
        if self.jobs.contains_key(&ticket) {
            self.forget(ticket);
            let message = format!("ticket {} was in use; its job is dropped and the new one refused", ticket.0);
            return send(&Event::Failed { ticket, message });
        }
        let place = self.place;
        match guarded(|| prepare(job, place)) {
            Ok(run) => {
                let steps = run.steps();
                self.jobs.insert(ticket, Active { run, done: 0 });
                send(&Event::Accepted { ticket, steps })
            }
            Err(message) => send(&Event::Failed { ticket, message }),
        }
    }

    /// A job that has just ended has nothing to save: its last event says more.
    fn save(&mut self, ticket: Ticket) -> anyhow::Result<()> {
        let Some(active) = self.jobs.get(&ticket) else { return Ok(()) };
        match guarded(|| active.run.save()) {
            Ok(()) => send(&Event::Saved { ticket }),
            Err(message) => {
                self.forget(ticket);
                send(&Event::Failed { ticket, message })
            }
        }
    }

    fn forget(&mut self, ticket: Ticket) {
        self.jobs.remove(&ticket);
        self.grants.retain(|(granted, _)| *granted != ticket);
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let Some((ticket, steps)) = self.grants.pop_front() else {
            return Ok(());
        };
        if steps > 1 {
            self.grants.push_front((ticket, steps - 1));
        }
        let Some(active) = self.jobs.get_mut(&ticket) else {
            return Ok(());
        };
        let start = Instant::now();
        let result = guarded(|| active.run.step());
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(Progress { loss, block, outcome }) => {
                active.done += 1;
                if let Some(block) = block {
                    send(&Event::Block { ticket, block })?;
                }
                send(&Event::Stepped { ticket, step: active.done, seconds, loss })?;
                if let Some(outcome) = outcome {
                    self.forget(ticket);
                    send(&Event::Done { ticket, outcome })?;
                }
                Ok(())
            }
            Err(message) => {
                self.forget(ticket);
                send(&Event::Failed { ticket, message })
            }
        }
    }
}

/// Turns errors, and panics that come out of LibTorch's bindings all the same, into one line.
fn guarded<T>(work: impl FnOnce() -> Result<T, LearnError>) -> Result<T, String> {
    let message = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            format!("internal error: {}", text.unwrap_or("a panic without a message"))
        }
    };
    Err(message.lines().next().unwrap_or_default().to_owned())
}
