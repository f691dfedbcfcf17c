//! The configuration file as it is written; keys left out take the documented default's values.

use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw {
    pub(super) device: Device,
    pub(super) broker: Broker,
    pub(super) credentials: Credentials,
    pub(super) dataset: Dataset,
    pub(super) model: Model,
    pub(super) trainer: Trainer,
    pub(super) telemetry: Telemetry,
    pub(super) guard: Guard,
    pub(super) emulate: Option<Emulate>,
}

impl Raw {
    /// Makes the paths absolute, or relative to the same as this folder.
    pub(super) fn resolve(&mut self, folder: &Path) {
        for path in [
            &mut self.device.data_dir,
            &mut self.credentials.folder,
            &mut self.dataset.path,
            &mut self.trainer.program,
            &mut self.guard.inhibit_file,
        ] {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
    }
}

/// A section with its defaults; a test holds them against the documented file.
macro_rules! section {
    ($name:ident { $($field:ident: $type:ty = $default:expr),+ $(,)? }) => {
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        #[serde(default)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)+
        }

        #[cfg(test)]
        impl $name {
            pub(super) const KEYS: &[&str] = &[$(stringify!($field),)+];
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }
    };
}

section!(Device { name: String = "board-1".into(), data_dir: PathBuf = "/var/lib/twin-agent".into() });

section!(Broker {
    host: String = "127.0.0.1".into(),
    port: u16 = 8883,
    security: Security = Security::Mutual,
    dangerously_plain_beyond_loopback: bool = false,
});

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Security {
    Mutual,
    Plain,
}

section!(Credentials {
    folder: PathBuf = "/etc/twin-agent".into(),
    sealing_key: PathBuf = "sealing.key".into(),
    certificate: PathBuf = "device.crt".into(),
    private_key: PathBuf = "device.key".into(),
    authority: PathBuf = "ca.crt".into(),
});

section!(Dataset {
    path: PathBuf = PathBuf::new(),
    format: DatasetFormat = DatasetFormat::Folder,
    share_incoming: bool = false,
});

section!(Model { on_new_model: String = String::new(), hook_limit_s: u32 = 60 });

/// How a dataset is laid out on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetFormat {
    /// CIFAR-100's binary format.
    Cifar100,
    /// CIFAR-10's binary format.
    Cifar10,
    /// The UCI file of handwritten digits.
    Digits,
    /// A sub-folder of images a class.
    Folder,
    /// An image set as Twinstill itself writes it.
    Twinset,
}

section!(Trainer {
    program: PathBuf = "/usr/lib/twin-agent/twin-trainer".into(),
    threads: u16 = 0,
    memory_limit_mib: u32 = 0,
    niceness: u8 = 10,
    stall_s: u32 = 600,
});

section!(Telemetry { period_s: u32 = 5, interface: String = "auto".into(), backlog_kib: u32 = 256 });

section!(Guard {
    pause_above_c: f64 = 80.0,
    resume_below_c: f64 = 70.0,
    slow_above_c: f64 = 75.0,
    under_voltage_hold_s: u32 = 60,
    cpu_quota: f64 = 1.0,
    inhibit_file: PathBuf = "/run/twin-agent/inhibit".into(),
    windows: Vec<Window> = Vec::new(),
    utc_offset: String = "+00:00".into(),
});

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Window {
    #[serde(default)]
    pub(super) days: Vec<String>,
    pub(super) from: String,
    pub(super) to: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Emulate {
    pub(super) frequency_ghz: f64,
    pub(super) duty: f64,
    pub(super) uplink_bits_per_second: f64,
    pub(super) downlink_bits_per_second: f64,
}
