//! Why every device got what it got: the record of a decision, for people and for replays.

use serde::Serialize;
use std::time::Duration;

use twin_core::scheduler::hysteresis::{Settled, Steadied};
use twin_core::scheduler::moves::{Position, terms};
use twin_core::scheduler::{Choice, CostTerms, Decision};
use twin_shared::model::Site;

use super::Question;
use super::figures::{Figures, HostFigures};
use crate::config::SchedulerConfig;

/// A decision with all that it was made of. The keys of `twin-host schedule --format json` are among its own.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    /// When it was asked, seconds since the host's start.
    at_s: f64,
    policy: &'static str,
    seed: u64,
    /// Eq. (6) of what is done.
    objective: f64,
    /// Eq. (6) of what the policy wished.
    objective_wished: f64,
    lower_bound: Option<f64>,
    gap: Option<f64>,
    elapsed_s: f64,
    average_delay_s: f64,
    /// Relative gain for which a site changes.
    hysteresis: f64,
    host: HostFigures,
    /// What each device had before; null without a student.
    present: Vec<Option<Named>>,
    pub(crate) devices: Vec<DeviceRecord>,
}

/// A choice by names.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Named {
    device: String,
    model: String,
    site: Site,
}

/// One device's part of a decision.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DeviceRecord {
    pub(crate) id: String,
    model: String,
    site: Site,
    frequency_ghz: f64,
    bandwidth_hz: f64,
    delay_s: f64,
    /// The delay by term, seconds.
    delay: DelayRecord,
    /// The device's terms of Eq. (6), weighted.
    terms: TermsRecord,
    wished: Named,
    /// What else it could have had, and what Eq. (6) would be higher by; the best first.
    alternatives: Vec<Alternative>,
    figures: Figures,
    /// In words.
    pub(crate) why: String,
}

#[derive(Debug, Clone, Serialize)]
struct DelayRecord {
    teacher_s: f64,
    label_s: f64,
    student_s: f64,
    model_s: f64,
    /// The epoch where these overlap: what its deadline is made of.
    pipelined_s: f64,
}

#[derive(Debug, Clone, Serialize)]
struct TermsRecord {
    delay: f64,
    compute: f64,
    bandwidth: f64,
    accuracy: f64,
    objective: f64,
}

impl From<CostTerms> for TermsRecord {
    fn from(terms: CostTerms) -> Self {
        Self {
            delay: terms.delay,
            compute: terms.compute,
            bandwidth: terms.bandwidth,
            accuracy: terms.accuracy,
            objective: terms.objective(),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
struct Alternative {
    model: String,
    site: Site,
    change: f64,
}

/// Alternatives that a record names.
const ALTERNATIVES: usize = 7;

impl Record {
    pub(super) fn new(
        question: &Question,
        wished: &Decision,
        decision: &Decision,
        steadied: &Steadied,
        scheduler: &SchedulerConfig,
        elapsed: Duration,
    ) -> Self {
        let scenario = &question.scenario;
        let position = Position::new(scenario, decision.choices());
        let terms = terms(scenario, decision);
        let name = |choice: Choice| scenario.models()[usize::from(choice.model)].name.clone();
        let named = |index: usize, choice: Choice| Named {
            device: scenario.devices()[index].id().to_string(),
            model: name(choice),
            site: choice.site,
        };
        let device = |index: usize| {
            let (answer, figures) = (&decision.devices[index], &question.figures[index]);
            let alternatives: Vec<Alternative> = position
                .alternatives(index)
                .into_iter()
                .take(ALTERNATIVES)
                .map(|(choice, change)| Alternative { model: name(choice), site: choice.site, change })
                .collect();
            let student = name(answer.choice);
            let why = why(&student, answer.choice.site, figures, steadied.settled[index], &alternatives, scheduler);
            DeviceRecord {
                id: scenario.devices()[index].id().to_string(),
                model: student,
                site: answer.choice.site,
                frequency_ghz: answer.frequency.0,
                bandwidth_hz: answer.bandwidth.0,
                delay_s: answer.delay.total().0,
                delay: DelayRecord {
                    teacher_s: answer.delay.teacher.0,
                    label_s: answer.delay.label.0,
                    student_s: answer.delay.student.0,
                    model_s: answer.delay.model.0,
                    pipelined_s: answer.delay.pipelined(answer.choice.site, question.blocks[index]).first.0,
                },
                terms: terms[index].into(),
                wished: named(index, wished.devices[index].choice),
                alternatives,
                figures: figures.clone(),
                why,
            }
        };
        let present = question.present.iter().enumerate();
        Self {
            at_s: question.at.as_secs_f64(),
            policy: decision.policy,
            seed: scheduler.seed,
            objective: decision.objective,
            objective_wished: wished.objective,
            lower_bound: wished.certificate.map(|certificate| certificate.lower_bound),
            gap: decision.certificate.map(|certificate| certificate.gap),
            elapsed_s: elapsed.as_secs_f64(),
            average_delay_s: decision.average_delay().0,
            hysteresis: scheduler.hysteresis,
            host: question.host.clone(),
            present: present.map(|(index, choice)| choice.map(|choice| named(index, choice))).collect(),
            devices: (0..decision.devices.len()).map(device).collect(),
        }
    }
}

impl Record {
    /// What a device's part is read with: the decision as a whole, without the devices.
    pub(crate) fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "policy": self.policy,
            "objective": self.objective,
            "objective_wished": self.objective_wished,
            "lower_bound": self.lower_bound,
            "gap": self.gap,
            "average_delay_s": self.average_delay_s,
            "hysteresis": self.hysteresis,
            "host": self.host,
        })
    }
}

fn place(site: Site) -> &'static str {
    match site {
        Site::Local => "on the board",
        Site::Host => "on the host",
    }
}

/// One device's part in a few sentences.
fn why(
    student: &str,
    site: Site,
    figures: &Figures,
    settled: Settled,
    alternatives: &[Alternative],
    scheduler: &SchedulerConfig,
) -> String {
    let mut text = format!("{student} trains {}.", place(site));
    if let Some(known) = figures.students.get(student) {
        text += &format!(
            " An epoch takes {:.3} s on the board ({}) and {:.3} s on the whole host ({}).",
            known.local_s, known.local_source, known.host_s, known.host_source
        );
    }
    let percent = |gain: f64| format!("{:.1} %", gain * 100.0);
    text += &match settled {
        Settled::New => " It is the first decision for this device.".to_owned(),
        Settled::Agreed => " That is where it was.".to_owned(),
        Settled::Moved { gain } => format!(" It was moved: that lowers what it costs by {}.", percent(gain)),
        Settled::Forced => " What it had is no longer permitted.".to_owned(),
        Settled::Kept { gain } => format!(
            " The policy wished it elsewhere; {} of what it costs is below the hysteresis of {}, so it stays.",
            percent(gain),
            percent(scheduler.hysteresis)
        ),
    };
    if !figures.can_train {
        text += " The board cannot train.";
    }
    if let Some(next) = alternatives.first() {
        let more = if next.change < 0.0 { "lower" } else { "raise" };
        text += &format!(
            " {} {} instead would {more} the objective by {:.4}.",
            next.model,
            place(next.site),
            next.change.abs()
        );
    }
    let excluded = figures.students.iter().filter_map(|(name, known)| Some((name, known.excluded?)));
    for (name, reason) in excluded {
        text += &format!(" Not {name}: {reason}.");
    }
    text
}
