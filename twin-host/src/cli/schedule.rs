//! `twin-host schedule`, `experiment scheduling` and `experiment learning`.

use super::{Failure, Format, print};
use crate::experiment::scheduling::{self, learning::Sweep, report::Summary};
use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tabled::settings::Style;
use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::policy::{Policy, PolicyKind};
use twin_core::scheduler::{Decision, RawScenario, Scenario};
use twin_shared::model::Site;

/// Random scenarios by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FamilyName {
    /// As the paper draws, budgets scaled by N/4.
    Paper,
    /// Unequal boards, data and memory.
    Fleet,
}

impl FamilyName {
    fn of(self, devices: usize) -> Result<Family, Failure> {
        let family = match self {
            Self::Paper => Family::paper(devices),
            Self::Fleet => Family::fleet(devices),
        };
        family.map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// Arguments of `schedule`.
#[derive(Debug, Args)]
pub(crate) struct ScheduleArguments {
    /// Scenario file, as presets/paper-preset.toml
    #[arg(long, value_name = "FILE", required_unless_present = "random", conflicts_with = "random")]
    scenario: Option<PathBuf>,
    /// Draw a scenario of N devices instead
    #[arg(long, value_name = "N", requires = "family")]
    random: Option<usize>,
    /// Family to draw from
    #[arg(long, requires = "random")]
    family: Option<FamilyName>,
    /// How to decide: q-learning, q-learning-joint, q-learning-only, fl-min, fl-max, exact, dual, all-local, all-host, best-constant, random
    #[arg(long)]
    policy: String,
    /// Output for people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Seed of the draw and of any learning
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// For a policy that learns: a table saved earlier, or by a live job, instead of training one
    #[arg(long, value_name = "FILE", conflicts_with = "save_table")]
    load_table: Option<PathBuf>,
    /// For a policy that learns: where to save the trained table
    #[arg(long, value_name = "FILE")]
    save_table: Option<PathBuf>,
}

/// Arguments of `experiment scheduling`.
#[derive(Debug, Args)]
pub(crate) struct SchedulingArguments {
    /// Scenario file whose devices' distances and frequencies are drawn afresh in every trial
    #[arg(long, value_name = "FILE", required_unless_present = "family", conflicts_with = "family")]
    preset: Option<PathBuf>,
    /// Family to draw from
    #[arg(long)]
    family: Option<FamilyName>,
    /// Devices of a family's draws
    #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = "preset")]
    devices: usize,
    /// Draws to decide
    #[arg(long, value_name = "T", default_value_t = 200)]
    trials: u64,
    /// Policies to compare, separated by commas; all by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    policies: Vec<String>,
    /// Seed of the draws and of any learning
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for scheduling.csv, scheduling.md and the convergence curves
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Output for people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Arguments of `experiment learning`.
#[derive(Debug, Args)]
pub(crate) struct LearningArguments {
    /// Family to draw from
    #[arg(long)]
    family: FamilyName,
    /// Devices of every draw
    #[arg(long, value_name = "N", default_value_t = 4)]
    devices: usize,
    /// Held-out draws
    #[arg(long, value_name = "T", default_value_t = 1000)]
    trials: u64,
    /// Numbers of episodes to try
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    episodes: Vec<u64>,
    /// Levels of f and b to try for q-learning-only
    #[arg(long, value_delimiter = ',', default_values_t = [2, 3, 5])]
    levels: Vec<u8>,
    /// Seed of training; held-out draws take the next one
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for learning.csv and learning.md
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Reads and checks a scenario file.
pub(crate) fn read_scenario(path: &Path) -> Result<Scenario, Failure> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?;
    let raw: RawScenario = toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or_else(String::new, |span| {
            let before = &text[..text.floor_char_boundary(span.start)];
            let start = before.rfind('\n').map_or(0, |newline| newline + 1);
            let key = text[start..].lines().next().and_then(|line| line.split_once('=')).map(|(key, _)| key.trim());
            let key = key.map_or_else(String::new, |key| format!(", `{key}`"));
            format!(", line {}{key}", 1 + before.matches('\n').count())
        });
        Failure::Usage(format!("{shown}{at}: {}", error.message().replace('\n', " ")))
    })?;
    Scenario::try_from(raw).map_err(|error| Failure::Usage(format!("{shown}: {error}")))
}

pub(crate) fn policy_kind(name: &str) -> Result<PolicyKind, Failure> {
    name.parse().map_err(|error: twin_core::scheduler::policy::UnknownPolicy| Failure::Usage(error.to_string()))
}

/// A bar on standard error, seen on a terminal only.
fn bar(total: u64, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:24} {wide_bar} {percent:>3} %, {eta} left");
    let bar = ProgressBar::new(total).with_message(what.to_owned());
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

/// Single-device decisions that training on the spot may take: a few seconds' worth.
const TRAINING_ON_THE_SPOT: u64 = 8_000_000;

/// Runs `schedule`.
pub(crate) fn schedule(arguments: &ScheduleArguments) -> Result<(), Failure> {
    let kind = policy_kind(&arguments.policy)?;
    let (scenario, family) = match (&arguments.scenario, arguments.random, arguments.family) {
        (Some(path), _, _) => {
            let scenario = read_scenario(path)?;
            let family = Family::around(scenario.clone());
            (scenario, family)
        }
        (None, Some(devices), Some(family)) => {
            let family = family.of(devices)?;
            let scenario = family.draw(&mut generator(arguments.seed, 0));
            (scenario.map_err(|error| Failure::Usage(error.to_string()))?, family)
        }
        (None, _, _) => return Err(Failure::Usage("give --scenario FILE, or --random N and --family NAME".into())),
    };
    let policy: Box<dyn Policy> = match &arguments.load_table {
        Some(path) => kind
            .with_table(load_table(path)?)
            .ok_or_else(|| Failure::Usage(format!("--load-table: {kind} has no table")))?,
        None => prepare(kind, &family, &scenario, arguments)?,
    };
    let started = Instant::now();
    let decision =
        policy.decide(&scenario, &mut generator(arguments.seed, u64::MAX - 1)).map_err(anyhow::Error::from)?;
    let elapsed = started.elapsed().as_secs_f64();
    match arguments.format {
        Format::Json => print_json(&DecisionReport::new(&scenario, &decision, elapsed)),
        Format::Table => print(&decision_table(&scenario, &decision, elapsed)),
    }
}

fn prepare(
    kind: PolicyKind,
    family: &Family,
    scenario: &Scenario,
    arguments: &ScheduleArguments,
) -> Result<Box<dyn Policy>, Failure> {
    let devices = scenario.devices().len();
    let config = kind.training().map(|config| config.suited_to(family).within(TRAINING_ON_THE_SPOT, devices));
    let rng = &mut generator(arguments.seed, u64::MAX);
    let progress = bar(config.as_ref().map_or(0, |c| c.episodes), "learning");
    if arguments.save_table.is_some() && config.is_none() {
        return Err(Failure::Usage(format!("--save-table: {kind} has no table")));
    }
    let prepared = kind.prepare(family, config.as_ref(), rng, &mut |done| progress.set_position(done));
    progress.finish_and_clear();
    let (policy, _) = prepared.map_err(anyhow::Error::from)?;
    if let (Some(path), Some(table)) = (&arguments.save_table, policy.table()) {
        let text = serde_json::to_string(table).map_err(anyhow::Error::from)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(policy)
}

fn load_table(path: &Path) -> Result<twin_core::scheduler::q_table::QTable, Failure> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?;
    serde_json::from_str(&text).map_err(|error| Failure::Usage(format!("{shown}: {error}")))
}

/// A decision as programs read it.
#[derive(Debug, Serialize)]
struct DecisionReport<'a> {
    policy: &'a str,
    objective: f64,
    lower_bound: Option<f64>,
    gap: Option<f64>,
    elapsed_s: f64,
    average_delay_s: f64,
    devices: Vec<DeviceReport<'a>>,
}

#[derive(Debug, Serialize)]
struct DeviceReport<'a> {
    id: &'a str,
    model: &'a str,
    site: Site,
    frequency_ghz: f64,
    bandwidth_hz: f64,
    delay_s: f64,
}

impl<'a> DecisionReport<'a> {
    fn new(scenario: &'a Scenario, decision: &'a Decision, elapsed_s: f64) -> Self {
        let pairs = scenario.devices().iter().zip(&decision.devices);
        Self {
            policy: decision.policy,
            objective: decision.objective,
            lower_bound: decision.certificate.map(|c| c.lower_bound),
            gap: decision.certificate.map(|c| c.gap),
            elapsed_s,
            average_delay_s: decision.average_delay().0,
            devices: pairs
                .map(|(device, decided)| DeviceReport {
                    id: device.id().as_str(),
                    model: &scenario.models()[usize::from(decided.choice.model)].name,
                    site: decided.choice.site,
                    frequency_ghz: decided.frequency.0,
                    bandwidth_hz: decided.bandwidth.0,
                    delay_s: decided.delay.total().0,
                })
                .collect(),
        }
    }
}

fn decision_table(scenario: &Scenario, decision: &Decision, elapsed: f64) -> String {
    let mut table = tabled::builder::Builder::default();
    table.push_record([
        "device",
        "student",
        "site",
        "f (GHz)",
        "b (MHz)",
        "delay (s)",
        "teacher",
        "labels",
        "training",
        "state",
    ]);
    for (device, decided) in scenario.devices().iter().zip(&decision.devices) {
        let delay = decided.delay;
        table.push_record([
            device.id().to_string(),
            scenario.models()[usize::from(decided.choice.model)].name.clone(),
            decided.choice.site.to_string(),
            format!("{:.3}", decided.frequency.0),
            format!("{:.3}", decided.bandwidth.0 / 1e6),
            format!("{:.2}", delay.total().0),
            format!("{:.2}", delay.teacher.0),
            format!("{:.2}", delay.label.0),
            format!("{:.2}", delay.student.0),
            format!("{:.2}", delay.model.0),
        ]);
    }
    let proof = decision
        .certificate
        .map_or_else(String::new, |c| format!(", no decision below {:.6} (gap {:.1e})", c.lower_bound, c.gap));
    format!(
        "{}\n{}: objective {:.6}{proof}; average delay {:.2} s; decided in {:.1e} s\n",
        table.build().with(Style::sharp()),
        decision.policy,
        decision.objective,
        decision.average_delay().0,
        elapsed,
    )
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(anyhow::Error::from)?;
    print(&format!("{text}\n"))
}

/// Runs `experiment scheduling`.
pub(crate) fn experiment(arguments: &SchedulingArguments) -> Result<(), Failure> {
    let family = match (&arguments.preset, arguments.family) {
        (Some(path), _) => Family::Paper(read_scenario(path)?),
        (None, Some(family)) => family.of(arguments.devices)?,
        (None, None) => return Err(Failure::Usage("give --preset FILE or --family NAME".into())),
    };
    if arguments.trials == 0 {
        return Err(Failure::Usage("--trials must be at least 1".into()));
    }
    let kinds: Vec<PolicyKind> = if arguments.policies.is_empty() {
        PolicyKind::ALL.to_vec()
    } else {
        arguments.policies.iter().map(|name| policy_kind(name)).collect::<Result<_, _>>()?
    };
    let progress = bar(1000 * kinds.len() as u64, "deciding");
    let outcome = scheduling::run(&family, &kinds, arguments.trials, arguments.seed, &mut |what, part| {
        progress.set_message(what.to_owned());
        progress.set_position((part * 1000.0) as u64);
    })?;
    progress.finish_and_clear();
    scheduling::report::write(&outcome, &arguments.out)?;
    let summaries = Summary::of(&outcome);
    match arguments.format {
        Format::Json => print_json(&serde_json::json!({ "trials": arguments.trials, "policies": summaries })),
        Format::Table => print(&scheduling::report::table(&outcome, &summaries)),
    }
}

/// Runs `experiment learning`.
pub(crate) fn learning(arguments: &LearningArguments) -> Result<(), Failure> {
    let family = arguments.family.of(arguments.devices)?;
    if arguments.trials == 0 || arguments.episodes.contains(&0) || arguments.levels.contains(&0) {
        return Err(Failure::Usage("--trials, --episodes and --levels must be at least 1".into()));
    }
    let sweep = Sweep {
        episodes: arguments.episodes.clone(),
        levels: arguments.levels.clone(),
        trials: arguments.trials,
        seed: arguments.seed,
    };
    let progress = bar(1000, "learning");
    let rows = sweep.run(&family, &mut |part| progress.set_position((part * 1000.0) as u64))?;
    progress.finish_and_clear();
    let table = scheduling::learning::write(&rows, &arguments.out)?;
    print(&table)
}
