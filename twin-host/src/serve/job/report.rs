//! What a job came to, and why one fails.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::task::JoinError;
use twin_core::coordinator::{Fatal, RoundRecord};
use twin_core::twin::DatasetCounts;
use twin_data::blobs::BlobError;
use twin_shared::id::{DeviceId, JobId};
use twin_shared::wire::Birth;
use twin_shared::wire::telemetry::Telemetry;

use crate::calibration::{Calibration, CalibrationError};
use crate::decide::DecideError;
use crate::export::ExportError;
use crate::store::StoreError;
use crate::train::TrainError;

/// What a job came to.
#[derive(Debug)]
pub struct JobReport {
    /// Its number.
    pub job: JobId,
    /// The teacher's weights.
    pub teacher: PathBuf,
    /// Every epoch that was done on both sides.
    pub rounds: Vec<RoundRecord>,
    /// Each device at the end.
    pub members: BTreeMap<DeviceId, MemberReport>,
    /// What this host takes for each network.
    pub calibration: Calibration,
    /// Eq. (6) summed over the devices, at the first decision.
    pub objective: f64,
}

/// A device at the end of a job.
#[derive(Debug, Clone)]
pub struct MemberReport {
    /// Its dataset's counts.
    pub counts: Option<DatasetCounts>,
    /// Its dataset on the host.
    pub dataset: Option<PathBuf>,
    /// Its last sample.
    pub telemetry: Option<Telemetry>,
    /// What it said of itself.
    pub birth: Option<Birth>,
    /// Its student at the end.
    pub student: Option<PathBuf>,
    /// Why it took no part to the end.
    pub left: Option<String>,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobFailure {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The trainer does not start.
    #[error(transparent)]
    Trainer(#[from] TrainError),
    /// Nothing could be measured.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// Nothing could be decided.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// The coordinator gave up.
    #[error("{0}")]
    Fatal(#[from] Fatal),
    /// The job names a device that is not enrolled.
    #[error("{0} is not enrolled; run twin-host enroll {0} --out DIR first")]
    Unknown(DeviceId),
    /// A finished student could not be scored.
    #[error("scoring the student of {0}: {1}")]
    Scoring(DeviceId, String),
    /// A finished student makes no model.
    #[error("making a model: {0}")]
    Export(#[from] ExportError),
    /// What made a model did not come to an end.
    #[error("making a model: {0}")]
    Making(#[from] JoinError),
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
}
