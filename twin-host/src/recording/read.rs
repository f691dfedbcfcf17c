//! Reads a recording back. Lines that are none (a host was killed in their middle) are left out and counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use twin_core::scheduler::{Choice, RawScenario, Scenario, ScenarioError};
use twin_shared::model::Site;

use super::{DECISIONS, EVENTS, RecordedSample, TELEMETRY};
use crate::control::Event;

/// Longest line that is read: a decision on some thousand devices.
const LONGEST: u64 = 64 << 20;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    /// A file.
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    /// A decision's question.
    #[error("decision {number} of job {job}: {problem}")]
    Question { job: u32, number: u32, problem: String },
    /// A decision's question is no scenario.
    #[error("decision {number} of job {job}: {error}")]
    Scenario { job: u32, number: u32, error: ScenarioError },
}

/// What a host saw.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    pub(crate) samples: Vec<RecordedSample>,
    pub(crate) events: Vec<Event>,
    pub(crate) moments: Vec<Moment>,
    /// Lines that could not be read.
    pub(crate) unreadable: u32,
}

/// A question to the scheduler and its answer.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// When it was answered, seconds since 1970.
    pub(crate) at: f64,
    pub(crate) job: u32,
    pub(crate) number: u32,
    pub(crate) scenario: Scenario,
    pub(crate) answered: Answered,
}

/// The parts of a decision's record that a replay needs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Answered {
    pub(crate) policy: String,
    pub(crate) seed: u64,
    pub(crate) hysteresis: f64,
    pub(crate) objective: f64,
    pub(crate) average_delay_s: f64,
    /// What each device had before.
    pub(crate) present: Vec<Option<Had>>,
    pub(crate) devices: Vec<Got>,
}

/// What a device had.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Had {
    pub(crate) device: String,
    pub(crate) model: String,
    pub(crate) site: Site,
}

/// What a device got.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Got {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) site: Site,
    pub(crate) delay_s: f64,
    pub(crate) why: String,
}

#[derive(Deserialize)]
struct Line {
    at: f64,
    job: u32,
    number: u32,
    scenario: String,
    record: Answered,
}

impl Recording {
    /// Reads the recording of a folder. A file that is not there is an empty one.
    pub(crate) fn read(folder: &Path) -> Result<Self, RecordingError> {
        let mut unreadable = 0;
        let samples = lines(&folder.join(TELEMETRY), &mut unreadable)?;
        let events = lines(&folder.join(EVENTS), &mut unreadable)?;
        let decisions: Vec<Line> = lines(&folder.join(DECISIONS), &mut unreadable)?;
        let moments = decisions.into_iter().map(Moment::try_from).collect::<Result<_, _>>()?;
        Ok(Self { samples, events, moments, unreadable })
    }

    /// When the first and the last thing was seen, seconds since 1970.
    pub(crate) fn span(&self) -> Option<(f64, f64)> {
        let samples = self.samples.iter().map(|sample| sample.at);
        let events = self.events.iter().map(|event| event.at);
        let moments = self.moments.iter().map(|moment| moment.at);
        samples.chain(events).chain(moments).fold(None, |span, at| match span {
            None => Some((at, at)),
            Some((first, last)) => Some((f64::min(first, at), f64::max(last, at))),
        })
    }
}

impl TryFrom<Line> for Moment {
    type Error = RecordingError;

    fn try_from(line: Line) -> Result<Self, RecordingError> {
        let Line { at, job, number, scenario, record } = line;
        let raw: RawScenario = toml::from_str(&scenario).map_err(|error| RecordingError::Question {
            job,
            number,
            problem: error.message().to_owned(),
        })?;
        let scenario = Scenario::try_from(raw).map_err(|error| RecordingError::Scenario { job, number, error })?;
        Ok(Self { at, job, number, scenario, answered: record })
    }
}

impl Moment {
    /// A choice by names, where the scenario has it.
    pub(crate) fn choice(&self, model: &str, site: Site) -> Option<Choice> {
        let index = self.scenario.models().iter().position(|student| student.name == model)?;
        Some(Choice { model: u8::try_from(index).ok()?, site })
    }

    /// What every device had before, by name.
    pub(crate) fn had(&self) -> BTreeMap<String, (String, Site)> {
        let had = self.answered.present.iter().flatten();
        had.map(|had| (had.device.clone(), (had.model.clone(), had.site))).collect()
    }
}

fn lines<T: DeserializeOwned>(path: &Path, unreadable: &mut u32) -> Result<Vec<T>, RecordingError> {
    let failed = |error| RecordingError::File { path: path.to_owned(), error };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(failed)?,
    };
    let mut reader = BufReader::new(file);
    let mut found = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = io::Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line).map_err(failed)?;
        if length == 0 {
            return Ok(found);
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match serde_json::from_slice(text) {
            Ok(read) => found.push(read),
            Err(_) => *unreadable += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Happened;
    use crate::recording::{Figure, Recorder};
    use std::fs;
    use twin_shared::id::{DeviceId, JobId};
    use twin_shared::wire::telemetry::quantity::KilobitsPerSecond;
    use twin_shared::wire::telemetry::{Path as NetworkPath, Reading, Telemetry};

    #[test]
    fn what_is_recorded_is_read_back_also_after_a_kill_in_the_middle_of_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let device: DeviceId = "pi4".parse().expect("a name");
        let sample = Telemetry {
            path: NetworkPath { goodput_up: Reading::measured(KilobitsPerSecond(1500)), ..NetworkPath::default() },
            ..Telemetry::default()
        };
        let event = Event { at: 5.0, job: JobId(1), happened: Happened::Online { device: device.clone() } };
        let recorder = Recorder::open(folder.path()).expect("begun");
        recorder.sample(&device, &sample);
        recorder.event(&event);
        drop(recorder);
        let events = folder.path().join(EVENTS);
        let whole = fs::read(&events).expect("there");
        fs::write(&events, [&whole[..], &whole[..whole.len() / 2]].concat()).expect("written");
        let recorder = Recorder::open(folder.path()).expect("gone on with");
        recorder.event(&event);
        let read = Recording::read(folder.path()).expect("readable");
        assert_eq!(read.events, [event.clone(), event]);
        assert_eq!(read.unreadable, 1);
        let goodput = Figure { value: 1.5e6, source: "measured".into(), age_s: 0 };
        assert_eq!(read.samples[0].goodput_up_bits_per_second, Some(goodput));
        assert_eq!((&read.samples[0].link, &read.samples[0].clock_ghz), (&"unknown".to_owned(), &None));
        let (first, last) = read.span().expect("something was seen");
        assert_eq!((first, last), (5.0, read.samples[0].at));
    }
}
