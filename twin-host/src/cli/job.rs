//! `job …`: jobs are started and steered through the host that serves, and looked at in its database.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use twin_core::coordinator::JobProgress;
use twin_shared::id::{DeviceId, JobId};

use super::devices::{DataArguments, failed};
use super::{Failure, Format, print};
use crate::config::Job;
use crate::control::{Answer, ControlError, Conversation, Event, Happened, Request, ask};
use crate::store::{JobRecord, JobState, Store};

/// `job …`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Hand a job to the host that serves; it runs when those before it are done
    Start(StartArguments),
    /// Show how far a job is
    Status(WatchArguments),
    /// Let boards and trainers rest; the job keeps its place
    Pause(OneArguments),
    /// Go on with a job that was paused, has failed or was stopped
    Resume(OneArguments),
    /// End a job; what it has trained stays
    Stop(OneArguments),
    /// Take a device into the job that runs: it starts from the present teacher
    Join(MemberArguments),
    /// Take a device out of the job that runs
    Leave(MemberArguments),
    /// List all jobs
    List(ListArguments),
}

/// Arguments of `job start`.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    /// The job file
    file: PathBuf,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    data: DataArguments,
}

/// How a job is followed.
#[derive(Debug, Args)]
struct Watch {
    /// Tell what happens until the job has ended; with --format json one object a line
    #[arg(long)]
    watch: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Arguments of `job status`.
#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// The job's number; the latest without one
    job: Option<u32>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    data: DataArguments,
}

/// Arguments of commands on one job.
#[derive(Debug, Args)]
pub(crate) struct OneArguments {
    /// The job's number; the latest without one
    job: Option<u32>,
    #[command(flatten)]
    data: DataArguments,
}

/// Arguments of `job join` and `job leave`.
#[derive(Debug, Args)]
pub(crate) struct MemberArguments {
    /// The job's number
    job: u32,
    /// The device
    device: DeviceId,
    #[command(flatten)]
    data: DataArguments,
}

/// Arguments of `job list`.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    data: DataArguments,
}

fn refused(error: ControlError) -> Failure {
    Failure::Failed(error.into())
}

/// Does what `job` is asked.
pub(crate) fn job(command: JobCommand) -> Result<(), Failure> {
    match command {
        JobCommand::Start(arguments) => start(&arguments),
        JobCommand::Status(arguments) => status(&arguments),
        JobCommand::Pause(arguments) => steer(&arguments, "pausing", |job| Request::JobPause { job }),
        JobCommand::Resume(arguments) => steer(&arguments, "resumed", |job| Request::JobResume { job }),
        JobCommand::Stop(arguments) => steer(&arguments, "stopping", |job| Request::JobStop { job }),
        JobCommand::Join(arguments) => {
            let request = Request::JobJoin { job: JobId(arguments.job), device: arguments.device };
            ask(&arguments.data.directory()?, &request).map(drop).map_err(refused)
        }
        JobCommand::Leave(arguments) => {
            let request = Request::JobLeave { job: JobId(arguments.job), device: arguments.device };
            ask(&arguments.data.directory()?, &request).map(drop).map_err(refused)
        }
        JobCommand::List(arguments) => list(&arguments),
    }
}

fn start(arguments: &StartArguments) -> Result<(), Failure> {
    let path = &arguments.file;
    let spec = std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    // Said here, so that a wrong file is wrong usage whether or not a host serves.
    let listed = arguments.data.store()?.classes().map_err(failed)?.count();
    Job::parse(&spec, listed).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    let Watch { watch, format } = arguments.watch;
    let mut host = ask(&arguments.data.directory()?, &Request::JobStart { spec, watch }).map_err(refused)?;
    let Answer::Done { job: Some(job), .. } = host.answer else { return Err(refused(ControlError::CutOff)) };
    if watch {
        return follow(&mut host, format);
    }
    match format {
        Format::Json => print(&format!("{}\n", json!({ "job": job.0 }))),
        Format::Table => print(&format!("job {job} is queued\n")),
    }
}

/// The job that is meant: the one that is named, or the latest.
fn chosen(store: &Store, named: Option<u32>) -> Result<JobRecord, Failure> {
    match named {
        Some(job) => store.job(JobId(job)).map_err(failed),
        None => {
            let latest = store.jobs().map_err(failed)?.pop();
            latest.ok_or_else(|| Failure::Failed(anyhow!("there is no job yet: twin-host job start FILE.toml")))
        }
    }
}

fn steer(arguments: &OneArguments, done: &str, request: impl Fn(JobId) -> Request) -> Result<(), Failure> {
    let job = chosen(&arguments.data.store()?, arguments.job)?.job;
    ask(&arguments.data.directory()?, &request(job)).map_err(refused)?;
    print(&format!("job {job}: {done}\n"))
}

fn status(arguments: &WatchArguments) -> Result<(), Failure> {
    let store = arguments.data.store()?;
    let record = chosen(&store, arguments.job)?;
    let Watch { watch, format } = arguments.watch;
    if watch && !record.state.is_over() {
        let request = Request::Watch { job: Some(record.job) };
        return follow(&mut ask(&arguments.data.directory()?, &request).map_err(refused)?, format);
    }
    let listed = u16::try_from(record.classes.len()).unwrap_or(u16::MAX);
    let job = Job::parse(&record.spec, listed).ok();
    let epochs = store.epochs_done(record.job).map_err(failed)?;
    let members = store.members(record.job).map_err(failed)?;
    let devices: Vec<Value> = members
        .iter()
        .map(|(device, progress)| {
            json!({
                "device": device.as_str(),
                "epochs": epochs.get(device).copied().unwrap_or(0),
                "standing": progress.name(),
                "why": progress.left(),
            })
        })
        .collect();
    let shown = json!({
        "job": record.job.0,
        "state": record.state.name(),
        "why": record.outcome,
        "stage": record.progress.name(),
        "teacher": match &record.progress {
            JobProgress::Distilling { teacher, .. } => Some(teacher.to_string()),
            JobProgress::Gathering | JobProgress::Teaching(_) => None,
        },
        "epochs": job.map(|job| job.student.recipe.epochs),
        "objective": record.objective,
        "classes": record.classes,
        "parent": record.parent.map(|parent| parent.0),
        "devices": devices,
    });
    match format {
        Format::Json => print(&format!("{shown}\n")),
        Format::Table => {
            let why = record.outcome.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            print(&format!("job {} is {}{why}; {}\n", record.job, record.state, record.progress.name()))?;
            let mut table = tabled::builder::Builder::default();
            table.push_record(["device", "epochs", "standing"]);
            for (device, progress) in &members {
                let done = epochs.get(device).copied().unwrap_or(0);
                let standing = progress.left().unwrap_or_else(|| progress.name().to_owned());
                table.push_record([device.to_string(), done.to_string(), standing]);
            }
            print(&format!("{}\n", table.build().with(tabled::settings::Style::psql())))
        }
    }
}

fn list(arguments: &ListArguments) -> Result<(), Failure> {
    let jobs = arguments.data.store()?.jobs().map_err(failed)?;
    match arguments.format {
        Format::Json => {
            let jobs = jobs.iter().map(|record| {
                json!({
                    "job": record.job.0,
                    "state": record.state.name(),
                    "why": record.outcome,
                    "stage": record.progress.name(),
                    "started": record.started,
                })
            });
            print(&format!("{}\n", json!({ "jobs": jobs.collect::<Vec<_>>() })))
        }
        Format::Table => {
            let mut table = tabled::builder::Builder::default();
            table.push_record(["job", "state", "stage", "why"]);
            for record in &jobs {
                let why = record.outcome.clone().unwrap_or_default();
                let stage = record.progress.name().to_owned();
                table.push_record([record.job.to_string(), record.state.to_string(), stage, why]);
            }
            print(&format!("{}\n", table.build().with(tabled::settings::Style::psql())))
        }
    }
}

/// Prints events until the job has ended; a job that was not finished is a failure.
fn follow(host: &mut Conversation, format: Format) -> Result<(), Failure> {
    while let Some(event) = host.next_event().map_err(refused)? {
        match format {
            Format::Json => {
                let line = serde_json::to_string(&event).map_err(anyhow::Error::from)?;
                print(&format!("{line}\n"))?;
            }
            Format::Table => print(&format!("{}\n", sentence(&event)))?,
        }
        if let Happened::Ended { state, why } = &event.happened {
            if *state == JobState::Finished.name() {
                return Ok(());
            }
            let why = why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            return Err(Failure::Failed(anyhow!("job {} is {state}{why}", event.job)));
        }
    }
    Err(Failure::Failed(anyhow!(
        "the host told no more: it has ended, or the watcher was too slow; twin-host job status --watch watches again"
    )))
}

/// An event for people.
fn sentence(event: &Event) -> String {
    let job = event.job;
    let text = match &event.happened {
        Happened::Queued => "queued".into(),
        Happened::Started { resumed: false } => "started".into(),
        Happened::Started { resumed: true } => "goes on where it was".into(),
        Happened::Online { device } => format!("{device} is connected"),
        Happened::Offline { device } => format!("{device} is gone"),
        Happened::Dataset { device, version } => format!("the twin of {device} holds dataset {version:.12}"),
        Happened::Progress { task, device: Some(device), step, steps } => {
            format!("{task} of {device}: {step} of {steps}")
        }
        Happened::Progress { task, device: None, step, steps } => format!("{task}: {step} of {steps}"),
        Happened::Teacher { loss, .. } => format!("the teacher is trained, loss {loss:.4}"),
        Happened::Round { device, round, site, loss, seconds, .. } => {
            format!("{device} has done epoch {} ({site}) in {seconds:.1} s, loss {loss:.4}", round + 1)
        }
        Happened::Kept { device, round, site, .. } => {
            format!("{device} has done epoch {} ({site}), its state stays there for now", round + 1)
        }
        Happened::Offloaded { device, round, why } => {
            format!("the host trains epoch {} of {device}: {why}", round + 1)
        }
        Happened::Refused { device, why } => format!("{device}: {why}"),
        Happened::TakenLate { device, round } => format!("{device}: epoch {round} came late and is taken all the same"),
        Happened::Scored { device, round, network, own, all } => format!(
            "{device}: {network} after epoch {round}: {} of {} held-out samples of its own, {} of {} of all",
            own.correct, own.total, all.correct, all.total
        ),
        Happened::Left { device, why } => format!("{device} takes no further part: {why}"),
        Happened::Joined { device } => format!("{device} takes part from now on"),
        Happened::Model { device, version, held_out: Some(right) } => {
            format!("{device} has model {version:.12}, {:.1} % right on its held-out images", right * 100.0)
        }
        Happened::Model { device, version, held_out: None } => format!("{device} has model {version:.12}"),
        Happened::Ended { state, .. } => state.clone(),
    };
    format!("job {job}: {}", text.escape_debug())
}
