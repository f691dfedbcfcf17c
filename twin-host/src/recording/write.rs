//! Writes a recording while the host serves.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use twin_shared::id::{DeviceId, JobId};
use twin_shared::wire::telemetry::Telemetry;

use super::{DECISIONS, EVENTS, RecordedSample, TELEMETRY};
use crate::control::Event;
use crate::decide::Record;

/// Seconds since 1970; 0 before.
pub(crate) fn unix_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A recording in the making.
#[derive(Debug)]
pub(crate) struct Recorder {
    telemetry: File,
    events: File,
    decisions: File,
}

/// A line of `decisions.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    at: f64,
    job: u32,
    number: u32,
    /// TOML: its numbers are read back to the bit.
    scenario: &'a str,
    record: &'a Record,
}

impl Recorder {
    /// Goes on with the recording of this folder, or begins one.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = |name: &str| {
            let mut file = OpenOptions::new().create(true).append(true).open(folder.join(name))?;
            // A host that was killed may have left half a line; what follows must not become part of it.
            if file.metadata()?.len() > 0 {
                file.write_all(b"\n")?;
            }
            Ok::<_, io::Error>(file)
        };
        Ok(Self { telemetry: file(TELEMETRY)?, events: file(EVENTS)?, decisions: file(DECISIONS)? })
    }

    /// A board has sent a sample.
    pub(crate) fn sample(&self, device: &DeviceId, sample: &Telemetry) {
        append(&self.telemetry, &RecordedSample::new(unix_now(), device, sample));
    }

    /// Something has happened in a job.
    pub(crate) fn event(&self, event: &Event) {
        append(&self.events, event);
    }

    /// A question was answered.
    pub(crate) fn decision(&self, job: JobId, number: u32, scenario: &str, record: &Record) {
        append(&self.decisions, &Line { at: unix_now(), job: job.0, number, scenario, record });
    }
}

/// One line; a full disk must not end the host.
fn append(mut file: &File, line: &impl Serialize) {
    let written = serde_json::to_vec(line).map_err(io::Error::from).and_then(|mut bytes| {
        bytes.push(b'\n');
        file.write_all(&bytes)
    });
    if let Err(error) = written {
        tracing::warn!(%error, "the recording has a gap");
    }
}
