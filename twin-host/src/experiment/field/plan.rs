//! What a field test does: its boards, and what happens to them when. PURE; see `demo/field/plan.toml` for every key.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use twin_shared::config::{ConfigError, from_toml};
use twin_shared::id::DeviceId;
use twin_shared::units::BitsPerSecond;

/// Longest field test: a month.
const LONGEST: f64 = 31.0 * 86_400.0;
/// Most steps of a plan, its repetitions included.
const MOST_STEPS: usize = 100_000;

/// A plan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// The host's configuration and the job, relative to the plan.
    pub(crate) host: PathBuf,
    pub(crate) job: PathBuf,
    /// It ends after so long, or with the job.
    pub(crate) length: Duration,
    /// What the steps' times count from.
    pub(crate) count_from: CountFrom,
    pub(crate) boards: Boards,
    /// In the order of their times.
    pub(crate) steps: Vec<Step>,
}

/// What the steps' times count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CountFrom {
    /// The test's start.
    Start,
    /// The moment when the teacher is done and the students begin.
    Teacher,
}

/// The boards of a plan: all of one sort.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Boards {
    /// Played by this machine, each in a network namespace of its own.
    Emulated { seed: u64, images_per_class: usize, sample_every_s: u16, boards: Vec<EmulatedBoard> },
    /// Somewhere, enrolled and deployed; what happens to them happens by commands.
    Real(Vec<RealBoard>),
}

/// A board that this machine plays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EmulatedBoard {
    pub(crate) name: DeviceId,
    /// Its part of one of this machine's cores.
    pub(crate) cpu: f64,
    /// Its link, either way.
    pub(crate) link: BitsPerSecond,
    /// The digits that it holds.
    pub(crate) classes: Vec<u16>,
}

/// A board somewhere.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RealBoard {
    pub(crate) name: DeviceId,
    pub(crate) commands: Commands,
}

/// Shell commands that do to a real board what the plan wants. `{value}` stands for bits a second or the part of the
/// processor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(crate) struct Commands {
    pub(crate) link: Option<String>,
    pub(crate) cpu: Option<String>,
    pub(crate) cut: Option<String>,
    pub(crate) join: Option<String>,
    pub(crate) kill: Option<String>,
    pub(crate) start: Option<String>,
}

/// Whom a step is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Host,
    Board(DeviceId),
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// The link carries so much from now on.
    Link(BitsPerSecond),
    /// It has this part of a core from now on.
    Cpu(f64),
    /// The link carries nothing, until `Join`.
    Cut,
    Join,
    /// It is killed without a word, as by a power cut, until `Start`.
    Kill,
    Start,
}

impl Change {
    /// Whether it ends what another began.
    pub(crate) const fn undoes(self) -> bool {
        matches!(self, Self::Join | Self::Start)
    }
}

/// One change at its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) target: Target,
    pub(crate) change: Change,
}

#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(default = "host")]
    host: PathBuf,
    #[serde(default = "job")]
    job: PathBuf,
    hours: f64,
    #[serde(default = "from_start")]
    count_from: CountFrom,
    emulate: Option<RawEmulate>,
    boards: Vec<RawBoard>,
    #[serde(default)]
    steps: Vec<RawStep>,
}

fn host() -> PathBuf {
    "host.toml".into()
}

fn job() -> PathBuf {
    "job.toml".into()
}

const fn from_start() -> CountFrom {
    CountFrom::Start
}

#[derive(Debug, Deserialize)]
struct RawEmulate {
    seed: u64,
    images_per_class: usize,
    sample_every_s: u16,
}

#[derive(Debug, Deserialize)]
struct RawBoard {
    name: String,
    cpu: Option<f64>,
    link_bits_per_second: Option<f64>,
    classes: Option<Vec<u16>>,
    commands: Option<Commands>,
}

#[derive(Debug, Deserialize)]
struct RawStep {
    at_s: f64,
    every_s: Option<f64>,
    board: Option<String>,
    host: Option<bool>,
    link_bits_per_second: Option<f64>,
    cpu: Option<f64>,
    cut_for_s: Option<f64>,
    kill_for_s: Option<f64>,
}

impl Boards {
    /// Their names, in the plan's order.
    pub(crate) fn names(&self) -> Vec<&DeviceId> {
        match self {
            Self::Emulated { boards, .. } => boards.iter().map(|board| &board.name).collect(),
            Self::Real(boards) => boards.iter().map(|board| &board.name).collect(),
        }
    }
}

impl Plan {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = from_toml(text)?;
        let length = raw.hours * 3600.0;
        if !(length > 0.0 && length <= LONGEST) {
            return Err(ConfigError::value("hours", "must be above 0 and at most 744"));
        }
        let boards = boards(raw.emulate, raw.boards)?;
        let mut steps = Vec::new();
        for (k, step) in raw.steps.iter().enumerate() {
            take_step(k, step, length, &boards, &mut steps)?;
        }
        steps.sort_by_key(|step| step.at);
        let length = Duration::from_secs_f64(length);
        Ok(Self { host: raw.host, job: raw.job, length, count_from: raw.count_from, boards, steps })
    }
}

fn boards(emulate: Option<RawEmulate>, raw: Vec<RawBoard>) -> Result<Boards, ConfigError> {
    let mut names: Vec<DeviceId> = Vec::new();
    for (k, board) in raw.iter().enumerate() {
        let at = format!("boards[{k}].name");
        let name: DeviceId = board.name.parse().map_err(|error| ConfigError::value(&at, error))?;
        if names.contains(&name) {
            return Err(ConfigError::value(&at, format_args!("{name} is named twice")));
        }
        names.push(name);
    }
    // Each is the third byte of an address.
    if names.is_empty() || names.len() > 250 {
        return Err(ConfigError::value("boards", "must describe 1 to 250 boards"));
    }
    let named = names.into_iter().zip(raw).enumerate();
    let Some(emulate) = emulate else {
        let real = named.map(|(k, (name, board))| {
            let at = |key: &str| format!("boards[{k}].{key}");
            let played = [("cpu", board.cpu.is_some()), ("classes", board.classes.is_some())];
            let played = played.into_iter().chain([("link_bits_per_second", board.link_bits_per_second.is_some())]);
            if let Some((key, _)) = played.into_iter().find(|(_, given)| *given) {
                return Err(ConfigError::value(at(key), "is for boards that this machine plays, with an [emulate]"));
            }
            Ok(RealBoard { name, commands: board.commands.unwrap_or_default() })
        });
        return Ok(Boards::Real(real.collect::<Result<_, _>>()?));
    };
    if emulate.images_per_class == 0 {
        return Err(ConfigError::value("emulate.images_per_class", "must be at least 1"));
    }
    if emulate.sample_every_s == 0 || emulate.sample_every_s > 3600 {
        return Err(ConfigError::value("emulate.sample_every_s", "must be 1 to 3600"));
    }
    let boards = named.map(|(k, (name, board))| {
        let at = |key: &str| format!("boards[{k}].{key}");
        let missing = |key: &str| ConfigError::Missing { at: at(key) };
        if board.commands.is_some() {
            return Err(ConfigError::value(at("commands"), "is for real boards, without an [emulate]"));
        }
        let classes = board.classes.ok_or_else(|| missing("classes"))?;
        if classes.is_empty() || classes.iter().any(|class| *class > 9) {
            return Err(ConfigError::value(at("classes"), "must name digits, 0 to 9"));
        }
        Ok(EmulatedBoard {
            cpu: share(at("cpu"), board.cpu.ok_or_else(|| missing("cpu"))?)?,
            link: rate(
                at("link_bits_per_second"),
                board.link_bits_per_second.ok_or_else(|| missing("link_bits_per_second"))?,
            )?,
            name,
            classes,
        })
    });
    Ok(Boards::Emulated {
        seed: emulate.seed,
        images_per_class: emulate.images_per_class,
        sample_every_s: emulate.sample_every_s,
        boards: boards.collect::<Result<_, _>>()?,
    })
}

/// A quota's period is 0.1 s and its least part of it 1 ms.
fn share(at: String, share: f64) -> Result<f64, ConfigError> {
    let sound = (0.01..=64.0).contains(&share);
    if sound { Ok(share) } else { Err(ConfigError::value(at, "must be 0.01 to 64 of a core")) }
}

fn rate(at: String, rate: f64) -> Result<BitsPerSecond, ConfigError> {
    // A token bucket counts whole bytes a second.
    let sound = (1e3..=1e11).contains(&rate);
    if sound { Ok(BitsPerSecond(rate)) } else { Err(ConfigError::value(at, "must be 1e3 to 1e11")) }
}

fn span(at: String, seconds: f64) -> Result<f64, ConfigError> {
    let sound = (0.0..=LONGEST).contains(&seconds);
    if sound { Ok(seconds) } else { Err(ConfigError::value(at, "must be 0 or more seconds, at most a month")) }
}

fn take_step(k: usize, raw: &RawStep, length: f64, boards: &Boards, steps: &mut Vec<Step>) -> Result<(), ConfigError> {
    let at = |key: &str| format!("steps[{k}].{key}");
    let target = match (&raw.board, raw.host) {
        (Some(name), None) => {
            let board = boards.names().into_iter().find(|known| known.as_str() == name);
            let unknown = || ConfigError::value(at("board"), format_args!("the plan has no board {name:?}"));
            Target::Board(board.cloned().ok_or_else(unknown)?)
        }
        (None, Some(true)) => Target::Host,
        _ => return Err(ConfigError::value(format!("steps[{k}]"), "needs `board = NAME` or `host = true`")),
    };
    let changes: Vec<(Change, Option<(f64, Change)>)> = [
        raw.link_bits_per_second.map(|bits| Ok((Change::Link(rate(at("link_bits_per_second"), bits)?), None))),
        raw.cpu.map(|part| Ok((Change::Cpu(share(at("cpu"), part)?), None))),
        raw.cut_for_s.map(|length| Ok((Change::Cut, Some((span(at("cut_for_s"), length)?, Change::Join))))),
        raw.kill_for_s.map(|length| Ok((Change::Kill, Some((span(at("kill_for_s"), length)?, Change::Start))))),
    ]
    .into_iter()
    .flatten()
    .collect::<Result<_, ConfigError>>()?;
    let [(change, after)] = changes[..] else {
        let problem = "needs one of link_bits_per_second, cpu, cut_for_s, kill_for_s";
        return Err(ConfigError::value(format!("steps[{k}]"), problem));
    };
    for change in std::iter::once(change).chain(after.map(|(_, change)| change)) {
        require_possible(k, &target, change, boards)?;
    }
    let mut when = span(at("at_s"), raw.at_s)?;
    let every = raw.every_s.map(|every| span(at("every_s"), every)).transpose()?;
    if every == Some(0.0) {
        return Err(ConfigError::value(at("every_s"), "must be above 0"));
    }
    if when >= length {
        return Err(ConfigError::value(at("at_s"), "is after the test's end"));
    }
    while when < length {
        if steps.len() + 2 > MOST_STEPS {
            return Err(ConfigError::value(at("every_s"), format_args!("makes more than {MOST_STEPS} steps")));
        }
        let step = |at: f64, change| Step { at: Duration::from_secs_f64(at), target: target.clone(), change };
        steps.push(step(when, change));
        steps.extend(after.map(|(length, change)| step(when + length, change)));
        match every {
            Some(every) => when += every,
            None => break,
        }
    }
    Ok(())
}

/// A host is only killed and started; a real board needs a command for what is done to it.
fn require_possible(k: usize, target: &Target, change: Change, boards: &Boards) -> Result<(), ConfigError> {
    let kills = matches!(change, Change::Kill | Change::Start);
    match (target, boards) {
        (Target::Host, _) if kills => Ok(()),
        (Target::Host, _) => Err(ConfigError::value(format!("steps[{k}]"), "a host can only be killed (kill_for_s)")),
        (Target::Board(_), Boards::Emulated { .. }) => Ok(()),
        (Target::Board(name), Boards::Real(real)) => {
            let board = real.iter().find(|board| board.name == *name);
            let (key, command) = board.map_or(("", None), |board| board.commands.of(change));
            let problem = format_args!("board {name} has no commands.{key}").to_string();
            command.map(drop).ok_or_else(|| ConfigError::value(format!("steps[{k}]"), problem))
        }
    }
}

impl Commands {
    /// The command for a change, and its key.
    pub(crate) fn of(&self, change: Change) -> (&'static str, Option<String>) {
        let valued = |command: &Option<String>, value: f64| {
            command.as_ref().map(|command| command.replace("{value}", &value.to_string()))
        };
        match change {
            Change::Link(rate) => ("link", valued(&self.link, rate.0)),
            Change::Cpu(share) => ("cpu", valued(&self.cpu, share)),
            Change::Cut => ("cut", self.cut.clone()),
            Change::Join => ("join", self.join.clone()),
            Change::Kill => ("kill", self.kill.clone()),
            Change::Start => ("start", self.start.clone()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Board(name) => f.write_str(name.as_str()),
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Link(rate) => write!(f, "link {} Mbit/s", rate.0 / 1e6),
            Self::Cpu(share) => write!(f, "{share} of a core"),
            Self::Cut => f.write_str("link cut"),
            Self::Join => f.write_str("link back"),
            Self::Kill => f.write_str("killed"),
            Self::Start => f.write_str("started"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = include_str!("../../../../demo/field/plan.toml");

    const REAL: &str = "hours = 1\n[[boards]]\nname = \"kitchen\"\n[boards.commands]\n\
                        link = \"ssh kitchen tc {value}\"\nkill = \"ssh kitchen kill\"\n";

    #[test]
    fn the_committed_plan_is_valid() {
        let plan = Plan::parse(COMMITTED).expect("valid");
        assert!(plan.boards.names().len() >= 4);
        assert!(plan.steps.is_sorted_by_key(|step| step.at));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let board = "\n[[boards]]\nname = \"pi9\"\ncpu = 0.5\nlink_bits_per_second = 1e6\nclasses = [1]\n";
        let changed = |from: &str, to: &str| COMMITTED.replacen(from, to, 1);
        let step = |text: &str| format!("{COMMITTED}\n[[steps]]\n{text}\n");
        for (text, named) in [
            (changed("images_per_class", "image_per_class"), "emulate.images_per_class"),
            (changed("cpu = ", "gpu = "), "boards[0].gpu"),
            (format!("{COMMITTED}{board}{board}"), "pi9 is named twice"),
            (format!("{COMMITTED}{}", board.replace("0.5", "0.0")), ".cpu"),
            (step("at_s = 1\nboard = \"pi7\"\ncpu = 0.5"), "the plan has no board \"pi7\""),
            (step("at_s = 1\nhost = true\ncpu = 0.5"), "a host can only be killed"),
            (step("at_s = 1\nboard = \"pi4\""), "needs one of"),
            (step("at_s = 1\nboard = \"pi4\"\ncpu = 0.5\ncut_for_s = 1"), "needs one of"),
            (step("at_s = 1\ncpu = 0.5"), "needs `board = NAME` or `host = true`"),
            (step("at_s = 1e6\nboard = \"pi4\"\ncpu = 0.5"), "after the test's end"),
            (step("at_s = 1\nevery_s = 0\nboard = \"pi4\"\ncpu = 0.5"), "every_s"),
            (step("at_s = 1\nevery_s = 1e-3\nboard = \"pi4\"\ncpu = 0.5"), "more than 100000 steps"),
            (step("at_s = -1\nboard = \"pi4\"\ncpu = 0.5"), "at_s"),
            (changed("hours = ", "hours = -"), "hours"),
            (format!("{REAL}[[steps]]\nat_s = 1\nboard = \"kitchen\"\ncpu = 0.5\n"), "no commands.cpu"),
            (format!("{REAL}[[steps]]\nat_s = 1\nboard = \"kitchen\"\nkill_for_s = 5\n"), "no commands.start"),
            (REAL.replace("[boards.commands]", "cpu = 1.0\n[boards.commands]"), "boards[0].cpu"),
        ] {
            let error = Plan::parse(&text).expect_err(named).to_string();
            assert!(error.contains(named), "{named}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn steps_are_undone_repeated_and_in_order() {
        let text = format!(
            "{REAL}[[steps]]\nat_s = 1000\nboard = \"kitchen\"\nlink_bits_per_second = 2e6\n\
             [[steps]]\nat_s = 600\nevery_s = 1200\nhost = true\nkill_for_s = 900\n"
        );
        let plan = Plan::parse(&text).expect("valid");
        let told: Vec<_> = plan.steps.iter().map(|s| (s.at.as_secs(), format!("{} {}", s.target, s.change))).collect();
        let expected = [
            (600, "host killed"),
            (1000, "kitchen link 2 Mbit/s"),
            (1500, "host started"),
            (1800, "host killed"),
            (2700, "host started"),
            (3000, "host killed"),
            (3900, "host started"),
        ];
        assert_eq!(told, expected.map(|(at, what)| (at, what.to_owned())));
        let Boards::Real(boards) = &plan.boards else { panic!("they are real") };
        let (_, command) = boards[0].commands.of(Change::Link(BitsPerSecond(2e6)));
        assert_eq!(command.as_deref(), Some("ssh kitchen tc 2000000"));
    }
}
