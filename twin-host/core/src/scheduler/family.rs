//! Random scenarios: where policies are trained and compared.
//!
//! The generator is ChaCha with 8 rounds, its 32-byte key the seed in little-endian bytes followed by zeros, its
//! stream the number of the draw. A uniform number in [0, 1) is the upper 53 bits of one 64-bit output times 2^-53.
//! Devices are drawn in order, and of each, in order: the distance (or its logarithm), the frequency, and for the
//! fleet family the data scale, whether it can train, and whether it holds only the two small students; every device
//! takes all its numbers whether they matter or not. So a family, a size, a seed and a draw mean the same scenario
//! for ever, to the accuracy of the platform's `exp`.

use super::problem::{
    Accuracy, DeviceSpec, Link, Radio, Scenario, ScenarioError, ScenarioSpec, Student, Teacher, Weights,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use twin_shared::id::DeviceId;
use twin_shared::units::{Bits, BitsPerSecondPerHertz, Decibels, GhzSeconds, Gigahertz, Hertz, Watts};

/// The generator for draw number `draw` of a seed.
#[must_use]
pub fn generator(seed: u64, draw: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(draw);
    rng
}

/// A uniform number in [0, 1).
pub fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (-53f64).exp2()
}

fn within(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * uniform(rng)
}

fn log_within(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low * ((high / low).ln() * uniform(rng)).exp()
}

/// A uniform index below `count` (at least 1).
pub fn index_below(rng: &mut ChaCha8Rng, count: usize) -> usize {
    ((uniform(rng) * count as f64) as usize).min(count.saturating_sub(1))
}

/// A distribution of scenarios.
#[derive(Debug, Clone)]
pub enum Family {
    /// As the paper draws: distance uniform in [10, 100] m, frequency in [0.5, 2] GHz, all else as in the scenario.
    Paper(Scenario),
    /// The harder family: unequal boards, data and memory.
    Fleet {
        /// N.
        devices: usize,
    },
    /// Around a live scenario: every frequency and gain times a log-uniform factor.
    Around {
        /// The middle.
        scenario: Scenario,
        /// The frequency's factor lies in [1/this, this].
        frequency: f64,
        /// The channel gain's factor lies in [1/this, this].
        gain: f64,
    },
}

impl Family {
    /// `--family paper`: the paper's constants for `devices` devices, budgets scaled by N/4.
    ///
    /// # Errors
    /// If there are no devices.
    pub fn paper(devices: usize) -> Result<Self, ScenarioError> {
        let ratio = devices as f64 / 4.0;
        let spec = ScenarioSpec {
            frequency: Gigahertz(10.0 * ratio),
            bandwidth: Hertz(10e6 * ratio),
            devices: (0..devices).map(|index| device(index, 1.0, 50.0, 1.0)).collect(),
            ..constants()
        };
        if devices == 0 {
            return Err(no_devices());
        }
        Scenario::try_from(spec).map(Self::Paper)
    }

    /// `--family fleet` for `devices` devices.
    ///
    /// # Errors
    /// If there are no devices.
    pub fn fleet(devices: usize) -> Result<Self, ScenarioError> {
        if devices == 0 { Err(no_devices()) } else { Ok(Self::Fleet { devices }) }
    }

    /// What a live scenario varies by: throttling, and a few decibels of fading.
    #[must_use]
    pub const fn around(scenario: Scenario) -> Self {
        Self::Around { scenario, frequency: 1.5, gain: 4.0 }
    }

    /// Whether a policy trained on this family knows such a scenario: for one around another, the same devices with
    /// the same permissions, students and data, each frequency, link and measured second within what was drawn.
    #[must_use]
    pub fn covers(&self, scenario: &Scenario) -> bool {
        let Self::Around { scenario: middle, frequency, gain } = self else { return true };
        let alike = middle.models().len() == scenario.models().len()
            && middle.devices().len() == scenario.devices().len()
            && middle.models().iter().zip(scenario.models()).all(|(a, b)| a.name == b.name);
        alike
            && middle.devices().iter().zip(scenario.devices()).all(|(known, now)| {
                let near = |a: f64, b: f64, factor: f64| (1.0 / factor..=factor).contains(&(a / b));
                let (weakest, strongest) =
                    (with_gain(known.efficiency().0, 1.0 / gain), with_gain(known.efficiency().0, *gain));
                let seconds =
                    known.measured.iter().zip(&now.measured).all(|(a, b)| match (a.local_seconds, b.local_seconds) {
                        (Some(a), Some(b)) => near(a, b, *frequency),
                        (None, None) => true,
                        (Some(_), None) | (None, Some(_)) => false,
                    });
                known.id() == now.id()
                    && seconds
                    && known.measured.len() == now.measured.len()
                    && known.can_train() == now.can_train()
                    && known.allowed == now.allowed
                    && near(known.frequency().0, now.frequency().0, *frequency)
                    && near(known.data_scale(), now.data_scale(), 1.1)
                    && (weakest..=strongest).contains(&now.efficiency().0)
            })
    }

    /// Devices of every draw.
    #[must_use]
    pub fn devices(&self) -> usize {
        match self {
            Self::Paper(scenario) | Self::Around { scenario, .. } => scenario.devices().len(),
            Self::Fleet { devices } => *devices,
        }
    }

    /// One draw.
    ///
    /// # Errors
    /// If the base scenario's constants admit no such device: no radio constants, or no signal at the distance drawn.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Result<Scenario, ScenarioError> {
        match self {
            Self::Paper(base) => {
                let boards = base.devices().iter().map(|device| {
                    let metres = within(rng, 10.0, 100.0);
                    let frequency = Gigahertz(within(rng, 0.5, 2.0));
                    let power = match device.link {
                        Link::Gain { power, .. } | Link::Distance { power, .. } => power,
                        Link::Efficiency(_) => POWER,
                    };
                    (frequency, Link::Distance { power, metres })
                });
                let boards: Vec<_> = boards.collect();
                base.with_boards(&boards)
            }
            Self::Fleet { devices } => fleet(*devices, rng).try_into(),
            Self::Around { scenario, frequency, gain } => {
                let boards = scenario.devices().iter().map(|device| {
                    let faster = log_within(rng, 1.0 / frequency, *frequency);
                    let stronger = log_within(rng, 1.0 / gain, *gain);
                    let efficiency = with_gain(device.efficiency().0, stronger);
                    let link = Link::Efficiency(BitsPerSecondPerHertz(efficiency.clamp(1e-30, 1e30)));
                    (Gigahertz((device.frequency().0 * faster).clamp(1e-30, 1e30)), link)
                });
                let boards: Vec<_> = boards.collect();
                scenario.with_boards(&boards)
            }
        }
    }
}

/// The efficiency after the gain changes by `factor`: log2(1 + (2^e - 1) factor), without overflow.
fn with_gain(efficiency: f64, factor: f64) -> f64 {
    if efficiency > 50.0 {
        return efficiency + factor.log2();
    }
    let ratio = (efficiency * std::f64::consts::LN_2).exp_m1();
    (ratio * factor).ln_1p() / std::f64::consts::LN_2
}

fn no_devices() -> ScenarioError {
    super::problem::Fault::Empty("devices".into()).at("scenario")
}

/// p_i of the paper.
const POWER: Watts = Watts(0.1);

fn device(index: usize, frequency: f64, metres: f64, data_scale: f64) -> DeviceSpec {
    let id: DeviceId = format!("board{}", index + 1).parse().expect("a word and a number make a valid name");
    DeviceSpec {
        id,
        frequency: Gigahertz(frequency),
        link: Link::Distance { power: POWER, metres },
        data_scale,
        can_train: true,
        models: None,
        overrides: Vec::new(),
        rate_cap: None,
        group: None,
    }
}

/// The constants of `presets/paper-preset.toml`, without devices.
fn constants() -> ScenarioSpec {
    let student = |name: &str, work, state, own, avg, fl_own, fl_avg| Student {
        name: name.into(),
        work: GhzSeconds(work),
        state: Bits(state),
        accuracy: Accuracy { own, avg },
        federated: Some(Accuracy { own: fl_own, avg: fl_avg }),
    };
    ScenarioSpec {
        frequency: Gigahertz(10.0),
        bandwidth: Hertz(10e6),
        groups: Vec::new(),
        radio: Some(Radio { noise: Watts(2.27e-12), reference_gain: Decibels(-40.0), path_loss_exponent: 2.8 }),
        weights: Weights {
            delay: 0.00928,
            compute: 0.00635,
            bandwidth: 3.96e-11,
            accuracy_own: 1.20,
            accuracy_avg: 0.92,
        },
        teacher: Teacher { work: GhzSeconds(17.6), label_bits: Bits(1.72e8) },
        models: vec![
            student("vgg8", 6.83, 2.5376e7, 0.8653, 0.2360, 0.0447, 0.0112),
            student("resnet8x4", 8.75, 7.8947e6, 0.8946, 0.2581, 0.0588, 0.0147),
            student("resnet14x4", 12.27, 1.7815e7, 0.9098, 0.2848, 0.0572, 0.0143),
            student("resnet26x4", 18.96, 3.7656e7, 0.9014, 0.2873, 0.0492, 0.0123),
        ],
        devices: Vec::new(),
    }
}

/// Bits a parameter in the paper's preset and in the fleet family.
const PRESET_BITS: f64 = 6.4;
const FLEET_BITS: f64 = 8.0;

fn fleet(devices: usize, rng: &mut ChaCha8Rng) -> ScenarioSpec {
    let count = devices as f64;
    let mut spec = constants();
    spec.frequency = Gigahertz(count);
    spec.bandwidth = Hertz(2.5e6 * count);
    spec.weights.delay = 0.02;
    spec.teacher = Teacher { work: GhzSeconds(7.4), label_bits: Bits(1e8) };
    for model in &mut spec.models {
        model.state = model.state * (FLEET_BITS / PRESET_BITS);
    }
    let small = ["vgg8", "resnet8x4"];
    spec.devices = (0..devices)
        .map(|index| {
            let metres = log_within(rng, 5.0, 300.0);
            let frequency = log_within(rng, 0.2, 6.0);
            let data_scale = log_within(rng, 0.25, 4.0);
            let can_train = uniform(rng) >= 0.15;
            let holds_small_only = uniform(rng) < 25.0 / 85.0;
            let mut device = device(index, frequency, metres, data_scale);
            device.can_train = can_train;
            if can_train && holds_small_only {
                device.models = Some(small.map(String::from).to_vec());
            }
            device
        })
        .collect();
    spec
}
