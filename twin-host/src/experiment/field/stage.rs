//! The processes and things of a field test: the host, and the boards that this machine plays or that are somewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use twin_data::digits::split;
use twin_shared::id::DeviceId;
use twin_shared::units::{BitsPerSecond, Gigahertz};

use super::network::{self, Network};
use super::plan::{Boards, Change, Commands, EmulatedBoard, Plan, Target};
use super::quota::Quotas;
use crate::config::Config;
use crate::enroll::{Reach, enroll};
use crate::store::Store;

/// Where the emulated host listens, in its own namespace.
const PORT: u16 = 8883;
/// A program that was asked to end has so long for it.
const FAREWELL: Duration = Duration::from_secs(15);
/// A real board's command has so long.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// What a field test runs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) host: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) trainer: PathBuf,
}

/// A program of the test, started again and again.
#[derive(Debug)]
struct Service {
    command: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
}

/// The host and its boards.
pub(super) struct Stage {
    host: Service,
    data_dir: PathBuf,
    boards: Played,
}

enum Played {
    Emulated(Emulated),
    Real(BTreeMap<DeviceId, Commands>),
}

struct Emulated {
    // In this order they are dropped: groups and namespaces can go once the processes are gone.
    boards: BTreeMap<DeviceId, (EmulatedBoard, Service)>,
    quotas: Quotas,
    network: Network,
    /// What one core of this machine stands for, where boards must claim a clock.
    core: Gigahertz,
    trainer: PathBuf,
    sample_every_s: u16,
    out: PathBuf,
}

/// A program that ended though nobody wanted it to.
pub(super) struct Ended {
    pub(super) target: Target,
    pub(super) status: ExitStatus,
}

impl Service {
    fn new(command: Vec<String>, log: PathBuf) -> Self {
        Self { command, log, process: None }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| self.log.display().to_string())?;
        let [program, arguments @ ..] = &self.command[..] else { bail!("nothing to start") };
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.process = Some(process.with_context(|| format!("starting {program}"))?);
        Ok(())
    }

    /// Without a word, as by a power cut.
    async fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill().await.context("killing it"),
            None => Ok(()),
        }
    }

    /// As a service manager does.
    async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        if let Some(id) = process.id() {
            network::run("kill", &[&id.to_string()]).await?;
        }
        match tokio::time::timeout(FAREWELL, process.wait()).await {
            Ok(ended) => ended.map(drop).context("waiting for its end"),
            Err(_) => process.kill().await.context("killing it"),
        }
    }

    /// Its status, if it has ended by itself.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_wait().ok().flatten()?;
        self.process = None;
        Some(status)
    }
}

impl Stage {
    /// Makes everything that the test runs on; `base` is the plan's folder.
    pub(super) async fn set(
        plan: &Plan,
        base: &Path,
        out: &Path,
        programs: &Programs,
        digits: &Path,
    ) -> anyhow::Result<Self> {
        let host_file = base.join(&plan.host);
        let host_text = fs::read_to_string(&host_file).with_context(|| host_file.display().to_string())?;
        let job = base.join(&plan.job).canonicalize().with_context(|| plan.job.display().to_string())?;
        let wrong = |error: twin_shared::config::ConfigError| anyhow::anyhow!("{}: {error}", host_file.display());
        let (config_file, config, runner, boards) = match &plan.boards {
            Boards::Real(boards) => {
                let known = boards.iter().map(|board| (board.name.clone(), board.commands.clone()));
                let config = Config::parse(&host_text).map_err(wrong)?;
                (host_file.canonicalize()?, config, Vec::new(), Played::Real(known.collect()))
            }
            Boards::Emulated { .. } => {
                let text = host_configuration(&host_text, &out.join("host"), &programs.trainer)?;
                let config = Config::parse(&text).map_err(wrong)?;
                let file = out.join("host.toml");
                fs::write(&file, text).with_context(|| file.display().to_string())?;
                let emulated = Emulated::set(plan, &config, out, programs, digits).await?;
                (file, config, emulated.network.at_host(), Played::Emulated(emulated))
            }
        };
        let words = ["serve", "--config"].map(str::to_owned);
        let rest = [config_file.display().to_string(), "--job".into(), job.display().to_string(), "--record".into()];
        let mut command = runner;
        command.push(programs.host.display().to_string());
        command.extend(words.into_iter().chain(rest).chain([super::recording_of(out).display().to_string()]));
        Ok(Self { host: Service::new(command, out.join("host.log")), data_dir: config.data_dir, boards })
    }

    /// How boards got their parts of a core and their links, for people.
    pub(super) fn described(&self) -> String {
        match &self.boards {
            Played::Real(_) => "real boards; steps by the plan's commands".into(),
            Played::Emulated(emulated) => format!(
                "boards that this machine plays; their parts of a core by {}; their links by token buckets (tbf) at both \
                 ends of a cable between network namespaces",
                emulated.quotas.described()
            ),
        }
    }

    /// Starts the host, and the boards that are ours once it can be spoken to.
    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        self.host.start()?;
        let socket = self.data_dir.join(crate::control::SOCKET);
        for _ in 0..300 {
            if socket.exists() {
                break;
            }
            if let Some(status) = self.host.ended() {
                bail!("the host ended with {status}; see {}", self.host.log.display());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if let Played::Emulated(emulated) = &mut self.boards {
            for (_, service) in emulated.boards.values_mut() {
                service.start()?;
            }
        }
        Ok(())
    }

    /// Does what a step says.
    pub(super) async fn change(&mut self, target: &Target, change: Change) -> anyhow::Result<()> {
        match (target, change, &mut self.boards) {
            (Target::Host, Change::Kill, _) => self.host.kill().await,
            (Target::Host, Change::Start, _) => self.host.start(),
            (Target::Host, _, _) => bail!("a host can only be killed and started"),
            (Target::Board(board), change, Played::Real(commands)) => {
                let command = commands.get(board).and_then(|commands| commands.of(change).1);
                shell(&command.context("the plan has no command for it")?).await
            }
            (Target::Board(board), change, Played::Emulated(emulated)) => emulated.change(board, change).await,
        }
    }

    /// Programs that ended by themselves; each is started again, as a service manager would.
    pub(super) fn revive(&mut self) -> anyhow::Result<Vec<Ended>> {
        let mut ended = Vec::new();
        if let Some(status) = self.host.ended() {
            ended.push(Ended { target: Target::Host, status });
            self.host.start()?;
        }
        if let Played::Emulated(emulated) = &mut self.boards {
            for (name, (_, service)) in &mut emulated.boards {
                if let Some(status) = service.ended() {
                    ended.push(Ended { target: Target::Board(name.clone()), status });
                    service.start()?;
                }
            }
        }
        Ok(ended)
    }

    /// Ends everything that is ours.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        if let Played::Emulated(emulated) = &mut self.boards {
            for (_, service) in emulated.boards.values_mut() {
                service.stop().await?;
            }
        }
        self.host.stop().await
    }

    /// The host's data directory.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

impl Emulated {
    async fn set(plan: &Plan, config: &Config, out: &Path, programs: &Programs, digits: &Path) -> anyhow::Result<Self> {
        let Boards::Emulated { seed, images_per_class, sample_every_s, boards } = &plan.boards else {
            bail!("these boards are not played");
        };
        let all = twin_data::digits::read(digits)?;
        let classes: Vec<Vec<u16>> = boards.iter().map(|board| board.classes.clone()).collect();
        let sets = split(&all, &classes, *images_per_class, *seed)?.boards;
        let links: Vec<(DeviceId, BitsPerSecond)> =
            boards.iter().map(|board| (board.name.clone(), board.link)).collect();
        let network = Network::new(&links).await?;
        let quotas = Quotas::find();
        let store = Store::open(&config.data_dir)?;
        let frequency = config.scheduler.frequency.unwrap_or(Gigahertz(2.0));
        let core = Gigahertz(frequency.0 / f64::from(config.trainer.threads.max(1)));
        let mut emulated = Self {
            boards: BTreeMap::new(),
            quotas,
            network,
            core,
            trainer: programs.trainer.clone(),
            sample_every_s: *sample_every_s,
            out: out.to_owned(),
        };
        for (k, (board, set)) in boards.iter().zip(&sets).enumerate() {
            let folder = emulated.folder(&board.name);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            set.write(&folder.join("dataset.twinset"))?;
            let host = Network::host_address(k).to_string();
            let reach = Reach { host, port: PORT, tls: true, broker_authority: None };
            enroll(&store, &board.name, &folder, &reach, SystemTime::now())?;
            emulated.quotas.set(&board.name, board.cpu).context("a control group")?;
            emulated.configure(board)?;
            let mut command = emulated.quotas.entering(&board.name);
            command.extend(emulated.network.at_board(&board.name)?);
            let played = folder.join("played.toml").display().to_string();
            command.extend([programs.agent.display().to_string(), "run".into(), "--config".into(), played]);
            let service = Service::new(command, folder.join("agent.log"));
            emulated.boards.insert(board.name.clone(), (board.clone(), service));
        }
        Ok(emulated)
    }

    fn folder(&self, board: &DeviceId) -> PathBuf {
        board_folder(&self.out, board)
    }

    /// Writes the agent's configuration: enrolment's, and what makes it this board.
    fn configure(&self, board: &EmulatedBoard) -> anyhow::Result<()> {
        let folder = self.folder(&board.name);
        let enrolled = fs::read_to_string(folder.join("agent.toml")).context("the enrolment")?;
        let mut text = enrolled.replace("[device]\n", "[device]\ndata_dir = \"data\"\n");
        text += &format!(
            "\n[dataset]\npath = \"dataset.twinset\"\nformat = \"twinset\"\n\n\
             [trainer]\nprogram = {trainer:?}\nthreads = 1\n\n\
             [telemetry]\nperiod_s = {period}\ninterface = \"{interface}\"\n",
            trainer = self.trainer.display().to_string(),
            period = self.sample_every_s,
            interface = network::INTERFACE,
        );
        if self.quotas.is_duty_cycle() {
            text += &format!(
                "\n[emulate]\nfrequency_ghz = {frequency:?}\nduty = {duty:?}\n\
                 uplink_bits_per_second = {link:?}\ndownlink_bits_per_second = {link:?}\n",
                frequency = self.core.0 * board.cpu,
                duty = board.cpu.min(1.0),
                link = board.link.0,
            );
        }
        let file = folder.join("played.toml");
        fs::write(&file, text).with_context(|| file.display().to_string())
    }

    async fn change(&mut self, name: &DeviceId, change: Change) -> anyhow::Result<()> {
        let (board, service) = self.boards.get_mut(name).with_context(|| format!("no board {name}"))?;
        match change {
            Change::Kill => return service.kill().await,
            Change::Start => return service.start(),
            Change::Cut | Change::Join => return self.network.set_joined(name, change == Change::Join).await,
            Change::Link(rate) => {
                board.link = rate;
                self.network.set_rate(name, rate).await?;
            }
            Change::Cpu(share) => {
                board.cpu = share;
                self.quotas.set(name, share).context("its control group")?;
            }
        }
        if self.quotas.is_duty_cycle() {
            // The agent plays both, and reads how at its start.
            let was = service.process.is_some();
            service.stop().await?;
            let board = board.clone();
            self.configure(&board)?;
            if was && let Some((_, service)) = self.boards.get_mut(name) {
                service.start()?;
            }
        }
        Ok(())
    }
}

/// A played board's folder.
pub(super) fn board_folder(out: &Path, board: &DeviceId) -> PathBuf {
    out.join("boards").join(board.as_str())
}

/// The plan's configuration with the data directory, the listener and the trainer of the test.
fn host_configuration(text: &str, data_dir: &Path, trainer: &Path) -> anyhow::Result<String> {
    let mut table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| anyhow::anyhow!("{}", error.message()))?;
    table.insert("data_dir".into(), data_dir.display().to_string().into());
    let mut broker = toml::Table::new();
    broker.insert("tls".into(), format!("0.0.0.0:{PORT}").into());
    table.insert("broker".into(), broker.into());
    let section = table.entry("trainer").or_insert_with(|| toml::Table::new().into());
    let section = section.as_table_mut().context("`trainer` must be a section")?;
    section.insert("program".into(), trainer.display().to_string().into());
    Ok(table.to_string())
}

async fn shell(command: &str) -> anyhow::Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let status = tokio::time::timeout(COMMAND_LIMIT, shell.status()).await;
    let status = status.with_context(|| format!("not done within {} s: {command}", COMMAND_LIMIT.as_secs()))?;
    let status = status.with_context(|| command.to_owned())?;
    if status.success() { Ok(()) } else { bail!("{status}: {command}") }
}
