//! `twin-agent`, the resident program of a board.

use std::process::ExitCode;

fn main() -> ExitCode {
    twin_agent::cli::main()
}
