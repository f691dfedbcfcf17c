//! The demo: a host and its boards on one machine, on real digits, through real MQTT connections; then the baselines
//! on the same split and seed, a table, CSV files and a page.

mod baselines;
mod boards;
mod progress;
mod report;
mod result;
mod scenario;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use tokio::sync::watch;
use twin_core::coordinator::{Note, RoundRecord};
use twin_data::blobs::Blobs;
use twin_shared::id::DeviceId;
use twin_shared::model::Architecture;
use twin_shared::units::Gigahertz;

use baselines::{Baselines, Subject};
pub(crate) use boards::Programs;
use boards::{Agent, Layout, distribute};
use progress::Progress;
pub(crate) use result::Scored;
use result::{BoardResult, DelayResult, DemoResult, EpochResult, MethodScores, TeacherResult};
use scenario::{Board, Scenario};

use crate::LinkCounts;
use crate::broker::Address;
use crate::config::{Config, Job};
use crate::enroll::{Reach, enroll};
use crate::serve::{Host, JobReport};
use crate::store::{Store, StoreError};

/// What the demo is given.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The folder with boards.toml, host.toml and job.toml.
    pub(crate) scenario: PathBuf,
    /// digits.csv.gz.
    pub(crate) digits: PathBuf,
    /// Where everything goes; emptied first.
    pub(crate) out: PathBuf,
    /// What boards and host run.
    pub(crate) programs: Programs,
    /// What everything is scored on.
    pub(crate) scored: Scored,
}

/// A file in the output folder that says that the folder is the demo's own, to be emptied by the next run.
const MARK: &str = ".twinstill-demo";

/// Runs the demo. Fails where anything that it claims did not hold.
pub(crate) async fn run(request: &Request) -> anyhow::Result<String> {
    let read = |name: &str| {
        let path = request.scenario.join(name);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let scenario = Scenario::parse(&read("boards.toml")?).context("boards.toml")?;
    let job_text = read("job.toml")?;
    let job = Job::parse(&job_text, 0).context("job.toml")?;
    let mut config = Config::parse(&read("host.toml")?).context("host.toml")?;
    let layout = Layout { out: empty(&request.out)? };
    config.data_dir = layout.host();
    (config.plain, config.tls) = (Some(([127, 0, 0, 1], 0).into()), None);
    config.trainer.program.clone_from(&request.programs.trainer);
    let frequency = config.scheduler.frequency.context("host.toml: scheduler.frequency_ghz must be given")?;
    let core = Gigahertz(frequency.0 / f64::from(config.trainer.threads));

    let test = distribute(&request.digits, &scenario, request.scored, &layout)?;
    for board in &scenario.boards {
        // The port is not known before the broker listens; the folder is written then.
        fs::create_dir_all(layout.board(board)).with_context(|| layout.board(board).display().to_string())?;
    }
    let (stop, stopped) = watch::channel(false);
    let interrupted = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            let _ = stop.send(true);
        }
        // Kept until the end: a dropped sender would stop the job.
        std::future::pending::<()>().await;
    });
    let mut progress = Progress::new(&job, scenario.boards.len());
    let (report, counts, mut stages) =
        distil(&scenario, &job, &job_text, config.clone(), request, &layout, core, &mut progress, stopped.clone())
            .await?;
    let compared = Instant::now();
    let mut interrupt = stopped;
    let boards = tokio::select! {
        compared = compare(&scenario, &job, &config, &report, &counts, &layout, &mut progress) => compared?,
        _ = interrupt.changed() => bail!("stopped"),
    };
    interrupted.abort();
    stages.push(("baselines and scores".into(), compared.elapsed().as_secs_f64()));
    progress.finish();
    let (boards, teacher) = boards;
    let result = DemoResult {
        scale: scale(&scenario, core),
        seed: job.seed,
        teacher,
        policy: config.scheduler.policy.name().to_owned(),
        objective: report.objective,
        equal_epochs: equal_epochs(&report.rounds),
        scored: request.scored,
        samples: u32::try_from(test.len()).unwrap_or(u32::MAX),
        boards,
        stages,
    };
    finish(&result, &scenario, &job, &layout)
}

/// Writes the reports, and holds the run against what the demo claims.
fn finish(result: &DemoResult, scenario: &Scenario, job: &Job, layout: &Layout) -> anyhow::Result<String> {
    report::csv(result, &layout.out)?;
    let page = layout.out.join("report.html");
    fs::write(&page, report::html(result)).with_context(|| page.display().to_string())?;
    let table = report::table(result);
    let mut failures = report::verdict(result).err().unwrap_or_default();
    let expected = job.student.recipe.epochs as usize * scenario.boards.len();
    if result.equal_epochs as usize != expected {
        failures.push(format!("{} epochs of {expected} were done", result.equal_epochs));
    }
    if !failures.is_empty() {
        bail!(
            "{table}\nreport: {}\nthe demo ran, and does not show what it should:\n  {}",
            page.display(),
            failures.join("\n  ")
        );
    }
    Ok(format!("{table}\nreport: {}\n", page.display()))
}

/// How emulated gigahertz map to this machine.
fn scale(scenario: &Scenario, core: Gigahertz) -> String {
    let sum: f64 = scenario.boards.iter().map(|board| board.frequency / core).sum();
    format!(
        "emulated: {:.2} GHz stand for one core of this machine; the boards' trainers take {sum:.2} of a core together, \
         the host's trainer one",
        core.0
    )
}

/// Epochs after which the hash that the board took of its own file is the one that the host took of its own.
fn equal_epochs(rounds: &[RoundRecord]) -> u32 {
    let equal = rounds.iter().filter(|round| round.board_state == round.state).count();
    u32::try_from(equal).unwrap_or(u32::MAX)
}

/// The folder, empty. One that is not the demo's own is refused.
fn empty(out: &Path) -> anyhow::Result<PathBuf> {
    let strange = out.is_dir() && !out.join(MARK).is_file() && fs::read_dir(out)?.next().is_some();
    if strange {
        bail!("{}: the folder is in use and no earlier demo's; name another by --out", out.display());
    }
    if out.is_dir() {
        fs::remove_dir_all(out).with_context(|| out.display().to_string())?;
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let out = out.canonicalize().with_context(|| out.display().to_string())?;
    fs::write(out.join(MARK), "")?;
    Ok(out)
}

/// What the run of the fleet came to.
type Distilled = (JobReport, BTreeMap<DeviceId, LinkCounts>, Vec<(String, f64)>);

/// Host and boards from enrolment to the last confirmed epoch.
#[expect(clippy::too_many_arguments, reason = "everything the fleet is made from")]
async fn distil(
    scenario: &Scenario,
    job: &Job,
    job_text: &str,
    config: Config,
    request: &Request,
    layout: &Layout,
    core: Gigahertz,
    progress: &mut Progress,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Distilled> {
    let began = Instant::now();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a port for the broker")?;
    let port = listener.local_addr().context("a port for the broker")?.port();
    drop(listener);
    let mut config = config;
    (config.plain, config.tls) = (Some(([127, 0, 0, 1], port).into()), None);
    let store = Store::open(&config.data_dir)?;
    let reach = Reach { host: "127.0.0.1".into(), port, tls: false, broker_authority: None };
    for board in &scenario.boards {
        enroll(&store, &board.device, &layout.board(board), &reach, SystemTime::now())?;
    }
    let twins = scenario.boards.iter().map(|board| Ok((board.device.clone(), store.blobs(&board.device)?)));
    let twins = twins.collect::<Result<BTreeMap<_, _>, StoreError>>()?;
    drop(store);
    let mut host = Host::start(config).await?;
    if !host.addresses().iter().any(|address| matches!(address, Address::Plain(_))) {
        bail!("the broker does not listen");
    }
    let mut agents = Vec::new();
    for board in &scenario.boards {
        agents.push(Agent::start(&request.programs, board, layout, core)?);
    }
    let mut taught: Option<f64> = None;
    let mut aside = Ok(());
    let outcome = host
        .run_job(
            job,
            job_text,
            &mut |note: &Note| {
                if matches!(note, Note::Teacher { .. }) {
                    taught = Some(began.elapsed().as_secs_f64());
                }
                if let (Note::Round(record), Ok(())) = (note, &aside) {
                    aside = keep_aside(&twins, record, layout);
                }
                progress.note(note);
            },
            stopped,
        )
        .await;
    let ended = began.elapsed().as_secs_f64();
    // Boards are ended whatever came of the job; the first failure is the one that is told.
    for agent in agents {
        agent.stop().await.context("ending an agent")?;
    }
    let counts = host.stop().await;
    let report = outcome?;
    aside?;
    let taught = taught.unwrap_or(ended);
    let stages = vec![("copying, calibration and teacher".into(), taught), ("distillation".into(), ended - taught)];
    Ok((report, counts, stages))
}

/// Has the state after an epoch outlive the next one.
fn keep_aside(twins: &BTreeMap<DeviceId, Blobs>, record: &RoundRecord, layout: &Layout) -> anyhow::Result<()> {
    let blobs = twins.get(&record.device).context("the job has a board of its own")?;
    let (from, to) = (blobs.path(&record.state), layout.state(record));
    let folder = to.parent().context("a folder of states")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    fs::hard_link(&from, &to).with_context(|| format!("{} as {}", from.display(), to.display()))
}

/// The baselines, and everything's scores on the test set.
async fn compare(
    scenario: &Scenario,
    job: &Job,
    config: &Config,
    report: &JobReport,
    counts: &BTreeMap<DeviceId, LinkCounts>,
    layout: &Layout,
    progress: &mut Progress,
) -> anyhow::Result<(Vec<BoardResult>, TeacherResult)> {
    let mut trainer = config.trainer.clone();
    trainer.threads = config.teacher_threads;
    let mut baselines = Baselines::start(&trainer, layout.out.join("baselines"), layout.test_set()).await?;
    let epochs = job.student.recipe.epochs;
    let scored = |epoch: u32| epoch == epochs || epoch.is_multiple_of(scenario.score_every);
    let subjects = subjects(scenario, report)?;
    progress.comparing(
        u64::from(epochs) * subjects.len() as u64 * 2,
        u64::from(scenario.fedavg.rounds) * subjects.len() as u64,
    );
    let architecture = most_frequent(&subjects);
    let averaged = baselines
        .fedavg(&subjects, architecture, scenario.fedavg, job, &mut || progress.compared())
        .await
        .context("FedAvg")?;
    let mut boards = Vec::new();
    for ((board, subject), fedavg) in scenario.boards.iter().zip(&subjects).zip(averaged) {
        let rounds: Vec<&RoundRecord> = report.rounds.iter().filter(|round| round.device == board.device).collect();
        let mut distilled = Vec::new();
        for round in &rounds {
            progress.compared();
            let epoch = round.round.0 + 1;
            if scored(epoch) {
                let state = layout.state(round);
                distilled.push((epoch, baselines.score(&state, Some(&report.teacher), &subject.labels).await?));
            }
        }
        let alone =
            baselines.alone(subject, scenario.alone_learning_rate, job, &scored, &mut || progress.compared()).await?;
        boards.push(board_result(board, subject, report, &rounds, counts, distilled, alone, fedavg)?);
    }
    let teacher = baselines.evaluate(&report.teacher, None, Vec::new()).await?;
    let teacher = TeacherResult {
        network: job.teacher.architecture.title().to_owned(),
        epochs: job.teacher.recipe.epochs,
        full_top1: teacher.full_top1,
    };
    Ok((boards, teacher))
}

fn subjects(scenario: &Scenario, report: &JobReport) -> anyhow::Result<Vec<Subject>> {
    let of = |board: &Board| {
        let member = report.members.get(&board.device).context("the job forgot a board")?;
        if let Some(why) = &member.left {
            bail!("{} took no part to the end: {why}", board.device);
        }
        let last = report.rounds.iter().rfind(|round| round.device == board.device);
        Ok(Subject {
            name: board.device.to_string(),
            dataset: member.dataset.clone().context("a board has no dataset")?,
            labels: member.counts.as_ref().context("a dataset was not counted")?.labels.clone(),
            architecture: last.context("a board did no epoch")?.allotment.architecture,
        })
    };
    scenario.boards.iter().map(of).collect()
}

/// FedAvg needs one network for all: the one that most boards were assigned, the smaller of equals.
fn most_frequent(subjects: &[Subject]) -> Architecture {
    let count = |one: Architecture| subjects.iter().filter(|subject| subject.architecture == one).count();
    let mut candidates: Vec<Architecture> = subjects.iter().map(|subject| subject.architecture).collect();
    candidates.sort_unstable_by_key(|&one| (usize::MAX - count(one), one));
    candidates.first().copied().unwrap_or(Architecture::Vgg8)
}

#[expect(clippy::too_many_arguments, reason = "everything a row is made from")]
fn board_result(
    board: &Board,
    subject: &Subject,
    report: &JobReport,
    rounds: &[&RoundRecord],
    counts: &BTreeMap<DeviceId, LinkCounts>,
    distilled: Vec<(u32, MethodScores)>,
    alone: Vec<(u32, MethodScores)>,
    fedavg: MethodScores,
) -> anyhow::Result<BoardResult> {
    let last = rounds.last().context("a board did no epoch")?;
    let of = |scores: &[(u32, MethodScores)], epoch: u32| {
        scores.iter().find(|(scored, _)| *scored == epoch).map(|(_, scores)| *scores)
    };
    let epochs = rounds.iter().map(|round| EpochResult {
        epoch: round.round.0 + 1,
        loss: round.loss,
        measured_s: round.measured.total.0,
        distilled: of(&distilled, round.round.0 + 1),
        alone: of(&alone, round.round.0 + 1),
    });
    let end = |scores: &[(u32, MethodScores)]| scores.last().map(|(_, scores)| *scores).context("nothing was scored");
    let sample = report.members.get(&board.device).and_then(|member| member.telemetry.as_ref());
    let reported = sample.and_then(|sample| sample.cpu.maximum_mean().value().copied());
    let counted = counts.get(&board.device).copied().unwrap_or_default();
    let present = subject.labels.iter().enumerate().filter(|(_, count)| **count > 0);
    Ok(BoardResult {
        name: subject.name.clone(),
        frequency_ghz: reported.unwrap_or(board.frequency).0,
        link_bits_per_second: board.link.0,
        classes: present.map(|(class, count)| (u16::try_from(class).unwrap_or(u16::MAX), *count)).collect(),
        student: subject.architecture.title().to_owned(),
        site: last.site.to_string(),
        frequency_given_ghz: last.allotment.frequency.0,
        bandwidth_hz: last.allotment.bandwidth.0,
        delay: delays(rounds),
        epochs: epochs.collect(),
        distilled: end(&distilled)?,
        alone: end(&alone)?,
        fedavg,
        bytes_up: counted.bytes_up,
        bytes_down: counted.bytes_down,
    })
}

/// Means over a board's epochs.
fn delays(rounds: &[&RoundRecord]) -> DelayResult {
    let mean = |of: &dyn Fn(&RoundRecord) -> f64| {
        rounds.iter().map(|round| of(round)).sum::<f64>() / rounds.len().max(1) as f64
    };
    DelayResult {
        teacher_s: mean(&|round| round.allotment.predicted.teacher.0),
        label_s: mean(&|round| round.allotment.predicted.label.0),
        student_s: mean(&|round| round.allotment.predicted.student.0),
        model_s: mean(&|round| round.allotment.predicted.model.0),
        predicted_s: mean(&|round| round.allotment.predicted.total().0),
        pipelined_s: mean(&|round| round.allotment.predicted.pipelined.0),
        training_s: mean(&|round| round.measured.training.0),
        transfer_s: mean(&|round| round.measured.transfer.0),
        measured_s: mean(&|round| round.measured.total.0),
    }
}
