//! Where a scenario is checked: every value within its bounds, every name resolved, or an error by key and device.

use super::problem::{
    Accuracy, Device, DeviceSpec, Fault, Link, MAX_MODELS, Measured, Radio, Scenario, ScenarioError, ScenarioSpec,
    Student,
};
use std::collections::HashSet;
use twin_shared::id::DeviceId;
use twin_shared::model::Site;
use twin_shared::units::{BitsPerSecond, BitsPerSecondPerHertz, Seconds};

/// Positive quantities lie within these bounds, so that no product or quotient of them overflows.
const SMALLEST: f64 = 1e-30;
const LARGEST: f64 = 1e30;

/// Checks one quantity that must be positive.
pub(crate) fn positive(place: String, key: &str, value: f64) -> Result<f64, ScenarioError> {
    if (SMALLEST..=LARGEST).contains(&value) {
        return Ok(value);
    }
    Err(Fault::OutOfRange { key: key.into(), value, wanted: "a positive number (1e-30 to 1e30)" }.at(place))
}

/// Checks one quantity that may be zero.
fn non_negative(place: String, key: &str, value: f64) -> Result<f64, ScenarioError> {
    if value == 0.0 { Ok(value) } else { positive(place, key, value) }.map_err(|mut error| {
        if let Fault::OutOfRange { wanted, .. } = &mut error.fault {
            *wanted = "zero or a positive number (1e-30 to 1e30)";
        }
        error
    })
}

fn fraction(place: String, key: &str, value: f64) -> Result<f64, ScenarioError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(value);
    }
    Err(Fault::OutOfRange { key: key.into(), value, wanted: "a fraction from 0 to 1" }.at(place))
}

fn check_accuracy(place: &str, prefix: &str, accuracy: Accuracy) -> Result<Accuracy, ScenarioError> {
    fraction(place.into(), &format!("{prefix}own"), accuracy.own)?;
    fraction(place.into(), &format!("{prefix}avg"), accuracy.avg)?;
    Ok(accuracy)
}

/// e = log2(1 + p h / n_0) of Eq. (1).
pub(crate) fn efficiency(
    link: Link,
    radio: Option<&Radio>,
    id: &DeviceId,
) -> Result<BitsPerSecondPerHertz, ScenarioError> {
    let place = || format!("device {id}");
    let radio = || radio.ok_or_else(|| Fault::Missing("radio".into()).at("scenario"));
    let (key, power, gain) = match link {
        Link::Efficiency(e) => {
            return positive(place(), "spectral_efficiency", e.0).map(BitsPerSecondPerHertz);
        }
        Link::Gain { power, gain } => ("channel_gain", power, positive(place(), "channel_gain", gain)?),
        Link::Distance { power, metres } => {
            positive(place(), "distance_m", metres)?;
            let radio = radio()?;
            let reference = 10f64.powf(radio.reference_gain.0 / 10.0);
            ("distance_m", power, reference * metres.powf(-radio.path_loss_exponent))
        }
    };
    positive(place(), "transmit_power_w", power.0)?;
    let signal_to_noise = power.0 * gain / radio()?.noise.0;
    let efficiency = signal_to_noise.ln_1p() / std::f64::consts::LN_2;
    if !(SMALLEST..=LARGEST).contains(&efficiency) {
        let wanted = "such that log2(1 + p h / n_0) is a positive number (1e-30 to 1e30)";
        return Err(Fault::OutOfRange { key: key.into(), value: gain, wanted }.at(place()));
    }
    Ok(BitsPerSecondPerHertz(efficiency))
}

impl TryFrom<ScenarioSpec> for Scenario {
    type Error = ScenarioError;

    fn try_from(spec: ScenarioSpec) -> Result<Self, ScenarioError> {
        let server = || "[server]".to_owned();
        positive(server(), "frequency_ghz", spec.frequency.0)?;
        positive(server(), "bandwidth_hz", spec.bandwidth.0)?;
        let weights = || "[weights]".to_owned();
        positive(weights(), "delay", spec.weights.delay)?;
        non_negative(weights(), "compute", spec.weights.compute)?;
        non_negative(weights(), "bandwidth", spec.weights.bandwidth)?;
        non_negative(weights(), "accuracy_own", spec.weights.accuracy_own)?;
        non_negative(weights(), "accuracy_avg", spec.weights.accuracy_avg)?;
        positive("[teacher]".into(), "work_ghz_s", spec.teacher.work.0)?;
        positive("[teacher]".into(), "label_bits", spec.teacher.label_bits.0)?;
        if let Some(radio) = &spec.radio {
            positive("[radio]".into(), "noise_w", radio.noise.0)?;
            let bounded = |key: &str, value: f64, low: f64, wanted| {
                let fault = Fault::OutOfRange { key: key.into(), value, wanted };
                if (low..=300.0).contains(&value) { Ok(()) } else { Err(fault.at("[radio]")) }
            };
            bounded("reference_gain_db", radio.reference_gain.0, -300.0, "a number from -300 to 300")?;
            bounded("path_loss_exponent", radio.path_loss_exponent, 0.0, "a number from 0 to 300")?;
        }
        check_models(&spec.models)?;
        let mut bandwidths = vec![spec.bandwidth];
        let mut group_names: Vec<String> = Vec::new();
        for group in &spec.groups {
            positive(format!("bandwidth group {}", group.name), "bandwidth_hz", group.bandwidth.0)?;
            if group_names.contains(&group.name) {
                return Err(
                    Fault::Duplicate { key: "bandwidth_groups.name".into(), name: group.name.clone() }.at("scenario")
                );
            }
            group_names.push(group.name.clone());
            bandwidths.push(group.bandwidth);
        }
        if group_names.len() >= usize::from(u16::MAX) {
            let key = "bandwidth_groups".into();
            return Err(
                Fault::TooMany { key, count: group_names.len(), most: usize::from(u16::MAX) - 1 }.at("scenario")
            );
        }
        if spec.devices.is_empty() {
            return Err(Fault::Empty("devices".into()).at("scenario"));
        }
        let mut seen = HashSet::with_capacity(spec.devices.len());
        let mut devices = Vec::with_capacity(spec.devices.len());
        for device in spec.devices {
            if !seen.insert(device.id.clone()) {
                return Err(Fault::Duplicate { key: "id".into(), name: device.id.to_string() }
                    .at(format!("device {}", device.id)));
            }
            devices.push(check_device(device, &spec.models, &group_names, spec.radio.as_ref())?);
        }
        Ok(Self {
            frequency: spec.frequency,
            bandwidths,
            group_names,
            radio: spec.radio,
            weights: spec.weights,
            teacher: spec.teacher,
            models: spec.models,
            devices,
        })
    }
}

fn check_models(models: &[Student]) -> Result<(), ScenarioError> {
    if models.is_empty() {
        return Err(Fault::Empty("models".into()).at("scenario"));
    }
    if models.len() > MAX_MODELS {
        return Err(Fault::TooMany { key: "models".into(), count: models.len(), most: MAX_MODELS }.at("scenario"));
    }
    for (index, model) in models.iter().enumerate() {
        let place = format!("model {}", model.name);
        if models[..index].iter().any(|earlier| earlier.name == model.name) {
            return Err(Fault::Duplicate { key: "name".into(), name: model.name.clone() }.at(place));
        }
        positive(place.clone(), "work_ghz_s", model.work.0)?;
        positive(place.clone(), "parameter_bits", model.state.0)?;
        check_accuracy(&place, "accuracy_", model.accuracy)?;
        if let Some(federated) = model.federated {
            check_accuracy(&place, "accuracy_fl_", federated)?;
        }
    }
    Ok(())
}

fn check_device(
    spec: DeviceSpec,
    models: &[Student],
    groups: &[String],
    radio: Option<&Radio>,
) -> Result<Device, ScenarioError> {
    let place = || format!("device {}", spec.id);
    let model_index = |key: &str, name: &str| {
        let found = models.iter().position(|model| model.name == name);
        found.ok_or_else(|| Fault::UnknownName { key: key.into(), name: name.into() }.at(place()))
    };
    positive(place(), "frequency_ghz", spec.frequency.0)?;
    positive(place(), "data_scale", spec.data_scale)?;
    if let Some(cap) = spec.rate_cap {
        positive(place(), "rate_cap_bps", cap.0)?;
    }
    let allowed = match &spec.models {
        None => (0..models.len()).fold(0, |mask, model| mask | 1 << model),
        Some(names) if names.is_empty() => return Err(Fault::Empty("models".into()).at(place())),
        Some(names) => names.iter().try_fold(0u32, |mask, name| Ok(mask | 1 << model_index("models", name)?))?,
    };
    let group = match &spec.group {
        None => 0,
        Some(name) => {
            let found = groups.iter().position(|known| known == name);
            let key = "bandwidth_group".into();
            1 + found.ok_or_else(|| Fault::UnknownName { key, name: name.clone() }.at(place()))?
        }
    };
    let mut measured = vec![Measured::default(); if spec.overrides.is_empty() { 0 } else { models.len() }];
    for given in &spec.overrides {
        let entry = &mut measured[model_index("seconds or accuracy", &given.model)?];
        let seconds = |site: Site, value: Option<Seconds>| match value {
            None => Ok(None),
            Some(s) => positive(place(), &format!("seconds.{}.{site}", given.model), s.0).map(Some),
        };
        let accuracy = |value: Option<Accuracy>| match value {
            None => Ok(None),
            Some(a) => check_accuracy(&place(), &format!("accuracy.{}.", given.model), a).map(Some),
        };
        entry.local_seconds = seconds(Site::Local, given.local_seconds)?.or(entry.local_seconds);
        entry.host_seconds = seconds(Site::Host, given.host_seconds)?.or(entry.host_seconds);
        entry.local_accuracy = accuracy(given.local_accuracy)?.or(entry.local_accuracy);
        entry.host_accuracy = accuracy(given.host_accuracy)?.or(entry.host_accuracy);
    }
    Ok(Device {
        efficiency: efficiency(spec.link, radio, &spec.id)?,
        id: spec.id,
        frequency: spec.frequency,
        link: spec.link,
        data_scale: spec.data_scale,
        rate_cap: spec.rate_cap.unwrap_or(BitsPerSecond(f64::INFINITY)),
        allowed,
        group: u16::try_from(group).expect("there are fewer groups than u16::MAX, checked above"),
        can_train: spec.can_train,
        measured: measured.into_boxed_slice(),
    })
}
