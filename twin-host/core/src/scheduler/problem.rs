//! The question put to the scheduler: a host, a channel, students, devices. A [`Scenario`] holds only values that
//! every policy can work with; whatever cannot be is refused here, by name of key and device.

use super::check::{efficiency, positive};
use twin_shared::config::Suggestion;
use twin_shared::id::DeviceId;
use twin_shared::units::{
    Bits, BitsPerSecond, BitsPerSecondPerHertz, Decibels, GhzSeconds, Gigahertz, Hertz, Seconds, Watts,
};

/// Most students that a scenario may name.
pub const MAX_MODELS: usize = 32;

/// Weights of Eq. (6): α, β, δ, η_o, η_a.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights {
    /// α, per second of delay; positive.
    pub delay: f64,
    /// β, per GHz·s of the host's compute.
    pub compute: f64,
    /// δ, per Hz of bandwidth.
    pub bandwidth: f64,
    /// η_o, for accuracy on the device's own data.
    pub accuracy_own: f64,
    /// η_a, for accuracy on all devices' data.
    pub accuracy_avg: f64,
}

/// Accuracies of a trained student, as fractions in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// Acc_own: on the device's own classes or distribution.
    pub own: f64,
    /// Acc_avg: on all devices' test images.
    pub avg: f64,
}

/// Constants of the radio channel, for devices whose link is given by gain or distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Radio {
    /// n_0, noise power.
    pub noise: Watts,
    /// g_0, gain at one metre.
    pub reference_gain: Decibels,
    /// γ, path-loss exponent.
    pub path_loss_exponent: f64,
}

/// How a device's spectral efficiency is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Link {
    /// e_i itself, as measured.
    Efficiency(BitsPerSecondPerHertz),
    /// p_i and h_i of Eq. (1).
    Gain {
        /// p_i, transmit power.
        power: Watts,
        /// h_i, channel gain.
        gain: f64,
    },
    /// p_i and the distance, h = g_0 d^-γ.
    Distance {
        /// p_i, transmit power.
        power: Watts,
        /// d, in metres.
        metres: f64,
    },
}

/// What the teacher asks for an epoch over a device's data (at a data scale of one).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Teacher {
    /// μ_t, one forward pass over the data.
    pub work: GhzSeconds,
    /// θ_l, the labels of one epoch.
    pub label_bits: Bits,
}

/// A student as the scheduler sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Student {
    /// Its name in configurations and files.
    pub name: String,
    /// μ_m, one epoch (at a data scale of one).
    pub work: GhzSeconds,
    /// θ_m, its state as sent.
    pub state: Bits,
    /// Accuracy by distillation.
    pub accuracy: Accuracy,
    /// Accuracy by federated averaging, for reports on `fl-min` and `fl-max`.
    pub federated: Option<Accuracy>,
}

/// A budget of bandwidth of its own, for boards on another uplink than the server's channel.
#[derive(Debug, Clone, PartialEq)]
pub struct BandwidthGroup {
    /// What devices call it.
    pub name: String,
    /// Its budget.
    pub bandwidth: Hertz,
}

/// What is known better for one device and student than the shared figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// The student's name.
    pub model: String,
    /// Measured seconds of an epoch on the board, for this device's data.
    pub local_seconds: Option<Seconds>,
    /// Measured seconds of an epoch on the whole host (all of f_ser), for this device's data.
    pub host_seconds: Option<Seconds>,
    /// Accuracy when trained on the board.
    pub local_accuracy: Option<Accuracy>,
    /// Accuracy when trained on the host.
    pub host_accuracy: Option<Accuracy>,
}

/// A device as configured or reported, not yet checked.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSpec {
    /// Its name.
    pub id: DeviceId,
    /// f_loc,i.
    pub frequency: Gigahertz,
    /// Its link.
    pub link: Link,
    /// Multiplies μ_t, μ_m and θ_l; 1 for a data set of the reference size.
    pub data_scale: f64,
    /// Whether the board can train at all; if not, the host does.
    pub can_train: bool,
    /// Names of the students that its memory holds; `None` for all.
    pub models: Option<Vec<String>>,
    /// Measured figures that replace the shared ones.
    pub overrides: Vec<Override>,
    /// Fastest rate of the link, whatever the bandwidth.
    pub rate_cap: Option<BitsPerSecond>,
    /// Name of its bandwidth group; `None` for the server's channel.
    pub group: Option<String>,
}

/// A scenario not yet checked: `Scenario::try_from` checks it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScenarioSpec {
    /// f_ser.
    pub frequency: Gigahertz,
    /// b_max of the server's channel.
    pub bandwidth: Hertz,
    /// Further channels with budgets of their own.
    pub groups: Vec<BandwidthGroup>,
    /// Constants for devices whose link is a gain or a distance.
    pub radio: Option<Radio>,
    /// α, β, δ, η.
    pub weights: Weights,
    /// The teacher.
    pub teacher: Teacher,
    /// M, the students to choose from.
    pub models: Vec<Student>,
    /// The devices.
    pub devices: Vec<DeviceSpec>,
}

/// What is wrong with a scenario: `key` of `place` (a device, a student, the file itself) and why.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct ScenarioError {
    /// Where: "scenario", "device board1", "model vgg8".
    pub place: String,
    /// What.
    pub fault: Fault,
}

/// The ways in which a scenario can be wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Fault {
    /// A key that must be there is not.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A key nobody reads.
    #[error("unknown key `{key}`{}", Suggestion(nearest))]
    UnknownKey {
        /// The key.
        key: String,
        /// The known key most like it, if one is.
        nearest: Option<String>,
    },
    /// A value outside its bounds.
    #[error("`{key}` is {value}; it must be {wanted}")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value.
        value: f64,
        /// Its bounds in words.
        wanted: &'static str,
    },
    /// A name that is nowhere defined.
    #[error("`{key}` names {name:?}, which the scenario does not have")]
    UnknownName {
        /// The key.
        key: String,
        /// The name.
        name: String,
    },
    /// A name used twice.
    #[error("`{key}` {name:?} is used twice")]
    Duplicate {
        /// The key.
        key: String,
        /// The name.
        name: String,
    },
    /// A list that must have members has none.
    #[error("`{0}` is empty; it needs at least one entry")]
    Empty(String),
    /// More members than can be handled.
    #[error("`{key}` has {count} entries; at most {most} are handled")]
    TooMany {
        /// The key.
        key: String,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// Two keys of which only one may be given, or a text that cannot be read.
    #[error("{0}")]
    Malformed(String),
}

impl Fault {
    pub(crate) fn at(self, place: impl Into<String>) -> ScenarioError {
        ScenarioError { place: place.into(), fault: self }
    }
}

/// A checked override, by index of student.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Measured {
    pub(crate) local_seconds: Option<f64>,
    pub(crate) host_seconds: Option<f64>,
    pub(crate) local_accuracy: Option<Accuracy>,
    pub(crate) host_accuracy: Option<Accuracy>,
}

/// A checked device; under 130 bytes, for scenarios of a million.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    pub(crate) id: DeviceId,
    pub(crate) frequency: Gigahertz,
    pub(crate) link: Link,
    pub(crate) efficiency: BitsPerSecondPerHertz,
    pub(crate) data_scale: f64,
    /// Infinite where there is none.
    pub(crate) rate_cap: BitsPerSecond,
    /// Bit m is set if student m is allowed; never zero.
    pub(crate) allowed: u32,
    pub(crate) group: u16,
    pub(crate) can_train: bool,
    /// One entry a student where anything was measured; empty otherwise.
    pub(crate) measured: Box<[Measured]>,
}

impl Device {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    /// f_loc,i.
    #[must_use]
    pub fn frequency(&self) -> Gigahertz {
        self.frequency
    }

    /// e_i = log2(1 + p_i h_i / n_0), or as measured.
    #[must_use]
    pub fn efficiency(&self) -> BitsPerSecondPerHertz {
        self.efficiency
    }

    /// Size of its data, the reference being 1.
    #[must_use]
    pub fn data_scale(&self) -> f64 {
        self.data_scale
    }

    /// Whether it may train itself.
    #[must_use]
    pub fn can_train(&self) -> bool {
        self.can_train
    }

    /// Whether it may have student `model`.
    #[must_use]
    pub fn allows(&self, model: usize) -> bool {
        model < MAX_MODELS && self.allowed >> model & 1 == 1
    }

    /// Most bandwidth of any use to it; infinite without a rate cap.
    #[must_use]
    pub fn bandwidth_cap(&self) -> Hertz {
        Hertz(self.rate_cap.0 / self.efficiency.0)
    }

    /// Index of the channel it shares, see [`Scenario::bandwidths`].
    #[must_use]
    pub fn group(&self) -> usize {
        usize::from(self.group)
    }
}

/// A question that every policy can answer: all values checked, all names resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    pub(crate) frequency: Gigahertz,
    /// Budget of each channel: the server's first, then the groups'.
    pub(crate) bandwidths: Vec<Hertz>,
    pub(crate) group_names: Vec<String>,
    pub(crate) radio: Option<Radio>,
    pub(crate) weights: Weights,
    pub(crate) teacher: Teacher,
    pub(crate) models: Vec<Student>,
    pub(crate) devices: Vec<Device>,
}

impl Scenario {
    /// f_ser.
    #[must_use]
    pub fn frequency(&self) -> Gigahertz {
        self.frequency
    }

    /// b_max of every channel: the server's first, then those of the bandwidth groups.
    #[must_use]
    pub fn bandwidths(&self) -> &[Hertz] {
        &self.bandwidths
    }

    /// α, β, δ, η.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// μ_t and θ_l.
    #[must_use]
    pub fn teacher(&self) -> &Teacher {
        &self.teacher
    }

    /// The students.
    #[must_use]
    pub fn models(&self) -> &[Student] {
        &self.models
    }

    /// The devices, in the order of every answer.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Whether any device has a rate cap.
    #[must_use]
    pub fn is_capped(&self) -> bool {
        self.devices.iter().any(|device| device.rate_cap.0.is_finite())
    }

    /// The same question with another board frequency and link for each device. Seconds that were measured on a board
    /// are taken to change with its frequency.
    ///
    /// # Errors
    /// If a value is out of range or needs radio constants that the scenario lacks.
    pub fn with_boards(&self, boards: &[(Gigahertz, Link)]) -> Result<Self, ScenarioError> {
        let mut changed = self.clone();
        for (device, &(frequency, link)) in changed.devices.iter_mut().zip(boards) {
            let place = || format!("device {}", device.id);
            let frequency = Gigahertz(positive(place(), "frequency_ghz", frequency.0)?);
            let slower = device.frequency.0 / frequency.0;
            for seconds in device.measured.iter_mut().filter_map(|measured| measured.local_seconds.as_mut()) {
                *seconds = positive(place(), "seconds", *seconds * slower)?;
            }
            device.frequency = frequency;
            device.efficiency = efficiency(link, self.radio.as_ref(), &device.id)?;
            device.link = link;
        }
        Ok(changed)
    }

    /// The same question with federated accuracies in place of those by distillation, if every student has them.
    #[must_use]
    pub fn with_federated_accuracy(&self) -> Option<Self> {
        let mut changed = self.clone();
        for model in &mut changed.models {
            model.accuracy = model.federated?;
        }
        Some(changed)
    }
}
