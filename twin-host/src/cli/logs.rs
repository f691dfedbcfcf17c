//! `logs`.

use clap::Args;
use serde_json::json;
use twin_shared::id::DeviceId;

use super::devices::{DataArguments, failed};
use super::{Failure, Format, print};

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// The device's name
    device: DeviceId,
    /// The latest so many lines; a thousand of each device are kept
    #[arg(long, default_value_t = 100)]
    lines: u32,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    data: DataArguments,
}

/// Prints what a device has said.
pub(crate) fn logs(arguments: &LogsArguments) -> Result<(), Failure> {
    let store = arguments.data.store()?;
    store.device(&arguments.device).map_err(failed)?;
    let lines = store.log(&arguments.device, arguments.lines).map_err(failed)?;
    match arguments.format {
        Format::Json => {
            let lines: Vec<_> =
                lines.iter().map(|line| json!({ "at": line.at, "level": line.level, "text": line.text })).collect();
            print(&format!("{}\n", json!({ "device": arguments.device.as_str(), "lines": lines })))
        }
        Format::Table => lines.iter().try_for_each(|line| {
            // A board's words are not to steer the terminal.
            print(&format!("{}  {:<7}  {}\n", line.at, line.level, line.text.escape_default()))
        }),
    }
}
