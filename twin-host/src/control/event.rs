//! What a host tells whoever watches: one JSON object a line.
//!
//! Every object has `at` (seconds since 1970), `job`, and `event`, which says what the rest means:
//!
//! | event | keys |
//! | --- | --- |
//! | `queued` | |
//! | `started` | `resumed`: whether it goes on from where it was |
//! | `online`, `offline` | `device` |
//! | `dataset` | `device`, `version` |
//! | `progress` | `task`, `device` (none for the teacher's), `step`, `steps`; at most one a second a task |
//! | `teacher` | `weights`, `loss` |
//! | `round` | `device`, `round` (from 0), `network`, `site`, `state`, `loss`, `seconds` |
//! | `kept` | `device`, `round`, `site`, `loss`: done, and its state stays there until a later exchange |
//! | `offloaded` | `device`, `round`, `why` |
//! | `taken_late` | `device`, `round`: the board's state came after its deadline and before the host's |
//! | `scored` | `device`, `round`, `network`, `own` and `all`: `correct` of `total` held-out samples of its own twin, and of all that were asked |
//! | `refused`, `left` | `device`, `why` |
//! | `joined` | `device` |
//! | `model` | `device`, `version`, `held_out` (fraction right, none where nothing is held out) |
//! | `ended` | `state`: paused, finished, failed or stopped; `why` where it ended early |
//!
//! Keys may be added; those that are here stay.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use twin_core::coordinator::{Note, Task};
use twin_shared::id::{DeviceId, JobId};
use twin_shared::pipe::Score;

/// Something that happened in a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since 1970.
    pub at: f64,
    /// In which job.
    pub job: JobId,
    /// What.
    #[serde(flatten)]
    pub happened: Happened,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the keys are in the module's table")]
pub enum Happened {
    Queued,
    Started { resumed: bool },
    Online { device: DeviceId },
    Offline { device: DeviceId },
    Dataset { device: DeviceId, version: String },
    Progress { task: String, device: Option<DeviceId>, step: u32, steps: u32 },
    Teacher { weights: String, loss: f32 },
    Round { device: DeviceId, round: u32, network: String, site: String, state: String, loss: f32, seconds: f64 },
    Kept { device: DeviceId, round: u32, site: String, loss: f32 },
    Offloaded { device: DeviceId, round: u32, why: String },
    TakenLate { device: DeviceId, round: u32 },
    Scored { device: DeviceId, round: u32, network: String, own: Score, all: Score },
    Refused { device: DeviceId, why: String },
    Left { device: DeviceId, why: String },
    Joined { device: DeviceId },
    Model { device: DeviceId, version: String, held_out: Option<f64> },
    Ended { state: String, why: Option<String> },
}

impl Event {
    /// That something happened now.
    pub(crate) fn now(job: JobId, happened: Happened) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self { at, job, happened }
    }

    /// Whether nothing more comes of the job for now.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self.happened, Happened::Ended { .. })
    }
}

impl Happened {
    /// What a note of the coordinator tells; `None` where it is for the logs alone.
    pub(crate) fn of(note: &Note) -> Option<Self> {
        Some(match note {
            Note::Unknown(_) => return None,
            Note::Online(device) => Self::Online { device: device.clone() },
            Note::Offline(device) => Self::Offline { device: device.clone() },
            Note::Refused(device, why) => Self::Refused { device: device.clone(), why: why.clone() },
            Note::Dataset { device, version, .. } => {
                Self::Dataset { device: device.clone(), version: version.to_string() }
            }
            Note::Progress { task, step, steps } => {
                let (name, device) = name_of(task);
                Self::Progress { task: name.into(), device: device.cloned(), step: *step, steps: *steps }
            }
            Note::Teacher { weights, loss } => Self::Teacher { weights: weights.to_string(), loss: *loss },
            Note::Round(record) => Self::Round {
                device: record.device.clone(),
                round: record.round.0,
                network: record.allotment.architecture.name().into(),
                site: record.site.to_string(),
                state: record.state.to_string(),
                loss: record.loss,
                seconds: record.measured.total.0,
            },
            Note::Kept { device, round, site, loss } => {
                Self::Kept { device: device.clone(), round: round.0, site: site.to_string(), loss: *loss }
            }
            Note::Offloaded { device, round, why } => {
                Self::Offloaded { device: device.clone(), round: round.0, why: why.clone() }
            }
            Note::TakenLate { device, round } => Self::TakenLate { device: device.clone(), round: round.0 },
            Note::Scored { device, round, architecture, scored } => Self::Scored {
                device: device.clone(),
                round: round.0,
                network: architecture.name().into(),
                own: scored.own,
                all: scored.all,
            },
            Note::Left(device, why) => Self::Left { device: device.clone(), why: why.clone() },
        })
    }
}

fn name_of(task: &Task) -> (&'static str, Option<&DeviceId>) {
    match task {
        Task::Count { device, .. } => ("count", Some(device)),
        Task::Teacher { .. } => ("teacher", None),
        Task::Init { device, .. } => ("init", Some(device)),
        Task::Labels { device, .. } => ("labels", Some(device)),
        Task::Epoch { device, .. } => ("epoch", Some(device)),
        Task::Score { device, .. } => ("score", Some(device)),
    }
}
