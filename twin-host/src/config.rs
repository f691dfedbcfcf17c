//! The host's configuration: what the file says, checked once, in types that cannot hold a bad value.

mod job;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use twin_core::scheduler::policy::PolicyKind;
use twin_core::scheduler::{Accuracy, Weights};
use twin_shared::config::{ConfigError, from_toml};
use twin_shared::id::DeviceId;
use twin_shared::model::Architecture;
use twin_shared::units::{Gigahertz, Hertz};

pub use job::{Devices, Job, Student, Teacher};

use crate::broker::external::ExternalAddress;
use crate::train::TrainerConfig;

/// The documented default configuration, as `twin-host config default` prints it.
pub const DEFAULT: &str = include_str!("../config/default.toml");

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where twins, jobs and keys are kept.
    pub data_dir: PathBuf,
    /// Whose broker boards and host meet at.
    pub broker: BrokerChoice,
    /// The plain listener.
    pub plain: Option<SocketAddr>,
    /// The listener with TLS.
    pub tls: Option<SocketAddr>,
    /// Names in the host's certificate.
    pub names: Vec<String>,
    /// Whether a plain listener may be reached from other machines.
    pub plain_beyond_loopback: bool,
    /// The trainer of students and labels.
    pub trainer: TrainerConfig,
    /// Threads of the teacher's trainer.
    pub teacher_threads: u32,
    /// How students, sites and shares are decided.
    pub scheduler: SchedulerConfig,
    /// The fraction of right answers on held-out images that a promoted model may lose against the one before.
    pub most_lost: f64,
    /// Boards whose link is paid by the megabyte.
    pub metered: BTreeMap<DeviceId, Metered>,
}

/// A board whose link is paid by the megabyte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metered {
    /// Bytes a day, both ways, after which blobs wait for the next day.
    pub allowance: Option<u64>,
}

/// Whose broker boards and host meet at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerChoice {
    /// The host's own, on the listeners of the configuration.
    Embedded,
    /// Somebody else's.
    External {
        /// Where.
        address: ExternalAddress,
        /// PEM of the authority that signed the broker's certificate; without one, the host's own did.
        authority: Option<String>,
    },
}

/// How students, sites and shares are decided.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// The policy.
    pub policy: PolicyKind,
    /// f_ser in the gigahertz that boards report; `None` is as calibrated.
    pub frequency: Option<Gigahertz>,
    /// b_max.
    pub bandwidth: Hertz,
    /// Sites are decided again this often.
    pub decide_every: Duration,
    /// Relative gain for which a site changes.
    pub hysteresis: f64,
    /// Episodes of a table's training.
    pub episodes: u64,
    /// Seed of a table's training.
    pub seed: u64,
    /// α, β, δ, η.
    pub weights: Weights,
    /// The students to choose from, with what is expected of them.
    pub models: Vec<(Architecture, Accuracy)>,
}

#[derive(Debug, Deserialize)]
struct Raw {
    data_dir: PathBuf,
    broker: RawBroker,
    trainer: RawTrainer,
    scheduler: RawScheduler,
    models: RawModels,
    #[serde(default)]
    metered: Vec<RawMetered>,
}

#[derive(Debug, Deserialize)]
struct RawMetered {
    device: String,
    #[serde(default)]
    max_mb_per_day: u32,
}

#[derive(Debug, Deserialize)]
struct RawModels {
    most_lost: f64,
}

#[derive(Debug, Deserialize)]
struct RawBroker {
    at: String,
    authority: PathBuf,
    plain: String,
    tls: String,
    names: Vec<String>,
    dangerously_plain_beyond_loopback: bool,
}

#[derive(Debug, Deserialize)]
struct RawTrainer {
    program: PathBuf,
    device: String,
    precision: String,
    threads: u32,
    teacher_threads: u32,
}

#[derive(Debug, Deserialize)]
struct RawScheduler {
    policy: String,
    frequency_ghz: f64,
    bandwidth_hz: f64,
    decide_every_s: u64,
    hysteresis: f64,
    episodes: u64,
    seed: u64,
    weights: RawWeights,
    models: Vec<RawModel>,
}

#[derive(Debug, Deserialize)]
struct RawWeights {
    delay: f64,
    compute: f64,
    bandwidth: f64,
    accuracy_own: f64,
    accuracy_avg: f64,
}

#[derive(Debug, Deserialize)]
struct RawModel {
    name: String,
    accuracy_own: f64,
    accuracy_avg: f64,
}

impl Config {
    /// Takes another broker than the file says: `embedded` or `mqtts://HOST:PORT`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn choose_broker(&mut self, text: &str) -> Result<(), ConfigError> {
        // An authority that the file names belongs to the file's broker, unless it is the same one.
        let named = match &self.broker {
            BrokerChoice::External { authority, .. } => authority.clone(),
            BrokerChoice::Embedded => None,
        };
        self.broker = match broker("--broker", text, Path::new(""))? {
            BrokerChoice::Embedded => BrokerChoice::Embedded,
            BrokerChoice::External { address, .. } => BrokerChoice::External { address, authority: named },
        };
        Ok(())
    }

    /// Reads and checks a configuration. Keys that are left out take the documented defaults.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax(error.to_string().trim_end().to_owned());
        let mut whole: toml::Table = DEFAULT.parse().map_err(syntax)?;
        overlay(&mut whole, text.parse().map_err(syntax)?);
        from_toml::<Raw>(&whole.to_string())?.try_into()
    }
}

/// Puts the user's keys over the defaults, section by section.
fn overlay(whole: &mut toml::Table, given: toml::Table) {
    for (key, value) in given {
        match (whole.get_mut(&key), value) {
            (Some(toml::Value::Table(section)), toml::Value::Table(given)) => overlay(section, given),
            (_, value) => drop(whole.insert(key, value)),
        }
    }
}

impl TryFrom<Raw> for Config {
    type Error = ConfigError;

    fn try_from(raw: Raw) -> Result<Self, ConfigError> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let threads = |asked: u32| if asked == 0 { cores } else { asked };
        if !["auto", "cpu"].contains(&raw.trainer.device.as_str()) && !raw.trainer.device.starts_with("cuda:") {
            return Err(ConfigError::value("trainer.device", "must be auto, cpu or cuda:0"));
        }
        if !["auto", "f32", "bf16"].contains(&raw.trainer.precision.as_str()) {
            return Err(ConfigError::value("trainer.precision", "must be auto, f32 or bf16"));
        }
        let plain = listener("broker.plain", &raw.broker.plain)?;
        let beyond = plain.is_some_and(|address| !address.ip().is_loopback());
        if beyond && !raw.broker.dangerously_plain_beyond_loopback {
            let problem = "a listener without TLS beyond this machine; use broker.tls, or set \
                           broker.dangerously_plain_beyond_loopback = true";
            return Err(ConfigError::value("broker.plain", problem));
        }
        let trainer = TrainerConfig {
            program: raw.trainer.program,
            threads: threads(raw.trainer.threads),
            device: raw.trainer.device,
            precision: raw.trainer.precision,
        };
        let tls = listener("broker.tls", &raw.broker.tls)?;
        let broker = broker("broker.at", &raw.broker.at, &raw.broker.authority)?;
        if broker == BrokerChoice::Embedded && plain.is_none() && tls.is_none() {
            return Err(ConfigError::value("broker.tls", "the embedded broker needs an address to listen on"));
        }
        Ok(Self {
            data_dir: raw.data_dir,
            broker,
            plain,
            tls,
            names: raw.broker.names,
            plain_beyond_loopback: raw.broker.dangerously_plain_beyond_loopback,
            teacher_threads: threads(raw.trainer.teacher_threads),
            scheduler: scheduler(raw.scheduler)?,
            metered: metered(&raw.metered)?,
            most_lost: most_lost(raw.models.most_lost)?,
            trainer,
        })
    }
}

fn metered(raw: &[RawMetered]) -> Result<BTreeMap<DeviceId, Metered>, ConfigError> {
    let mut all = BTreeMap::new();
    for (k, metered) in raw.iter().enumerate() {
        let key = format!("metered[{k}].device");
        let device: DeviceId = metered.device.parse().map_err(|error| ConfigError::value(&key, error))?;
        let allowance = (metered.max_mb_per_day > 0).then(|| u64::from(metered.max_mb_per_day) * 1_000_000);
        if all.insert(device, Metered { allowance }).is_some() {
            return Err(ConfigError::value(&key, format!("{} is named twice", metered.device)));
        }
    }
    Ok(all)
}

fn most_lost(fraction: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&fraction) {
        Ok(fraction)
    } else {
        Err(ConfigError::value("models.most_lost", "must be 0 to 1"))
    }
}

fn broker(key: &str, text: &str, authority: &Path) -> Result<BrokerChoice, ConfigError> {
    if text == "embedded" {
        return Ok(BrokerChoice::Embedded);
    }
    let address: ExternalAddress = text.parse().map_err(|error| ConfigError::value(key, error))?;
    if !address.is_encrypted() {
        let problem = "the host shows an external broker its certificate: use mqtts://HOST:PORT, or \"embedded\"";
        return Err(ConfigError::value(key, problem));
    }
    let authority = if authority.as_os_str().is_empty() {
        None
    } else {
        let text = std::fs::read_to_string(authority);
        let unreadable =
            |error| ConfigError::value("broker.authority", format_args!("{}: {error}", authority.display()));
        Some(text.map_err(unreadable)?)
    };
    Ok(BrokerChoice::External { address, authority })
}

fn listener(key: &str, text: &str) -> Result<Option<SocketAddr>, ConfigError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| ConfigError::value(key, "must be like \"127.0.0.1:1883\", or empty"))
}

fn scheduler(raw: RawScheduler) -> Result<SchedulerConfig, ConfigError> {
    let within = |key: &str, value: f64, low: f64, high: f64| {
        if (low..=high).contains(&value) {
            Ok(value)
        } else {
            Err(ConfigError::value(format!("scheduler.{key}"), format!("must be {low} to {high}")))
        }
    };
    let frequency = within("frequency_ghz", raw.frequency_ghz, 0.0, 1e6)?;
    let models = raw.models.iter().enumerate().map(|(k, model)| {
        let key = |name: &str| format!("models[{k}].{name}");
        let architecture =
            model.name.parse().map_err(|error| ConfigError::value(format!("scheduler.{}", key("name")), error))?;
        let own = within(&key("accuracy_own"), model.accuracy_own, 0.0, 1.0)?;
        let avg = within(&key("accuracy_avg"), model.accuracy_avg, 0.0, 1.0)?;
        Ok((architecture, Accuracy { own, avg }))
    });
    let models = models.collect::<Result<Vec<_>, ConfigError>>()?;
    if models.is_empty() {
        return Err(ConfigError::value("scheduler.models", "must name at least one student"));
    }
    Ok(SchedulerConfig {
        policy: raw.policy.parse().map_err(|error| ConfigError::value("scheduler.policy", error))?,
        frequency: (frequency > 0.0).then_some(Gigahertz(frequency)),
        bandwidth: Hertz(within("bandwidth_hz", raw.bandwidth_hz, 1.0, 1e12)?),
        decide_every: Duration::from_secs(raw.decide_every_s.clamp(1, 86_400)),
        hysteresis: within("hysteresis", raw.hysteresis, 0.0, 1.0)?,
        episodes: raw.episodes.clamp(100, 10_000_000),
        seed: raw.seed,
        weights: Weights {
            delay: within("weights.delay", raw.weights.delay, 1e-12, 1e12)?,
            compute: within("weights.compute", raw.weights.compute, 0.0, 1e12)?,
            bandwidth: within("weights.bandwidth", raw.weights.bandwidth, 0.0, 1e12)?,
            accuracy_own: within("weights.accuracy_own", raw.weights.accuracy_own, 0.0, 1e12)?,
            accuracy_avg: within("weights.accuracy_avg", raw.weights.accuracy_avg, 0.0, 1e12)?,
        },
        models,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_a_configuration() {
        let config = Config::parse("").expect("the defaults are valid");
        assert_eq!(config.scheduler.models.len(), 4);
        assert!(config.plain.is_none(), "nothing without TLS unless it is asked for");
        assert_eq!((config.tls, config.broker), (Some(([0, 0, 0, 0], 8883).into()), BrokerChoice::Embedded));
    }

    #[test]
    fn a_key_given_changes_that_key_alone() {
        let config = Config::parse("[scheduler]\nbandwidth_hz = 2e6").expect("valid");
        assert_eq!(config.scheduler.bandwidth, Hertz(2e6));
        assert_eq!(config.scheduler.policy, PolicyKind::QLearning);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("[scheduler]\nbandwith_hz = 1.0", "bandwith_hz"),
            ("[scheduler]\npolicy = \"guess\"", "scheduler.policy"),
            ("[broker]\nplain = \"0.0.0.0:1883\"", "broker.plain"),
            ("[broker]\nplain = \"nowhere\"", "broker.plain"),
            ("[broker]\nplain = \"0.0.0.0:1883\"", "dangerously_plain_beyond_loopback"),
            ("[broker]\ntls = \"\"", "broker.tls"),
            ("[broker]\nat = \"mqtt://localhost:1883\"", "broker.at"),
            ("[broker]\nat = \"somewhere\"", "broker.at"),
            ("[broker]\nat = \"mqtts://b:8883\"\nauthority = \"/nonexistent\"", "broker.authority"),
            ("[trainer]\ndevice = \"tpu\"", "trainer.device"),
            ("[[scheduler.models]]\nname = \"resnet50\"\naccuracy_own = 0.5\naccuracy_avg = 0.5", "models[0].name"),
            ("data_dir = 5", "data_dir"),
            ("[[metered]]\ndevice = \"A\"", "metered[0].device"),
            ("[[metered]]\ndevice = \"a\"\n[[metered]]\ndevice = \"a\"", "metered[1].device"),
            ("[models]\nmost_lost = 2.0", "models.most_lost"),
            ("not toml", ""),
        ] {
            let error = Config::parse(text).expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
