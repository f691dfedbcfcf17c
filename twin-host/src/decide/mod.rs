//! From what boards and calibration say to a question for the scheduler, and from its answer to allotments.

use std::collections::BTreeMap;
use std::time::Duration;

use twin_core::coordinator::{Allotment, Coordinator, Member, PredictedDelay};
use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::policy::Policy;
use twin_core::scheduler::problem::{DeviceSpec, Student, Teacher};
use twin_core::scheduler::{Choice, Decision, Link, Scenario, ScenarioError, ScenarioSpec};
use twin_shared::id::DeviceId;
use twin_shared::model::Architecture;
use twin_shared::plan::LabelKind;
use twin_shared::units::{Bits, BitsPerSecond, BitsPerSecondPerHertz, GhzSeconds, Gigahertz};
use twin_shared::wire::telemetry::{Link as ReportedLink, Telemetry};

use crate::calibration::Calibration;
use crate::config::{Job, SchedulerConfig};

/// What is taken for a board that has not said: a slow one, on a slow link.
const UNKNOWN_FREQUENCY: Gigahertz = Gigahertz(0.5);
const UNKNOWN_RATE: BitsPerSecond = BitsPerSecond(1e6);

/// Why nothing could be decided.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// The live figures are no scenario.
    #[error("the present state is no scenario: {0}")]
    Scenario(#[from] ScenarioError),
    /// The policy cannot be trained.
    #[error("the policy cannot be trained: {0}")]
    Training(String),
    /// The policy has no answer.
    #[error("the policy has no answer: {0}")]
    Policy(String),
}

/// A question to the scheduler on the state of now.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    scenario: Scenario,
    /// The students of the scenario, in its order.
    models: Vec<Architecture>,
    /// What each device has now, in the scenario's order, where it has a student.
    present: Vec<Option<Choice>>,
    /// Mini-batch blocks of an epoch: what overlaps is counted in these.
    blocks: Vec<u32>,
}

/// The scheduler's answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Eq. (6) summed over the devices.
    pub(crate) objective: f64,
    /// What each device gets.
    pub(crate) allotments: BTreeMap<DeviceId, Allotment>,
}

/// Poses the question for all devices that train, or will. `None` where there are none.
pub(crate) fn pose(
    coordinator: &Coordinator,
    calibration: &Calibration,
    scheduler: &SchedulerConfig,
    job: &Job,
    now: Duration,
) -> Result<Option<Question>, DecideError> {
    let members: Vec<(&DeviceId, &Member)> =
        coordinator.members().iter().filter(|(_, member)| member.is_training()).collect();
    let samples = |member: &Member| f64::from(member.twin.counts().map_or(1, |counts| counts.train.max(1)));
    if members.is_empty() {
        return Ok(None);
    }
    let reference = members.iter().map(|(_, member)| samples(member)).sum::<f64>() / members.len() as f64;
    let work = |seconds_per_sample: f64| GhzSeconds(seconds_per_sample * reference * scheduler.frequency.0);
    let teacher_channels = job.teacher.architecture.feature_map().0;
    let models: Vec<Architecture> = scheduler.models.iter().map(|model| model.0).collect();
    let students = scheduler.models.iter().map(|&(architecture, accuracy)| Student {
        name: architecture.name().to_owned(),
        work: work(calibration.train_seconds_per_sample(architecture)),
        state: state_bits(architecture, teacher_channels),
        accuracy,
        federated: None,
    });
    let spec = ScenarioSpec {
        frequency: scheduler.frequency,
        bandwidth: scheduler.bandwidth,
        groups: Vec::new(),
        radio: None,
        weights: scheduler.weights,
        teacher: Teacher {
            work: work(calibration.label_seconds_per_sample(job.teacher.architecture)),
            label_bits: Bits(reference * label_bits(job, teacher_channels)),
        },
        models: students.collect(),
        devices: members
            .iter()
            .map(|(device, member)| device_spec(device, member, scheduler, samples(member) / reference, now))
            .collect(),
    };
    let scenario = Scenario::try_from(spec)?;
    let present = members.iter().map(|(_, member)| {
        let allotment = member.allotment()?;
        let model = models.iter().position(|model| *model == allotment.architecture)?;
        Some(Choice { model: u8::try_from(model).ok()?, site: allotment.site })
    });
    let per_block = f64::from(job.student.batch * job.student.batches_per_block);
    let blocks = members.iter().map(|(_, member)| whole((samples(member) / per_block).ceil()).max(1));
    Ok(Some(Question { present: present.collect(), blocks: blocks.collect(), scenario, models }))
}

impl Question {
    /// The scenario, for a record that can be replayed.
    pub(crate) const fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// A policy for such questions; training a table takes a second or two.
    pub(crate) fn prepare(&self, scheduler: &SchedulerConfig) -> Result<Box<dyn Policy + Send + Sync>, DecideError> {
        let family = Family::Around { scenario: self.scenario.clone(), frequency: 1.5, gain: 2.0 };
        let config = scheduler.policy.training().map(|config| config.suited_to(&family)).map(|mut config| {
            config.episodes = scheduler.episodes;
            config
        });
        let mut rng = generator(scheduler.seed, 0);
        let prepared = scheduler.policy.prepare(&family, config.as_ref(), &mut rng, &mut |_| {});
        prepared.map(|(policy, _)| policy).map_err(|error| DecideError::Training(error.to_string()))
    }

    /// The decision. A device that has a student keeps it; its site changes only where that is worth it.
    pub(crate) fn decide(&self, policy: &dyn Policy, scheduler: &SchedulerConfig) -> Result<Answer, DecideError> {
        let mut rng = generator(scheduler.seed, 1);
        let decision =
            policy.decide(&self.scenario, &mut rng).map_err(|error| DecideError::Policy(error.to_string()))?;
        let decision = self.with_hysteresis(decision, scheduler);
        let answers = self.scenario.devices().iter().zip(&decision.devices).zip(&self.blocks);
        let allotments = answers
            .map(|((device, answer), blocks)| {
                let delay = answer.delay;
                let allotment = Allotment {
                    architecture: self.models[usize::from(answer.choice.model)],
                    site: answer.choice.site,
                    frequency: answer.frequency,
                    bandwidth: answer.bandwidth,
                    rate: answer.bandwidth * device.efficiency(),
                    predicted: PredictedDelay {
                        teacher: delay.teacher,
                        student: delay.student,
                        label: delay.label,
                        model: delay.model,
                        pipelined: delay.pipelined(answer.choice.site, *blocks).first,
                    },
                };
                (device.id().clone(), allotment)
            })
            .collect();
        Ok(Answer { objective: decision.objective, allotments })
    }

    fn with_hysteresis(&self, fresh: Decision, scheduler: &SchedulerConfig) -> Decision {
        // Students are fixed for a job: the fresh decision's sites, the present students.
        let combine = |keep_sites: bool| -> Vec<Choice> {
            let pairs = self.present.iter().zip(&fresh.devices);
            pairs
                .map(|(present, fresh)| match present {
                    None => fresh.choice,
                    Some(present) if keep_sites => *present,
                    Some(present) => Choice { model: present.model, site: fresh.choice.site },
                })
                .collect()
        };
        if self.present.iter().all(Option::is_none) {
            return fresh;
        }
        let of = |choices: Vec<Choice>| Decision::of_choices(&self.scenario, fresh.policy, &choices);
        let permitted = |choices: &[Choice]| {
            choices.iter().enumerate().all(|(device, choice)| self.scenario.permits(device, *choice))
        };
        let (kept, moved) = (combine(true), combine(false));
        match (permitted(&kept), permitted(&moved)) {
            (true, true) => {
                let (kept, moved) = (of(kept), of(moved));
                let scale = kept.terms.cost().abs().max(f64::MIN_POSITIVE);
                if (kept.objective - moved.objective) / scale > scheduler.hysteresis { moved } else { kept }
            }
            (true, false) => of(kept),
            (false, true) => of(moved),
            (false, false) => fresh,
        }
    }
}

fn device_spec(
    device: &DeviceId,
    member: &Member,
    scheduler: &SchedulerConfig,
    data_scale: f64,
    now: Duration,
) -> DeviceSpec {
    let sample = member.twin.telemetry(now).map(|(sample, _)| sample);
    let rate = sample.and_then(link_rate).unwrap_or(UNKNOWN_RATE);
    let capabilities = member.twin.birth().map(|birth| &birth.capabilities);
    // What the board says its memory holds; one that says nothing holds what the zoo has.
    let fits = capabilities.map(|can| &can.models).filter(|models| !models.is_empty());
    let fits = fits.map(|models| {
        let names = models.iter().filter(|fit| scheduler.models.iter().any(|model| model.0 == **fit));
        names.map(|model| model.name().to_owned()).collect::<Vec<_>>()
    });
    DeviceSpec {
        id: device.clone(),
        frequency: sample.and_then(frequency).unwrap_or(UNKNOWN_FREQUENCY),
        // The rate that the whole band would give: r = b e reaches the link's own rate at b = b_max.
        link: Link::Efficiency(BitsPerSecondPerHertz(rate.0 / scheduler.bandwidth.0)),
        data_scale,
        can_train: member.can_train(),
        models: fits.filter(|names| !names.is_empty()),
        overrides: Vec::new(),
        rate_cap: None,
        group: None,
    }
}

/// The board's compute: what it can reach, for its present frequency says how idle it is rather than how fast.
fn frequency(sample: &Telemetry) -> Option<Gigahertz> {
    let throttled = sample.health.throttled.value().copied().unwrap_or(false);
    let (current, maximum) = (sample.cpu.current_mean(), sample.cpu.maximum_mean());
    let reach = if throttled { current } else { maximum };
    let one = reach.value().or(current.value()).or(maximum.value()).copied();
    one.filter(|ghz| ghz.is_positive_finite())
}

/// The link's rate: measured where transfers have told, else what the interface says.
fn link_rate(sample: &Telemetry) -> Option<BitsPerSecond> {
    let interface = match &sample.link {
        ReportedLink::Emulated(link) => return link.up.value().map(|rate| BitsPerSecond::from(*rate)).filter(usable),
        ReportedLink::Wifi(link) => link.sent_rate.value(),
        ReportedLink::Wired(link) => link.speed.value(),
        ReportedLink::Unknown => None,
    };
    let measured = sample.path.goodput_up.value();
    measured.or(interface).map(|rate| BitsPerSecond::from(*rate)).filter(usable)
}

fn usable(rate: &BitsPerSecond) -> bool {
    rate.is_positive_finite()
}

/// θ_m: backbone and projector in f32.
fn state_bits(architecture: Architecture, teacher_channels: usize) -> Bits {
    let parameters = architecture.backbone_parameters() + architecture.projector_parameters(teacher_channels);
    Bits(parameters as f64 * 32.0)
}

/// θ_l of one sample.
fn label_bits(job: &Job, teacher_channels: usize) -> f64 {
    use twin_shared::plan::LabelPrecision;
    let (channels, side) = (teacher_channels, job.teacher.architecture.feature_map().1);
    let numbers = match job.student.labels {
        LabelKind::Map => channels * side * side,
        LabelKind::Vector => channels,
        LabelKind::Logits => usize::from(job.classes),
    };
    let bits = match job.student.precision {
        LabelPrecision::F32 => 32,
        LabelPrecision::Bf16 => 16,
        LabelPrecision::Int8 => 8,
    };
    (numbers * bits) as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float's cast saturates")]
fn whole(number: f64) -> u32 {
    number as u32
}
