//! The twin host's program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    twin_host::run()
}
