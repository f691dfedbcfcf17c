//! The twin host's program.
#![forbid(unsafe_code)]

mod cli;
mod experiment;

fn main() -> std::process::ExitCode {
    cli::run()
}
