//! `experiment field` and `experiment replay`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;
use twin_core::scheduler::policy::PolicyKind;

use super::{Failure, Format, print};
use crate::experiment::field::plan::Plan;
use crate::experiment::field::replay::{Replay, Terms, replay};
use crate::experiment::field::{EPISODES, Programs, Request, figures, recording_of, run};
use crate::recording::Recording;

/// Arguments of `experiment field`.
#[derive(Debug, Args)]
pub(crate) struct FieldArguments {
    /// The plan, as demo/field/plan.toml
    plan: PathBuf,
    /// The handwritten digits, for boards that this machine plays
    #[arg(long, default_value = "data/digits/digits.csv.gz")]
    digits: PathBuf,
    /// Where everything goes; an earlier field test's folder is emptied
    #[arg(long, default_value = "out/field")]
    out: PathBuf,
    /// Policies that decide the run again for the report, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "q-learning,exact,all-local,all-host")]
    policies: Vec<String>,
    /// The twin-agent program; beside this one unless said
    #[arg(long)]
    agent: Option<PathBuf>,
    /// The twin-trainer program; beside this one unless said
    #[arg(long)]
    trainer: Option<PathBuf>,
}

/// Arguments of `experiment replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArguments {
    /// What a host recorded: a folder of `serve --record`, or of a field test
    run: PathBuf,
    /// Policies to decide by, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    policy: Vec<String>,
    /// Relative gain for which a site changes, instead of the recorded one
    #[arg(long)]
    hysteresis: Option<f64>,
    /// Episodes of the training of a policy's table
    #[arg(long, default_value_t = EPISODES)]
    episodes: u64,
    /// Seed of a table's training and of chance, instead of the recorded one
    #[arg(long)]
    seed: Option<u64>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

fn policies(names: &[String]) -> Result<Vec<PolicyKind>, Failure> {
    names.iter().map(|name| super::schedule::policy_kind(name)).collect()
}

/// Runs a field test.
pub(crate) fn field(arguments: FieldArguments) -> Result<(), Failure> {
    super::serve::log();
    let usage = |path: &PathBuf, error: String| Failure::Usage(format!("{}: {error}", path.display()));
    // A wrong plan is wrong usage, said before anything is made.
    let text = fs::read_to_string(&arguments.plan).map_err(|error| usage(&arguments.plan, error.to_string()))?;
    Plan::parse(&text).map_err(|error| usage(&arguments.plan, error.to_string()))?;
    let host = std::env::current_exe().map_err(anyhow::Error::from)?;
    let beside = |given: Option<PathBuf>, name: &str| -> Result<PathBuf, Failure> {
        let path = given.unwrap_or_else(|| host.with_file_name(name));
        path.canonicalize().map_err(|error| usage(&path, format!("{error}; build it first")))
    };
    let request = Request {
        policies: policies(&arguments.policies)?,
        programs: Programs {
            agent: beside(arguments.agent, "twin-agent")?,
            trainer: beside(arguments.trainer, "twin-trainer")?,
            host: host.clone(),
        },
        plan: arguments.plan,
        digits: arguments.digits,
        out: arguments.out,
    };
    let summary = super::serve::runtime()?.block_on(run(&request))?;
    print(&summary)
}

/// Decides a recorded run again.
pub(crate) fn again(arguments: &ReplayArguments) -> Result<(), Failure> {
    let kinds = policies(&arguments.policy)?;
    if arguments.hysteresis.is_some_and(|hysteresis| hysteresis.is_nan() || hysteresis < 0.0) {
        return Err(Failure::Usage("--hysteresis must be 0 or more".into()));
    }
    let inside = recording_of(&arguments.run);
    let folder = if inside.is_dir() { inside } else { arguments.run.clone() };
    let recording = Recording::read(&folder).map_err(anyhow::Error::from)?;
    let Some((_, end)) = recording.span().filter(|_| !recording.moments.is_empty()) else {
        return Err(Failure::Usage(format!("{}: no decision is recorded here", arguments.run.display())));
    };
    let replays = kinds.into_iter().map(|policy| {
        let terms =
            Terms { policy, hysteresis: arguments.hysteresis, episodes: arguments.episodes, seed: arguments.seed };
        replay(&recording.moments, end, &terms).map_err(anyhow::Error::from)
    });
    let replays = replays.collect::<Result<Vec<Replay>, _>>()?;
    match arguments.format {
        Format::Json => print(&format!("{}\n", json!({ "replays": replays.iter().map(object).collect::<Vec<_>>() }))),
        Format::Table => {
            let mut table = Builder::default();
            table.push_record(std::iter::once("policy").chain(figures::HEADER));
            for replay in &replays {
                table.push_record(std::iter::once(replay.policy.to_owned()).chain(figures::figures(replay)));
            }
            print(&format!("{}\n", table.build().with(Style::psql())))
        }
    }
}

fn object(replay: &Replay) -> serde_json::Value {
    let turns = replay.turns.iter().map(|turn| {
        let devices = turn.given.iter().map(|(id, model, site)| json!({ "id": id, "model": model, "site": site }));
        json!({
            "job": turn.job,
            "decision": turn.number,
            "holds_s": turn.holds_s,
            "objective": turn.objective,
            "average_delay_s": turn.average_delay_s,
            "moved": turn.moved,
            "devices_as_recorded": turn.as_recorded,
            "devices": devices.collect::<Vec<_>>(),
        })
    });
    json!({
        "policy": replay.policy,
        "objective": replay.objective(),
        "average_delay_s": replay.average_delay(),
        "moves": replay.moved(),
        "local": replay.local(),
        "answers_as_recorded": replay.as_recorded(),
        "decisions": turns.collect::<Vec<_>>(),
    })
}
