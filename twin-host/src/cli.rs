//! The command line: definitions and dispatch. Every command returns what went wrong as a [`Failure`], which says the
//! exit status and one line for the person at the terminal.

mod accuracy;
mod bench;
mod bytes;
mod cell_bar;
mod classes;
mod demo;
mod device_list;
mod devices;
mod enrolment;
mod field;
mod fleet;
mod job;
mod label;
mod logs;
mod model;
mod models;
pub(crate) mod schedule;
mod serve;
mod show;
mod trainer;

use clap::{Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::process::ExitCode;

/// The twin host: twins of boards, a scheduler that decides who trains what where, and the experiments about it.
#[derive(Debug, Parser)]
#[command(name = "twin-host", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide students, sites and shares for one scenario
    Schedule(schedule::ScheduleArguments),
    /// Serve boards: broker, twins, scheduler, and a job where one is named
    Serve(serve::ServeArguments),
    /// Work with configuration files
    #[command(subcommand)]
    Config(serve::ConfigCommand),
    /// Make a device known, or a list of them: one folder each to copy to the board
    Enroll(enrolment::EnrollArguments),
    /// Lock a device out
    Revoke(devices::DeviceArguments),
    /// Have boards renew certificate and sealing key
    Renew(enrolment::RenewArguments),
    /// Look after the certificate authority
    #[command(subcommand)]
    Authority(enrolment::AuthorityCommand),
    /// Print access rules for an external broker, or write all that it needs
    Acl(enrolment::AclArguments),
    /// List the devices
    Devices(devices::ListArguments),
    /// Show one device's twin
    Show(devices::DeviceArguments),
    /// What a device has said to the operator
    Logs(logs::LogsArguments),
    /// The list of classes: names with indices that never change
    #[command(subcommand)]
    Classes(classes::ClassesCommand),
    /// Give pictures that wait on a board their labels, where its owner lets this host see them
    Label(label::LabelArguments),
    /// Write a device's model to a file
    Export(models::ExportArguments),
    /// List a device's models
    Models(models::ModelsArguments),
    /// Have a device answer by its latest model, or the one named
    Promote(models::VersionArguments),
    /// Have a device answer by the model before the present one, or the one named
    Rollback(models::VersionArguments),
    /// Give a device's twin, images and student to another card in its place; its old keys are worth nothing any more
    Replace(fleet::ReplaceArguments),
    /// Delete a device: its twin, its images, its models
    Forget(fleet::ForgetArguments),
    /// Copy the data directory, while the host serves or not
    Backup(fleet::BackupArguments),
    /// Put a copy of the data directory back
    Restore(fleet::RestoreArguments),
    /// Start, watch and steer training jobs
    #[command(subcommand)]
    Job(job::JobCommand),
    /// The networks, and what they make of images
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Measure this machine
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Run one of the experiments behind the tables
    #[command(subcommand)]
    Experiment(Experiment),
}

#[derive(Debug, Subcommand)]
enum Experiment {
    /// Train students by distillation, alone and by FedAvg, as in Tables 1 and 2
    Accuracy(Box<accuracy::AccuracyArguments>),
    /// Compare what student states cost in bytes with what they cost in accuracy
    Bytes(bytes::BytesArguments),
    /// Compare policies over random draws, as in Tables 3 and 4
    Scheduling(schedule::SchedulingArguments),
    /// A host and four boards on this machine, on real digits, end to end
    Demo(demo::DemoArguments),
    /// Run a plan over boards: links, throttling, kills; record it, report on it
    Field(field::FieldArguments),
    /// Decide a recorded run again by other policies, without any board
    Replay(field::ReplayArguments),
    /// Regret of learned tables against episodes, bins and levels
    Learning(schedule::LearningArguments),
}

/// How output that is data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One object on standard output.
    Json,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage or configuration: exit status 2.
    Usage(String),
    /// Anything else: exit status 1.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs the program.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help and version: wanted output, not an error.
            return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Err(error) => return report(&Failure::Usage(first_line(&error.to_string()))),
    };
    let outcome = match cli.command {
        Command::Schedule(arguments) => schedule::schedule(&arguments),
        Command::Experiment(Experiment::Scheduling(arguments)) => schedule::experiment(&arguments),
        Command::Serve(arguments) => serve::serve(arguments),
        Command::Config(serve::ConfigCommand::Default) => print(crate::config::DEFAULT),
        Command::Enroll(arguments) => enrolment::enroll(&arguments),
        Command::Revoke(arguments) => enrolment::revoke(&arguments),
        Command::Renew(arguments) => enrolment::renew(&arguments),
        Command::Authority(command) => enrolment::authority(&command),
        Command::Acl(arguments) => enrolment::acl(&arguments),
        Command::Devices(arguments) => devices::list(&arguments),
        Command::Show(arguments) => devices::show(&arguments),
        Command::Logs(arguments) => logs::logs(&arguments),
        Command::Classes(command) => classes::classes(command),
        Command::Label(arguments) => label::label(&arguments),
        Command::Export(arguments) => models::export(&arguments),
        Command::Models(arguments) => models::models(&arguments),
        Command::Promote(arguments) => models::promote(arguments),
        Command::Rollback(arguments) => models::rollback(arguments),
        Command::Replace(arguments) => fleet::replace(&arguments),
        Command::Forget(arguments) => fleet::forget(&arguments),
        Command::Backup(arguments) => fleet::backup(&arguments),
        Command::Restore(arguments) => fleet::restore(&arguments),
        Command::Job(command) => job::job(command),
        Command::Model(command) => model::model(command),
        Command::Bench(command) => bench::bench(command),
        Command::Experiment(Experiment::Accuracy(arguments)) => accuracy::accuracy(*arguments),
        Command::Experiment(Experiment::Bytes(arguments)) => bytes::bytes(arguments),
        Command::Experiment(Experiment::Demo(arguments)) => demo::demo(arguments),
        Command::Experiment(Experiment::Field(arguments)) => field::field(arguments),
        Command::Experiment(Experiment::Replay(arguments)) => field::again(&arguments),
        Command::Experiment(Experiment::Learning(arguments)) => schedule::learning(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// The message of a usage error without the usage text after it.
fn first_line(text: &str) -> String {
    let message: Vec<&str> = text.lines().take_while(|line| !line.starts_with("Usage:")).map(str::trim).collect();
    let message = message.join(" ");
    let message = message.trim().trim_start_matches("error:").trim();
    let message = message.split_once(" For more information").map_or(message, |(before, _)| before);
    format!("{}; see --help", message.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// One line on standard error, and the status.
fn report(failure: &Failure) -> ExitCode {
    let (line, status) = match failure {
        Failure::Usage(line) => (line.clone(), 2),
        Failure::Failed(error) => (format!("{error:#}"), 1),
    };
    // Nowhere is left to report a failure of standard error itself.
    let _ = writeln!(std::io::stderr(), "error: {line}");
    ExitCode::from(status)
}

/// A line for people on standard error; a closed one is no reason to stop.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes to standard output; a reader that has gone away is no error of ours.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::from(error).context("cannot write to standard output").into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
