//! Scenarios as files: the keys of `presets/*.toml`, read leniently and resolved strictly.
//!
//! Every key is optional to the reader, so that a missing one is reported by its own name and its device's; keys that
//! nobody reads are caught and reported with the nearest known one.

use super::problem::{
    Accuracy, BandwidthGroup, DeviceSpec, Fault, Link, Override, Radio, Scenario, ScenarioError, ScenarioSpec, Student,
    Teacher, Weights,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use twin_shared::config::nearest;
use twin_shared::id::DeviceId;
use twin_shared::units::{
    Bits, BitsPerSecond, BitsPerSecondPerHertz, Decibels, GhzSeconds, Gigahertz, Hertz, Seconds, Watts,
};

/// Keys found in a section that the section does not have.
type Unknown = BTreeMap<String, serde::de::IgnoredAny>;

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize, Serialize)]
        pub struct $name {
            $(
                #[serde(skip_serializing_if = "Option::is_none")]
                $(#[$field_meta])*
                $field: Option<$kind>,
            )*
            #[serde(flatten, skip_serializing)]
            unknown: Unknown,
        }

        impl $name {
            /// Refuses keys that the section does not have.
            fn check_keys(&self, place: &str) -> Result<(), ScenarioError> {
                refuse_unknown(&self.unknown, &[$(stringify!($field)),*], place)
            }
        }
    };
}

section!(
    /// A whole scenario file.
    RawScenario {
        server: RawServer,
        radio: RawRadio,
        weights: RawWeights,
        teacher: RawTeacher,
        bandwidth_groups: Vec<RawGroup>,
        models: Vec<RawModel>,
        devices: Vec<RawDevice>,
    }
);
section!(
    /// `[server]`: f_ser and b_max.
    RawServer { frequency_ghz: f64, bandwidth_hz: f64, }
);
section!(
    /// `[radio]`: n_0, g_0, γ.
    RawRadio { noise_w: f64, reference_gain_db: f64, path_loss_exponent: f64, }
);
section!(
    /// `[weights]`: α, β, δ, η_o, η_a.
    RawWeights { delay: f64, compute: f64, bandwidth: f64, accuracy_own: f64, accuracy_avg: f64, }
);
section!(
    /// `[teacher]`: μ_t, θ_l.
    RawTeacher { work_ghz_s: f64, label_bits: f64, }
);
section!(
    /// `[[bandwidth_groups]]`: a channel with a budget of its own.
    RawGroup { name: String, bandwidth_hz: f64, }
);
section!(
    /// `[[models]]`: a student.
    RawModel {
        name: String,
        work_ghz_s: f64,
        parameter_bits: f64,
        accuracy_own: f64,
        accuracy_avg: f64,
        accuracy_fl_own: f64,
        accuracy_fl_avg: f64,
    }
);
section!(
    /// `[[devices]]`: a board.
    RawDevice {
        id: String,
        frequency_ghz: f64,
        transmit_power_w: f64,
        channel_gain: f64,
        distance_m: f64,
        spectral_efficiency: f64,
        data_scale: f64,
        can_train: bool,
        models: Vec<String>,
        rate_cap_bps: f64,
        bandwidth_group: String,
        seconds: BTreeMap<String, RawSeconds>,
        accuracy: BTreeMap<String, RawAccuracy>,
    }
);
section!(
    /// `[devices.seconds]`: measured seconds of an epoch, by student.
    RawSeconds { local: f64, host: f64, }
);
section!(
    /// `[devices.accuracy]`: accuracy by student, the same for both sites or by site.
    RawAccuracy { own: f64, avg: f64, local: RawSiteAccuracy, host: RawSiteAccuracy, }
);
section!(
    /// Accuracy of a student trained at one site.
    RawSiteAccuracy { own: f64, avg: f64, }
);

fn refuse_unknown(unknown: &Unknown, known: &[&str], place: &str) -> Result<(), ScenarioError> {
    let Some(key) = unknown.keys().next() else {
        return Ok(());
    };
    Err(Fault::UnknownKey { key: key.clone(), nearest: nearest(key, known) }.at(place))
}

/// The value of a key that must be there.
fn need<T: Clone>(value: Option<&T>, key: &str, place: &str) -> Result<T, ScenarioError> {
    value.cloned().ok_or_else(|| Fault::Missing(key.into()).at(place))
}

impl TryFrom<RawScenario> for Scenario {
    type Error = ScenarioError;

    fn try_from(raw: RawScenario) -> Result<Self, ScenarioError> {
        ScenarioSpec::try_from(raw)?.try_into()
    }
}

impl TryFrom<RawScenario> for ScenarioSpec {
    type Error = ScenarioError;

    fn try_from(raw: RawScenario) -> Result<Self, ScenarioError> {
        raw.check_keys("scenario")?;
        let server: RawServer = need(raw.server.as_ref(), "server", "scenario")?;
        server.check_keys("[server]")?;
        let weights: RawWeights = need(raw.weights.as_ref(), "weights", "scenario")?;
        weights.check_keys("[weights]")?;
        let teacher: RawTeacher = need(raw.teacher.as_ref(), "teacher", "scenario")?;
        teacher.check_keys("[teacher]")?;
        let radio = raw.radio.as_ref().map(resolve_radio).transpose()?;
        let models: Vec<RawModel> = need(raw.models.as_ref(), "models", "scenario")?;
        let devices: Vec<RawDevice> = need(raw.devices.as_ref(), "devices", "scenario")?;
        let weight = |value: Option<f64>, key| need(value.as_ref(), key, "[weights]");
        Ok(Self {
            frequency: Gigahertz(need(server.frequency_ghz.as_ref(), "frequency_ghz", "[server]")?),
            bandwidth: Hertz(need(server.bandwidth_hz.as_ref(), "bandwidth_hz", "[server]")?),
            groups: raw.bandwidth_groups.iter().flatten().map(resolve_group).collect::<Result<_, _>>()?,
            radio,
            weights: Weights {
                delay: weight(weights.delay, "delay")?,
                compute: weight(weights.compute, "compute")?,
                bandwidth: weight(weights.bandwidth, "bandwidth")?,
                accuracy_own: weight(weights.accuracy_own, "accuracy_own")?,
                accuracy_avg: weight(weights.accuracy_avg, "accuracy_avg")?,
            },
            teacher: Teacher {
                work: GhzSeconds(need(teacher.work_ghz_s.as_ref(), "work_ghz_s", "[teacher]")?),
                label_bits: Bits(need(teacher.label_bits.as_ref(), "label_bits", "[teacher]")?),
            },
            models: models.iter().enumerate().map(resolve_model).collect::<Result<_, _>>()?,
            devices: devices.iter().enumerate().map(resolve_device).collect::<Result<_, _>>()?,
        })
    }
}

fn resolve_radio(raw: &RawRadio) -> Result<Radio, ScenarioError> {
    raw.check_keys("[radio]")?;
    Ok(Radio {
        noise: Watts(need(raw.noise_w.as_ref(), "noise_w", "[radio]")?),
        reference_gain: Decibels(need(raw.reference_gain_db.as_ref(), "reference_gain_db", "[radio]")?),
        path_loss_exponent: need(raw.path_loss_exponent.as_ref(), "path_loss_exponent", "[radio]")?,
    })
}

fn resolve_group(raw: &RawGroup) -> Result<BandwidthGroup, ScenarioError> {
    let name: String = need(raw.name.as_ref(), "name", "[[bandwidth_groups]]")?;
    let place = format!("bandwidth group {name}");
    raw.check_keys(&place)?;
    Ok(BandwidthGroup { bandwidth: Hertz(need(raw.bandwidth_hz.as_ref(), "bandwidth_hz", &place)?), name })
}

fn resolve_model((index, raw): (usize, &RawModel)) -> Result<Student, ScenarioError> {
    let nth = format!("model {} of the list", index + 1);
    let place = raw.name.as_ref().map_or_else(|| nth.clone(), |name| format!("model {name}"));
    raw.check_keys(&place)?;
    let number = |value: Option<f64>, key| need(value.as_ref(), key, &place);
    let federated = match (raw.accuracy_fl_own, raw.accuracy_fl_avg) {
        (None, None) => None,
        (own, avg) => Some(Accuracy { own: number(own, "accuracy_fl_own")?, avg: number(avg, "accuracy_fl_avg")? }),
    };
    Ok(Student {
        name: need(raw.name.as_ref(), "name", &place)?,
        work: GhzSeconds(number(raw.work_ghz_s, "work_ghz_s")?),
        state: Bits(number(raw.parameter_bits, "parameter_bits")?),
        accuracy: Accuracy {
            own: number(raw.accuracy_own, "accuracy_own")?,
            avg: number(raw.accuracy_avg, "accuracy_avg")?,
        },
        federated,
    })
}

fn resolve_device((index, raw): (usize, &RawDevice)) -> Result<DeviceSpec, ScenarioError> {
    let nth = format!("device {} of the list", index + 1);
    let place = raw.id.as_ref().map_or_else(|| nth.clone(), |id| format!("device {id}"));
    raw.check_keys(&place)?;
    let id: String = need(raw.id.as_ref(), "id", &place)?;
    let id: DeviceId = id.parse().map_err(|why| Fault::Malformed(format!("`id` is {id:?}; {why}")).at(&place))?;
    Ok(DeviceSpec {
        id,
        frequency: Gigahertz(need(raw.frequency_ghz.as_ref(), "frequency_ghz", &place)?),
        link: resolve_link(raw, &place)?,
        data_scale: raw.data_scale.unwrap_or(1.0),
        can_train: raw.can_train.unwrap_or(true),
        models: raw.models.clone(),
        overrides: resolve_overrides(raw, &place)?,
        rate_cap: raw.rate_cap_bps.map(BitsPerSecond),
        group: raw.bandwidth_group.clone(),
    })
}

fn resolve_link(raw: &RawDevice, place: &str) -> Result<Link, ScenarioError> {
    let power = || need(raw.transmit_power_w.as_ref(), "transmit_power_w", place).map(Watts);
    match (raw.channel_gain, raw.distance_m, raw.spectral_efficiency) {
        (Some(gain), None, None) => Ok(Link::Gain { power: power()?, gain }),
        (None, Some(metres), None) => Ok(Link::Distance { power: power()?, metres }),
        (None, None, Some(efficiency)) => Ok(Link::Efficiency(BitsPerSecondPerHertz(efficiency))),
        (None, None, None) => {
            Err(Fault::Missing("channel_gain` (or `distance_m`, or `spectral_efficiency)".into()).at(place))
        }
        (gain, distance, _) => {
            let first = if gain.is_some() { "channel_gain" } else { "distance_m" };
            let second = if gain.is_some() && distance.is_some() { "distance_m" } else { "spectral_efficiency" };
            Err(Fault::Malformed(format!("`{first}` and `{second}` are both given; keep one")).at(place))
        }
    }
}

fn resolve_overrides(raw: &RawDevice, place: &str) -> Result<Vec<Override>, ScenarioError> {
    let empty = |model: &String| Override {
        model: model.clone(),
        local_seconds: None,
        host_seconds: None,
        local_accuracy: None,
        host_accuracy: None,
    };
    let mut found = Vec::new();
    for (model, seconds) in raw.seconds.iter().flatten() {
        seconds.check_keys(&format!("{place}, seconds.{model}"))?;
        let (local_seconds, host_seconds) = (seconds.local.map(Seconds), seconds.host.map(Seconds));
        found.push(Override { local_seconds, host_seconds, ..empty(model) });
    }
    for (model, accuracy) in raw.accuracy.iter().flatten() {
        let place = format!("{place}, accuracy.{model}");
        accuracy.check_keys(&place)?;
        let at_site = |site: Option<&RawSiteAccuracy>| -> Result<Option<Accuracy>, ScenarioError> {
            if let Some(site) = site {
                site.check_keys(&place)?;
            }
            let own = site.and_then(|s| s.own).or(accuracy.own);
            let avg = site.and_then(|s| s.avg).or(accuracy.avg);
            match (own, avg) {
                (None, None) => Ok(None),
                _ => Ok(Some(Accuracy {
                    own: need(own.as_ref(), "own", &place)?,
                    avg: need(avg.as_ref(), "avg", &place)?,
                })),
            }
        };
        let (local_accuracy, host_accuracy) = (at_site(accuracy.local.as_ref())?, at_site(accuracy.host.as_ref())?);
        found.push(Override { local_accuracy, host_accuracy, ..empty(model) });
    }
    Ok(found)
}

/// The file that says the same, for replaying a decision: reading it back gives an equal scenario.
impl From<&Scenario> for RawScenario {
    fn from(scenario: &Scenario) -> Self {
        let w = scenario.weights;
        Self {
            server: Some(RawServer {
                frequency_ghz: Some(scenario.frequency.0),
                bandwidth_hz: Some(scenario.bandwidths[0].0),
                unknown: Unknown::new(),
            }),
            radio: scenario.radio.map(|radio| RawRadio {
                noise_w: Some(radio.noise.0),
                reference_gain_db: Some(radio.reference_gain.0),
                path_loss_exponent: Some(radio.path_loss_exponent),
                unknown: Unknown::new(),
            }),
            weights: Some(RawWeights {
                delay: Some(w.delay),
                compute: Some(w.compute),
                bandwidth: Some(w.bandwidth),
                accuracy_own: Some(w.accuracy_own),
                accuracy_avg: Some(w.accuracy_avg),
                unknown: Unknown::new(),
            }),
            teacher: Some(RawTeacher {
                work_ghz_s: Some(scenario.teacher.work.0),
                label_bits: Some(scenario.teacher.label_bits.0),
                unknown: Unknown::new(),
            }),
            bandwidth_groups: (!scenario.group_names.is_empty()).then(|| {
                let named = scenario.group_names.iter().zip(&scenario.bandwidths[1..]);
                named
                    .map(|(name, budget)| RawGroup {
                        name: Some(name.clone()),
                        bandwidth_hz: Some(budget.0),
                        unknown: Unknown::new(),
                    })
                    .collect()
            }),
            models: Some(scenario.models.iter().map(write_model).collect()),
            devices: Some((0..scenario.devices.len()).map(|device| write_device(scenario, device)).collect()),
            unknown: Unknown::new(),
        }
    }
}

fn write_model(model: &Student) -> RawModel {
    RawModel {
        name: Some(model.name.clone()),
        work_ghz_s: Some(model.work.0),
        parameter_bits: Some(model.state.0),
        accuracy_own: Some(model.accuracy.own),
        accuracy_avg: Some(model.accuracy.avg),
        accuracy_fl_own: model.federated.map(|a| a.own),
        accuracy_fl_avg: model.federated.map(|a| a.avg),
        unknown: Unknown::new(),
    }
}

fn write_device(scenario: &Scenario, index: usize) -> RawDevice {
    let device = &scenario.devices[index];
    let names = || scenario.models.iter().map(|model| model.name.clone());
    let (power, gain, distance, efficiency) = match device.link {
        Link::Efficiency(e) => (None, None, None, Some(e.0)),
        Link::Gain { power, gain } => (Some(power.0), Some(gain), None, None),
        Link::Distance { power, metres } => (Some(power.0), None, Some(metres), None),
    };
    let all_allowed = (0..scenario.models.len()).all(|model| device.allows(model));
    let measured = || names().zip(&device.measured);
    let seconds: BTreeMap<_, _> = measured()
        .filter(|(_, m)| m.local_seconds.is_some() || m.host_seconds.is_some())
        .map(|(name, m)| (name, RawSeconds { local: m.local_seconds, host: m.host_seconds, unknown: Unknown::new() }))
        .collect();
    let site = |accuracy: Accuracy| RawSiteAccuracy {
        own: Some(accuracy.own),
        avg: Some(accuracy.avg),
        unknown: Unknown::new(),
    };
    let accuracy: BTreeMap<_, _> = measured()
        .filter(|(_, m)| m.local_accuracy.is_some() || m.host_accuracy.is_some())
        .map(|(name, m)| {
            let (local, host) = (m.local_accuracy.map(site), m.host_accuracy.map(site));
            (name, RawAccuracy { local, host, ..RawAccuracy::default() })
        })
        .collect();
    RawDevice {
        id: Some(device.id.to_string()),
        frequency_ghz: Some(device.frequency.0),
        transmit_power_w: power,
        channel_gain: gain,
        distance_m: distance,
        spectral_efficiency: efficiency,
        data_scale: Some(device.data_scale),
        can_train: (!device.can_train).then_some(false),
        models: (!all_allowed)
            .then(|| names().enumerate().filter(|(model, _)| device.allows(*model)).map(|(_, name)| name).collect()),
        rate_cap_bps: device.rate_cap.0.is_finite().then_some(device.rate_cap.0),
        bandwidth_group: device.group().checked_sub(1).map(|group| scenario.group_names[group].clone()),
        seconds: (!seconds.is_empty()).then_some(seconds),
        accuracy: (!accuracy.is_empty()).then_some(accuracy),
        unknown: Unknown::new(),
    }
}
