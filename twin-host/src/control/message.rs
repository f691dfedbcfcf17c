//! What is asked of a host, and its answer.

use serde::{Deserialize, Serialize};
use twin_shared::id::{DeviceId, JobId};

/// What is asked of a host that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Take in a job; it runs when those before it are done.
    JobStart {
        /// The job file's text.
        spec: String,
        /// Send events until it has ended.
        #[serde(default)]
        watch: bool,
    },
    /// Send events of a job until it has ended, or of all jobs.
    Watch {
        /// Which; all without one.
        #[serde(default)]
        job: Option<JobId>,
    },
    /// Let boards and trainers rest; the job keeps its place.
    JobPause {
        /// Which.
        job: JobId,
    },
    /// Go on with a job that was paused, has failed or was stopped.
    JobResume {
        /// Which.
        job: JobId,
    },
    /// End a job. What it has trained stays.
    JobStop {
        /// Which.
        job: JobId,
    },
    /// A device takes part in a job from now on.
    JobJoin {
        /// Which job.
        job: JobId,
        /// Which device.
        device: DeviceId,
    },
    /// Take in a job like an earlier one with the list's present classes; its teacher goes on from the earlier one's.
    JobWiden {
        /// The earlier one.
        job: JobId,
    },
    /// The list of classes has grown: tell boards.
    ClassesChanged,
    /// Have a device answer by a model.
    Promote {
        /// Which device.
        device: DeviceId,
        /// The beginning of the model's version; the latest without one.
        #[serde(default)]
        version: Option<String>,
    },
    /// Have a device answer by an earlier model.
    RollBack {
        /// Which device.
        device: DeviceId,
        /// The beginning of the model's version; the one before the present one without one.
        #[serde(default)]
        version: Option<String>,
    },
    /// Pictures of a device have got labels: tell its board.
    Labelled {
        /// Which device.
        device: DeviceId,
    },
    /// A device has a new card: what was known of its connection is worth nothing.
    Replaced {
        /// Which device.
        device: DeviceId,
    },
    /// A device is about to be forgotten: nothing may hold on to it.
    Release {
        /// Which device.
        device: DeviceId,
    },
    /// A device is taken out of a job.
    JobLeave {
        /// Which job.
        job: JobId,
        /// Which device.
        device: DeviceId,
    },
}

impl Request {
    /// The job whose events are wanted, where the request names it.
    #[must_use]
    pub const fn watched(&self) -> Option<JobId> {
        match self {
            Self::Watch { job } => *job,
            Self::JobStart { .. }
            | Self::JobPause { .. }
            | Self::JobResume { .. }
            | Self::JobStop { .. }
            | Self::JobJoin { .. }
            | Self::JobWiden { .. }
            | Self::ClassesChanged
            | Self::Promote { .. }
            | Self::RollBack { .. }
            | Self::Labelled { .. }
            | Self::Replaced { .. }
            | Self::Release { .. }
            | Self::JobLeave { .. } => None,
        }
    }

    /// Whether events follow the answer.
    #[must_use]
    pub const fn watches(&self) -> bool {
        match self {
            Self::JobStart { watch, .. } => *watch,
            Self::Watch { .. } => true,
            Self::JobPause { .. }
            | Self::JobResume { .. }
            | Self::JobStop { .. }
            | Self::JobJoin { .. }
            | Self::JobWiden { .. }
            | Self::ClassesChanged
            | Self::Promote { .. }
            | Self::RollBack { .. }
            | Self::Labelled { .. }
            | Self::Replaced { .. }
            | Self::Release { .. }
            | Self::JobLeave { .. } => false,
        }
    }
}

/// The host's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done, or is being done.
    Done {
        /// The job that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobId>,
        /// The model that it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// It is not; one line says why.
    Refused(String),
}
