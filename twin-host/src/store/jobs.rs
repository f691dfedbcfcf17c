//! Jobs in the database: what was asked for, how far each is, and every epoch that was done on both sides.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::str::FromStr;

use rusqlite::{OptionalExtension, Row, params};
use twin_core::coordinator::{JobProgress, Progress, RoundRecord};
use twin_data::classes::ClassList;
use twin_shared::id::{BlobHash, DeviceId, JobId};

use super::{Store, StoreError};

/// What has become of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It waits for its turn.
    Queued,
    /// It runs, or ran when the host ended and goes on with its next start.
    Running,
    /// It was paused and keeps its place.
    Paused,
    /// All its students are trained.
    Finished,
    /// It could not go on; `job resume` tries again from where it was.
    Failed,
    /// It was ended.
    Stopped,
}

impl JobState {
    const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Paused, Self::Finished, Self::Failed, Self::Stopped];

    /// The word for it in the database and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// Whether nothing more comes of it unless somebody asks.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Finished | Self::Failed | Self::Stopped => true,
            Self::Queued | Self::Running | Self::Paused => false,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownState;

impl FromStr for JobState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(UnknownState)
    }
}

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    /// Its number.
    pub job: JobId,
    /// The job file, as it was given.
    pub spec: String,
    /// Seconds since 1970 when it was asked for.
    pub started: i64,
    /// Its classes by index, fixed when it was asked for.
    pub classes: Vec<String>,
    /// The job whose teacher its own goes on from.
    pub parent: Option<JobId>,
    /// What has become of it.
    pub state: JobState,
    /// Why it ended, where it ended early.
    pub outcome: Option<String>,
    /// How far it is as a whole.
    pub progress: JobProgress,
    /// Eq. (6) at its first decision.
    pub objective: Option<f64>,
}

/// The latest epoch of a device's student.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudentRecord {
    /// The job.
    pub job: JobId,
    /// Epochs done, less one.
    pub round: u32,
    /// The network's name.
    pub architecture: String,
    /// Where the epoch was trained.
    pub site: String,
    /// The state.
    pub state: BlobHash,
}

/// What a job has come to since it was written down last; all of it is, or nothing.
#[derive(Debug, Default)]
pub(crate) struct Advance<'a> {
    /// How far the job is as a whole, where that has changed.
    pub(crate) job: Option<&'a JobProgress>,
    /// How far devices are, where that has changed, with the version of the latest twin document of each.
    pub(crate) members: Vec<(&'a DeviceId, &'a Progress, u64)>,
    /// Epochs that are done on both sides.
    pub(crate) rounds: Vec<&'a RoundRecord>,
}

impl Advance<'_> {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.job.is_none() && self.members.is_empty() && self.rounds.is_empty()
    }
}

const JOB: &str = "SELECT id, spec, started, state, outcome, progress, objective, classes, parent FROM job";

impl Store {
    /// Takes a job in, with the names of its classes, and the job whose teacher its own goes on from; its number. It
    /// waits for its turn.
    ///
    /// # Errors
    /// When the database refuses or the job's directory cannot be made.
    pub fn queue_job(&self, spec: &str, classes: &[String], parent: Option<JobId>) -> Result<JobId, StoreError> {
        let sql = "INSERT INTO job (spec, state, classes, parent) VALUES (?1, 'queued', ?2, ?3) RETURNING id";
        let values = params![spec, json(&classes), parent.map(|parent| parent.0)];
        let job = JobId(self.asked(self.records.query_row(sql, values, |row| row.get(0)))?);
        let directory = self.job_directory(job);
        fs::create_dir_all(&directory).map_err(|error| StoreError::Files { path: directory.clone(), error })?;
        Ok(job)
    }

    /// The latest finished job on the list's classes that has fewer of them than the list has now.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn widened(&self, list: &ClassList) -> Result<Option<JobId>, StoreError> {
        let mut jobs = self.jobs()?;
        jobs.retain(|job| job.state == JobState::Finished && list.names().starts_with(&job.classes));
        let latest = jobs.pop().filter(|job| !job.classes.is_empty() && job.classes.len() < list.names().len());
        Ok(latest.map(|job| job.job))
    }

    /// Takes in a job like an earlier one, with the list's present classes; its teacher goes on from the earlier one's.
    ///
    /// # Errors
    /// When the earlier one is unknown or the database refuses.
    pub fn widen_job(&self, earlier: JobId) -> Result<JobId, StoreError> {
        let record = self.job(earlier)?;
        self.queue_job(&record.spec, self.classes()?.names(), Some(earlier))
    }

    /// Every job, the first one first.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        let mut statement = self.asked(self.records.prepare(&format!("{JOB} ORDER BY id")))?;
        let rows = self.asked(statement.query_map([], fields))?;
        rows.map(|row| self.job_record(self.asked(row)?)).collect()
    }

    /// One job.
    ///
    /// # Errors
    /// When it is unknown, or the database refuses or is damaged.
    pub fn job(&self, job: JobId) -> Result<JobRecord, StoreError> {
        let row = self.records.query_row(&format!("{JOB} WHERE id = ?1"), [job.0], fields);
        let row = self.asked(row.optional())?.ok_or(StoreError::UnknownJob(job))?;
        self.job_record(row)
    }

    /// The job whose turn it is: the one that ran when the host ended, else the one that has waited longest.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn next_job(&self) -> Result<Option<JobRecord>, StoreError> {
        let sql = format!("{JOB} WHERE state IN ('running', 'queued') ORDER BY state DESC, id LIMIT 1");
        let row = self.asked(self.records.query_row(&sql, [], fields).optional())?;
        row.map(|row| self.job_record(row)).transpose()
    }

    /// What has become of a job, and why where it ended early.
    ///
    /// # Errors
    /// When the job is unknown or the database refuses.
    pub fn set_job_state(&self, job: JobId, state: JobState, outcome: Option<&str>) -> Result<(), StoreError> {
        let sql = "UPDATE job SET state = ?2, outcome = ?3 WHERE id = ?1";
        match self.asked(self.records.execute(sql, params![job.0, state.name(), outcome]))? {
            0 => Err(StoreError::UnknownJob(job)),
            _ => Ok(()),
        }
    }

    /// Eq. (6) at a job's first decision.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn set_objective(&self, job: JobId, objective: f64) -> Result<(), StoreError> {
        let sql = "UPDATE job SET objective = ?2 WHERE id = ?1 AND objective IS NULL";
        self.asked(self.records.execute(sql, params![job.0, objective])).map(drop)
    }

    /// Writes down how far a job is, in one transaction.
    ///
    /// # Errors
    /// When the database refuses; nothing is written then.
    pub(crate) fn advance_job(&mut self, job: JobId, advance: &Advance<'_>) -> Result<(), StoreError> {
        let path = self.root.join("twin.sqlite");
        let mut write = || {
            let transaction = self.records.transaction()?;
            if let Some(progress) = advance.job {
                let sql = "UPDATE job SET progress = ?2 WHERE id = ?1";
                transaction.execute(sql, params![job.0, json(progress)])?;
            }
            for (device, progress, document) in &advance.members {
                let sql = "INSERT OR REPLACE INTO member (job, device, progress) VALUES (?1, ?2, ?3)";
                transaction.execute(sql, params![job.0, device.as_str(), json(progress)])?;
                let sql = "INSERT INTO twin (device, document) VALUES (?1, ?2)
                           ON CONFLICT (device) DO UPDATE SET document = max(document, excluded.document)";
                let document = i64::try_from(*document).unwrap_or(i64::MAX);
                transaction.execute(sql, params![device.as_str(), document])?;
            }
            for record in &advance.rounds {
                let sql = "INSERT OR REPLACE INTO round (job, device, round, architecture, site, state, loss, total_s)
                           VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
                let values = params![
                    job.0,
                    record.device.as_str(),
                    record.round.0,
                    record.allotment.architecture.name(),
                    record.site.to_string(),
                    record.state.0,
                    f64::from(record.loss),
                    record.measured.total.0,
                ];
                transaction.execute(sql, values)?;
            }
            transaction.commit()
        };
        write().map_err(|error| StoreError::Records { path, error })
    }

    /// How far each device of a job is, where anything was written down.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn members(&self, job: JobId) -> Result<BTreeMap<DeviceId, Progress>, StoreError> {
        let sql = "SELECT device, progress FROM member WHERE job = ?1";
        let mut statement = self.asked(self.records.prepare(sql))?;
        let rows =
            self.asked(statement.query_map([job.0], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))))?;
        rows.map(|row| {
            let (name, progress) = self.asked(row)?;
            let device = name.parse().map_err(|_| self.damaged(format!("the device name {name:?}")))?;
            Ok((device, self.progress_of(job, &name, &progress)?))
        })
        .collect()
    }

    /// How far one device of a job is, if anything was written down.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn member(&self, job: JobId, device: &DeviceId) -> Result<Option<Progress>, StoreError> {
        let sql = "SELECT progress FROM member WHERE job = ?1 AND device = ?2";
        let row = self.records.query_row(sql, params![job.0, device.as_str()], |row| row.get::<_, String>(0));
        let text = self.asked(row.optional())?;
        text.map(|text| self.progress_of(job, device.as_str(), &text)).transpose()
    }

    fn progress_of(&self, job: JobId, device: &str, text: &str) -> Result<Progress, StoreError> {
        serde_json::from_str(text)
            .map_err(|error| self.damaged(format!("the progress of {device} in job {job} ({error})")))
    }

    /// The latest epoch of a device's student.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn student(&self, device: &DeviceId) -> Result<Option<StudentRecord>, StoreError> {
        self.student_within(None, device)
    }

    /// The latest epoch of a device's student in a job.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn student_of(&self, job: JobId, device: &DeviceId) -> Result<Option<StudentRecord>, StoreError> {
        self.student_within(Some(job), device)
    }

    fn student_within(&self, job: Option<JobId>, device: &DeviceId) -> Result<Option<StudentRecord>, StoreError> {
        let sql = "SELECT job, round, architecture, site, state FROM round WHERE device = ?1 AND job = ifnull(?2, job)
                   ORDER BY job DESC, round DESC LIMIT 1";
        let row = self.records.query_row(sql, params![device.as_str(), job.map(|job| job.0)], |row| {
            Ok(StudentRecord {
                job: JobId(row.get(0)?),
                round: row.get(1)?,
                architecture: row.get(2)?,
                site: row.get(3)?,
                state: BlobHash(row.get(4)?),
            })
        });
        self.asked(row.optional())
    }

    /// Epochs that each device has done in a job.
    ///
    /// # Errors
    /// When the database refuses or is damaged.
    pub fn epochs_done(&self, job: JobId) -> Result<BTreeMap<DeviceId, u32>, StoreError> {
        let sql = "SELECT device, max(round) + 1 FROM round WHERE job = ?1 GROUP BY device";
        let mut statement = self.asked(self.records.prepare(sql))?;
        let rows =
            self.asked(statement.query_map([job.0], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?))))?;
        rows.map(|row| {
            let (name, done) = self.asked(row)?;
            Ok((name.parse().map_err(|_| self.damaged(format!("the device name {name:?}")))?, done))
        })
        .collect()
    }

    fn job_record(&self, fields: Fields) -> Result<JobRecord, StoreError> {
        let (id, spec, started, state, outcome, progress, objective, classes, parent) = fields;
        let job = JobId(id);
        let state = state.parse().map_err(|UnknownState| self.damaged(format!("the state {state:?} of job {job}")))?;
        let progress = match progress {
            None => JobProgress::Gathering,
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| self.damaged(format!("the progress of job {job} ({error})")))?,
        };
        let classes = serde_json::from_str(&classes)
            .map_err(|error| self.damaged(format!("the classes of job {job} ({error})")))?;
        let parent = parent.map(JobId);
        Ok(JobRecord { job, spec, started, classes, parent, state, outcome, progress, objective })
    }
}

type Fields = (u32, String, i64, String, Option<String>, Option<String>, Option<f64>, String, Option<u32>);

fn fields(row: &Row<'_>) -> rusqlite::Result<Fields> {
    let job = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?);
    let (id, spec, started, state, outcome, progress) = job;
    Ok((id, spec, started, state, outcome, progress, row.get(6)?, row.get(7)?, row.get(8)?))
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with text keys serialises")
}
