//! From what boards and calibration say to a question for the scheduler, and from its answer to allotments.

mod figures;
mod record;

use std::collections::BTreeMap;
use std::time::Duration;

use twin_core::coordinator::{Allotment, Coordinator, Member, PredictedDelay};
use twin_core::scheduler::family::{Family, generator};
use twin_core::scheduler::hysteresis::steady;
use twin_core::scheduler::policy::Policy;
use twin_core::scheduler::problem::{Student, Teacher};
use twin_core::scheduler::{Choice, Decision, Scenario, ScenarioError, ScenarioSpec};
use twin_shared::id::DeviceId;
use twin_shared::model::Architecture;
use twin_shared::plan::LabelKind;
use twin_shared::units::{Bits, GhzSeconds, Gigahertz};

use figures::{Figures, Ground, HostFigures};
pub(crate) use record::Record;

use crate::calibration::Calibration;
use crate::config::{Job, SchedulerConfig};

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
    host: HostFigures,
    /// What the scenario was made of, in its order.
    figures: Vec<Figures>,
    /// When it was asked, since the host's start.
    at: Duration,
}

/// A policy made ready for live questions, and what it was made ready for.
pub(crate) struct Prepared {
    policy: Box<dyn Policy + Send + Sync>,
    family: Family,
}

impl Prepared {
    /// The table that it decides by, where it has one.
    pub(crate) fn table(&self) -> Option<&twin_core::scheduler::q_table::QTable> {
        self.policy.table()
    }
}

/// The scheduler's answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Eq. (6) summed over the devices.
    pub(crate) objective: f64,
    /// What each device gets.
    pub(crate) allotments: BTreeMap<DeviceId, Allotment>,
    /// How it came about.
    pub(crate) record: Record,
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
    if members.is_empty() {
        return Ok(None);
    }
    let host = HostFigures::new(scheduler, calibration);
    let ground = Ground { scheduler, calibration, host: &host, now };
    let figures: Vec<Figures> = members.iter().map(|(_, member)| Figures::of(member, &ground)).collect();
    let reference = figures.iter().map(|device| f64::from(device.samples)).sum::<f64>() / figures.len() as f64;
    let teacher_channels = job.teacher.architecture.feature_map().0;
    let models: Vec<Architecture> = scheduler.models.iter().map(|model| model.0).collect();
    let students = scheduler.models.iter().map(|&(network, accuracy)| Student {
        name: network.name().to_owned(),
        work: host.training_work(calibration, network) * reference,
        state: state_bits(network, teacher_channels),
        accuracy,
        federated: None,
    });
    let label_seconds = calibration.label_seconds_per_sample(job.teacher.architecture) * reference;
    let has = |member: &Member| member.allotment().map(|allotment| allotment.architecture);
    let devices = members.iter().zip(&figures);
    let spec = ScenarioSpec {
        frequency: Gigahertz(host.frequency_ghz),
        bandwidth: scheduler.bandwidth,
        groups: Vec::new(),
        radio: None,
        weights: scheduler.weights,
        teacher: Teacher {
            work: GhzSeconds(label_seconds * host.frequency_ghz),
            label_bits: Bits(reference * label_bits(job, teacher_channels)),
        },
        models: students.collect(),
        devices: devices
            .map(|((device, member), figures)| figures.spec(device, scheduler, reference, has(member)))
            .collect(),
    };
    let scenario = Scenario::try_from(spec)?;
    let present = members.iter().map(|(_, member)| {
        let allotment = member.allotment()?;
        let model = models.iter().position(|model| *model == allotment.architecture)?;
        Some(Choice { model: u8::try_from(model).ok()?, site: allotment.site })
    });
    let per_block = f64::from(job.student.batch * job.student.batches_per_block);
    let blocks = figures.iter().map(|device| whole((f64::from(device.samples) / per_block).ceil()).max(1));
    let (present, blocks) = (present.collect(), blocks.collect());
    Ok(Some(Question { present, blocks, scenario, models, host, figures, at: now }))
}

impl Question {
    /// The scenario, for a file that can be replayed.
    pub(crate) const fn scenario(&self) -> &Scenario {
        &self.scenario
    }

    /// A policy for such questions; training a table takes a second or two.
    pub(crate) fn prepare(&self, scheduler: &SchedulerConfig) -> Result<Prepared, DecideError> {
        let family = Family::around(self.scenario.clone());
        let config = scheduler.policy.training().map(|config| config.suited_to(&family)).map(|mut config| {
            config.episodes = scheduler.episodes;
            config
        });
        let mut rng = generator(scheduler.seed, 0);
        let prepared = scheduler.policy.prepare(&family, config.as_ref(), &mut rng, &mut |_| {});
        let (policy, _) = prepared.map_err(|error| DecideError::Training(error.to_string()))?;
        Ok(Prepared { policy, family })
    }

    /// Whether a policy that was prepared earlier knows this question: a table that was trained around a state long
    /// gone would answer by chance.
    pub(crate) fn suits(&self, prepared: &Prepared) -> bool {
        prepared.policy.table().is_none() || prepared.family.covers(&self.scenario)
    }

    /// The decision. A device that has a student keeps it; its site changes only where that is worth it.
    pub(crate) fn decide(&self, prepared: &Prepared, scheduler: &SchedulerConfig) -> Result<Answer, DecideError> {
        let mut rng = generator(scheduler.seed, 1);
        let started = std::time::Instant::now();
        let wished = prepared.policy.decide(&self.scenario, &mut rng);
        let wished = wished.map_err(|error| DecideError::Policy(error.to_string()))?;
        let steadied = steady(&self.scenario, &self.present, &wished.choices(), scheduler.hysteresis);
        let elapsed = started.elapsed();
        // As wished, it keeps the shares and the certificate that the policy gave it.
        let decision = if steadied.choices == wished.choices() {
            wished.clone()
        } else {
            Decision::of_choices(&self.scenario, wished.policy, &steadied.choices)
        };
        let record = Record::new(self, &wished, &decision, &steadied, scheduler, elapsed);
        Ok(Answer { objective: decision.objective, allotments: self.allotments(&decision), record })
    }

    fn allotments(&self, decision: &Decision) -> BTreeMap<DeviceId, Allotment> {
        let answers = self.scenario.devices().iter().zip(&decision.devices).zip(&self.blocks);
        answers
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
            .collect()
    }
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
