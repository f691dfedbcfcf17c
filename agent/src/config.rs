//! The agent's configuration: what the file says, checked once, in types that cannot hold a bad value.

mod raw;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use twin_shared::config::{ConfigError, from_toml};
use twin_shared::id::DeviceId;
use twin_shared::units::{BitsPerSecond, Gigahertz};

use crate::guard::{GuardRules, Window, WindowError};
pub use raw::DatasetFormat;
use raw::Raw;

/// The documented default configuration, as `twin-agent config default` prints it.
pub const DEFAULT: &str = include_str!("../config/default.toml");

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The board's name.
    pub device: DeviceId,
    /// Where the agent keeps what must survive a restart.
    pub data_dir: PathBuf,
    /// Where the broker is.
    pub broker: Broker,
    /// The files that say who the board is.
    pub credentials: Credentials,
    /// What the board learns from, if it has anything yet.
    pub dataset: Option<Dataset>,
    /// What follows a new model.
    pub model: ModelRules,
    /// How training is started.
    pub trainer: Trainer,
    /// What is sampled, how often, and how much is kept.
    pub telemetry: TelemetryRules,
    /// When training must wait.
    pub guard: GuardRules,
    /// While this file exists, training waits.
    pub inhibit_file: Option<PathBuf>,
    /// The board that this machine plays.
    pub emulate: Option<Emulate>,
}

/// Where the broker is and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// With TLS or without.
    pub security: Security,
}

/// How the connection itself is protected; payloads are sealed either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS, both sides with certificates.
    Mutual,
    /// None.
    Plain,
}

/// The files that say who the board is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// 32 random bytes shared with the host, from which both derive the keys that seal payloads.
    pub sealing_key: PathBuf,
    /// The board's certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub private_key: PathBuf,
    /// The authority that signed the host's certificate, PEM.
    pub authority: PathBuf,
}

/// What the board learns from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// A file or a folder.
    pub path: PathBuf,
    /// How it is laid out.
    pub format: DatasetFormat,
    /// Whether the host sees the pictures that wait for a label, and may label them.
    pub share_incoming: bool,
}

/// What follows a new model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRules {
    /// The owner's command.
    pub on_new_model: Option<String>,
    /// The longest that it may take.
    pub hook_limit: Duration,
}

/// How training is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trainer {
    /// The program.
    pub program: PathBuf,
    /// Threads of one training; `None`: as many as there are cores.
    pub threads: Option<u16>,
    /// Memory beyond which it is stopped, bytes.
    pub memory_limit: Option<u64>,
    /// 0 to 19.
    pub niceness: u8,
    /// A trainer that is silent for so long hangs.
    pub stall: Duration,
}

/// What is sampled, how often, and how much is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryRules {
    /// Between two samples.
    pub period: Duration,
    /// The interface to the host; `None`: the one with the default route.
    pub interface: Option<String>,
    /// Bytes of samples kept while there is no connection.
    pub backlog_bytes: usize,
}

/// The board that this machine plays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Emulate {
    /// The compute that it claims.
    pub frequency: Gigahertz,
    /// The share of time that its trainer really works, in (0, 1].
    pub duty: f64,
    /// Its rate to the host.
    pub uplink: BitsPerSecond,
    /// Its rate from the host.
    pub downlink: BitsPerSecond,
}

/// Why a configuration file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It can, and is wrong.
    #[error("{}: {error}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: ConfigError,
    },
}

impl Config {
    /// Reads and checks a configuration file; its relative paths are relative to its folder.
    ///
    /// # Errors
    /// A file that cannot be read, or the first thing that is wrong, with its key.
    pub fn load(file: &Path) -> Result<Self, LoadError> {
        let read = |error| LoadError::Read { file: file.to_owned(), error };
        let refused = |error| LoadError::Refused { file: file.to_owned(), error };
        let mut raw: Raw = from_toml(&std::fs::read_to_string(file).map_err(read)?).map_err(refused)?;
        raw.resolve(file.parent().unwrap_or(Path::new("")));
        raw.try_into().map_err(refused)
    }

    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        from_toml::<Raw>(text)?.try_into()
    }
}

impl TryFrom<Raw> for Config {
    type Error = ConfigError;

    fn try_from(raw: Raw) -> Result<Self, ConfigError> {
        let device = raw.device.name.parse().map_err(|error| ConfigError::value("device.name", error))?;
        if raw.device.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::value("device.data_dir", "must name a folder"));
        }
        let file = |name: &Path| raw.credentials.folder.join(name);
        Ok(Self {
            device,
            data_dir: raw.device.data_dir,
            broker: broker(raw.broker)?,
            credentials: Credentials {
                sealing_key: file(&raw.credentials.sealing_key),
                certificate: file(&raw.credentials.certificate),
                private_key: file(&raw.credentials.private_key),
                authority: file(&raw.credentials.authority),
            },
            dataset: dataset(raw.dataset)?,
            model: model(raw.model)?,
            trainer: trainer(raw.trainer)?,
            telemetry: telemetry(raw.telemetry)?,
            inhibit_file: given(raw.guard.inhibit_file.clone()),
            guard: guard(raw.guard)?,
            emulate: raw.emulate.map(emulate).transpose()?,
        })
    }
}

fn dataset(raw: raw::Dataset) -> Result<Option<Dataset>, ConfigError> {
    let raw::Dataset { path, format, share_incoming } = raw;
    if share_incoming && format != DatasetFormat::Folder {
        return Err(ConfigError::value("dataset.share_incoming", "needs dataset.format = \"folder\""));
    }
    Ok(given(path).map(|path| Dataset { path, format, share_incoming }))
}

fn given(path: PathBuf) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then_some(path)
}

fn broker(raw: raw::Broker) -> Result<Broker, ConfigError> {
    if raw.host.is_empty() || raw.host.contains(char::is_whitespace) {
        return Err(ConfigError::value("broker.host", "must be a name or an address"));
    }
    if raw.port == 0 {
        return Err(ConfigError::value("broker.port", "must be 1 to 65535"));
    }
    let security = match raw.security {
        raw::Security::Mutual => Security::Mutual,
        raw::Security::Plain if is_loopback(&raw.host) || raw.dangerously_plain_beyond_loopback => Security::Plain,
        raw::Security::Plain => {
            return Err(ConfigError::value(
                "broker.security",
                format_args!(
                    "\"plain\" to {} leaves this machine without TLS; take \"mutual\", or set \
                     broker.dangerously_plain_beyond_loopback = true",
                    raw.host
                ),
            ));
        }
    };
    Ok(Broker { host: raw.host, port: raw.port, security })
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn model(raw: raw::Model) -> Result<ModelRules, ConfigError> {
    if !(1..=3600).contains(&raw.hook_limit_s) {
        return Err(ConfigError::value("model.hook_limit_s", "must be 1 to 3600 seconds"));
    }
    Ok(ModelRules {
        on_new_model: (!raw.on_new_model.trim().is_empty()).then_some(raw.on_new_model),
        hook_limit: Duration::from_secs(u64::from(raw.hook_limit_s)),
    })
}

fn trainer(raw: raw::Trainer) -> Result<Trainer, ConfigError> {
    if raw.niceness > 19 {
        return Err(ConfigError::value("trainer.niceness", "must be 0 to 19"));
    }
    if !(1..=86_400).contains(&raw.stall_s) {
        return Err(ConfigError::value("trainer.stall_s", "must be 1 to 86400 seconds"));
    }
    Ok(Trainer {
        program: raw.program,
        threads: (raw.threads > 0).then_some(raw.threads),
        memory_limit: (raw.memory_limit_mib > 0).then_some(u64::from(raw.memory_limit_mib) << 20),
        niceness: raw.niceness,
        stall: Duration::from_secs(u64::from(raw.stall_s)),
    })
}

fn telemetry(raw: raw::Telemetry) -> Result<TelemetryRules, ConfigError> {
    if !(1..=3600).contains(&raw.period_s) {
        return Err(ConfigError::value("telemetry.period_s", "must be 1 to 3600 seconds"));
    }
    // It is a folder's name in /sys.
    if raw.interface.is_empty() || raw.interface.contains('/') || raw.interface.starts_with('.') {
        return Err(ConfigError::value("telemetry.interface", "must be \"auto\" or an interface's name"));
    }
    if !(1..=65_536).contains(&raw.backlog_kib) {
        return Err(ConfigError::value("telemetry.backlog_kib", "must be 1 to 65536 KiB"));
    }
    Ok(TelemetryRules {
        period: Duration::from_secs(u64::from(raw.period_s)),
        interface: (raw.interface != "auto").then_some(raw.interface),
        backlog_bytes: usize::try_from(raw.backlog_kib).expect("at most 65536") << 10,
    })
}

fn guard(raw: raw::Guard) -> Result<GuardRules, ConfigError> {
    let ordered = raw.resume_below_c < raw.slow_above_c && raw.slow_above_c < raw.pause_above_c;
    if !ordered || !(0.0..=120.0).contains(&raw.resume_below_c) || !(0.0..=120.0).contains(&raw.pause_above_c) {
        return Err(ConfigError::value(
            "guard.pause_above_c",
            "must be above guard.slow_above_c, and that above guard.resume_below_c, all within 0 to 120 degrees",
        ));
    }
    let quota = share("guard.cpu_quota", raw.cpu_quota)?;
    let windows = raw.windows.iter().enumerate().map(|(i, window)| {
        Window::new(&window.days, &window.from, &window.to).map_err(|error| {
            let key = match error {
                WindowError::Day(_) => "days",
                WindowError::Time(_) => "from",
                WindowError::Empty => "to",
            };
            ConfigError::value(format!("guard.windows[{i}].{key}"), error)
        })
    });
    Ok(GuardRules {
        pause_above: raw.pause_above_c,
        slow_above: raw.slow_above_c,
        resume_below: raw.resume_below_c,
        under_voltage_hold: Duration::from_secs(u64::from(raw.under_voltage_hold_s)),
        quota,
        windows: windows.collect::<Result<_, _>>()?,
        utc_offset_minutes: utc_offset(&raw.utc_offset)?,
    })
}

/// Minutes of `+hh:mm` or `-hh:mm`.
fn utc_offset(text: &str) -> Result<i16, ConfigError> {
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => (0, ""),
    };
    crate::guard::minute_of_day(rest)
        .ok()
        .and_then(|minutes| i16::try_from(minutes).ok())
        .filter(|&minutes| sign != 0 && minutes <= 14 * 60)
        .map(|minutes| sign * minutes)
        .ok_or_else(|| ConfigError::value("guard.utc_offset", "must be like \"+02:00\", at most 14 hours"))
}

fn emulate(raw: raw::Emulate) -> Result<Emulate, ConfigError> {
    let frequency = Gigahertz(raw.frequency_ghz);
    if !(0.001..=65.0).contains(&frequency.0) {
        return Err(ConfigError::value("emulate.frequency_ghz", "must be 0.001 to 65"));
    }
    let rate = |key: &str, rate: f64| {
        if (1e3..=1e12).contains(&rate) {
            Ok(BitsPerSecond(rate))
        } else {
            Err(ConfigError::value(key, "must be 1e3 to 1e12"))
        }
    };
    Ok(Emulate {
        frequency,
        duty: share("emulate.duty", raw.duty)?,
        uplink: rate("emulate.uplink_bits_per_second", raw.uplink_bits_per_second)?,
        downlink: rate("emulate.downlink_bits_per_second", raw.downlink_bits_per_second)?,
    })
}

fn share(key: &str, value: f64) -> Result<f64, ConfigError> {
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err(ConfigError::value(key, "must be above 0 and at most 1")) }
}

#[cfg(test)]
mod tests;
