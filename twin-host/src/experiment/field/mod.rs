//! Field tests: a plan is run over boards that this machine plays or that are somewhere; what boards report, what is
//! decided and what happens is recorded, a report is written, and the recorded run is decided again by other policies.

mod files;
mod look;
mod network;
pub(crate) mod plan;
mod quota;
pub(crate) mod replay;
mod report;
mod stage;
mod timeline;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use twin_core::scheduler::policy::PolicyKind;

use crate::control::{Event, Happened};
use crate::recording::{Recording, unix_now};
use crate::store::Store;
use look::{Done, Run, Standing};
use plan::{Boards, CountFrom, Plan};
use replay::{Replay, Terms, replay};
pub(crate) use stage::Programs;
use stage::Stage;

/// A replay in a row, and what its figures are.
pub(crate) mod figures {
    pub(crate) use super::report::{HEADER, figures};
}

/// What a field test is given.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The plan's file.
    pub(crate) plan: PathBuf,
    /// digits.csv.gz, for boards that are played.
    pub(crate) digits: PathBuf,
    /// Where everything goes; emptied first.
    pub(crate) out: PathBuf,
    pub(crate) programs: Programs,
    /// What the run is decided again by.
    pub(crate) policies: Vec<PolicyKind>,
}

/// A file in the output folder that says that the folder is a field test's own, to be emptied by the next one.
const MARK: &str = ".twinstill-field";
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(200);
/// Episodes of a table's training in a replay, as the host's default has it.
pub(crate) const EPISODES: u64 = 20_000;

/// Where a test's recording is.
pub(crate) fn recording_of(out: &Path) -> PathBuf {
    out.join("record")
}

/// Runs a field test and writes its report. Fails where the fleet did not come through.
pub(crate) async fn run(request: &Request) -> anyhow::Result<String> {
    let text = fs::read_to_string(&request.plan).with_context(|| request.plan.display().to_string())?;
    let plan = Plan::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", request.plan.display()))?;
    let base = request.plan.parent().unwrap_or(Path::new("."));
    let out = empty(&request.out)?;
    fs::write(out.join("plan.toml"), &text)?;
    let mut stage = Stage::set(&plan, base, &out, &request.programs, &request.digits).await?;
    let how = stage.described();
    let began = unix_now();
    let mut done = Vec::new();
    let ran = act(&plan, &mut stage, &recording_of(&out), &mut done).await;
    let ended = stage.end().await;
    let over = unix_now();
    let standing = standing(&plan, &out, stage.data_dir())?;
    drop(stage);
    let recording = Recording::read(&recording_of(&out))?;
    let replays = replays(&recording, over, &request.policies)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let run = Run { plan, how, cores, began, over, done, recording, standing, replays };
    files::write(&run, &out)?;
    fs::write(out.join("timeline.svg"), timeline::draw(&run))?;
    let page = out.join("report.md");
    fs::write(&page, report::markdown(&run))?;
    ran.and(ended).with_context(|| format!("the test did not come to its end; so far: {}", page.display()))?;
    let failures = run.failures();
    if failures.is_empty() {
        return Ok(format!("{}\nreport: {}\n", report::summary(&run), page.display()));
    }
    bail!("{}\nreport: {}\nnot as it should be:\n  {}", report::summary(&run), page.display(), failures.join("\n  "))
}

/// The folder, empty. One that is not a field test's own is refused.
fn empty(out: &Path) -> anyhow::Result<PathBuf> {
    if out.is_dir() && !out.join(MARK).is_file() && fs::read_dir(out)?.next().is_some() {
        bail!("{}: the folder is in use and no earlier field test's; name another by --out", out.display());
    }
    if out.is_dir() {
        fs::remove_dir_all(out).with_context(|| out.display().to_string())?;
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    fs::write(out.join(MARK), "")?;
    out.canonicalize().with_context(|| out.display().to_string())
}

/// A recorded run decided again by each of these policies.
pub(crate) fn replays(recording: &Recording, end: f64, policies: &[PolicyKind]) -> anyhow::Result<Vec<Replay>> {
    let again = |policy: &PolicyKind| {
        let terms = Terms { policy: *policy, hysteresis: None, episodes: EPISODES, seed: None };
        replay(&recording.moments, end, &terms).map_err(anyhow::Error::from)
    };
    policies.iter().filter(|_| !recording.moments.is_empty()).map(again).collect()
}

/// Acts the plan out, to its end or the job's.
async fn act(plan: &Plan, stage: &mut Stage, recording: &Path, done: &mut Vec<Done>) -> anyhow::Result<()> {
    let began = Instant::now();
    let progress = bar(plan.length);
    let mut events = Tail { path: recording.join("events.jsonl"), read: 0, half: Vec::new() };
    let mut zero = (plan.count_from == CountFrom::Start).then_some(Duration::ZERO);
    let mut next = 0;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    stage.begin().await?;
    loop {
        let now = began.elapsed();
        for event in events.new_lines() {
            if matches!(event.happened, Happened::Teacher { .. }) {
                zero = zero.or(Some(now));
            }
            if let Happened::Ended { state, why } = event.happened {
                match state.as_str() {
                    "finished" => return Ok(()),
                    state => bail!("the job is {state}: {}", why.unwrap_or_default()),
                }
            }
        }
        while let (Some(zero), Some(step)) = (zero, plan.steps.get(next))
            && zero + step.at <= now
        {
            next += 1;
            progress.set_message(format!("{} {}", step.target, step.change));
            let outcome = stage.change(&step.target, step.change).await;
            done.push(Done {
                planned: Some(step.at),
                at: began.elapsed(),
                target: step.target.clone(),
                change: Some(step.change),
                what: step.change.to_string(),
                failure: outcome.err().map(|error| format!("{error:#}")),
            });
        }
        for ended in stage.revive()? {
            done.push(Done {
                planned: None,
                at: now,
                target: ended.target,
                change: None,
                what: "ended by itself and was started again".into(),
                failure: Some(ended.status.to_string()),
            });
        }
        if now >= plan.length {
            return Ok(());
        }
        progress.set_position(now.as_secs());
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            _ = &mut interrupted => bail!("stopped"),
        }
    }
}

/// A bar on standard error, seen on a terminal only.
fn bar(length: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:32} {wide_bar} {elapsed} gone, {eta} left");
    let bar = ProgressBar::new(length.as_secs());
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

/// What is appended to the recording's events.
struct Tail {
    path: PathBuf,
    read: u64,
    /// A line whose end is not there yet.
    half: Vec<u8>,
}

impl Tail {
    fn new_lines(&mut self) -> Vec<Event> {
        let Ok(mut file) = fs::File::open(&self.path) else { return Vec::new() };
        let mut new = Vec::new();
        if file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_end(&mut new)).is_err() {
            return Vec::new();
        }
        self.read += new.len() as u64;
        self.half.extend(new);
        let whole = self.half.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines: Vec<u8> = self.half.drain(..whole).collect();
        lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// Whether each played board and its twin hold the same student at the end, by each side's own file.
fn standing(plan: &Plan, out: &Path, data_dir: &Path) -> anyhow::Result<Vec<Standing>> {
    let Boards::Emulated { boards, .. } = &plan.boards else { return Ok(Vec::new()) };
    let store = Store::open(data_dir)?;
    let of = |name: &twin_shared::id::DeviceId| -> anyhow::Result<Standing> {
        let Some(student) = store.student(name)? else { return Ok(Standing::None) };
        let hash = |path: PathBuf| fs::read(path).ok().map(|bytes| twin_shared::id::BlobHash::of(&bytes));
        let twin = hash(store.blobs(name)?.path(&student.state));
        let board = hash(stage::board_folder(out, name).join("data/blobs").join(student.state.to_string()));
        Ok(match (twin, board) {
            (Some(twin), Some(board)) if twin == board => Standing::Equal,
            (Some(_), Some(_)) => Standing::Unequal,
            (None, _) | (_, None) => Standing::OnOneSide,
        })
    };
    boards.iter().map(|board| of(&board.name)).collect()
}
