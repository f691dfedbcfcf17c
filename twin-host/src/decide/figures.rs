//! What the scheduler is told of the host and of each device, with the source of every figure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use twin_core::coordinator::Member;
use twin_core::scheduler::problem::{DeviceSpec, Override};
use twin_core::scheduler::{Accuracy, Link};
use twin_shared::id::DeviceId;
use twin_shared::model::Architecture;
use twin_shared::units::{BitsPerSecond, BitsPerSecondPerHertz, GhzSeconds, Gigahertz, Seconds};
use twin_shared::wire::telemetry::quantity::KilobitsPerSecond;
use twin_shared::wire::telemetry::{Link as ReportedLink, Path, Reading, Telemetry};

use crate::calibration::Calibration;
use crate::config::SchedulerConfig;

/// What is taken for a board that has not said: a slow one, on a slow link.
const UNKNOWN_FREQUENCY: Gigahertz = Gigahertz(0.5);
const UNKNOWN_RATE: BitsPerSecond = BitsPerSecond(1e6);
/// A transfer that reached this part of the rate it was allotted was held back by that, not by the link.
const HELD_BACK: f64 = 0.85;

/// The host's side of a question.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct HostFigures {
    /// f_ser.
    pub(crate) frequency_ghz: f64,
    pub(crate) frequency_source: &'static str,
    /// Where the host's seconds were measured.
    pub(crate) measured_on: String,
}

impl HostFigures {
    pub(crate) fn new(scheduler: &SchedulerConfig, calibration: &Calibration) -> Self {
        let calibrated = || calibration.frequency().map(|frequency| (frequency, "calibrated"));
        let configured = scheduler.frequency.map(|frequency| (frequency, "configured"));
        let (frequency, source) = configured.or_else(calibrated).unwrap_or((Gigahertz(1.0), "assumed"));
        Self { frequency_ghz: frequency.0, frequency_source: source, measured_on: calibration.measured_on() }
    }

    /// One sample of a student's training as work. With a configured f_ser, what the host measured makes the measure;
    /// with a calibrated one, the network's operations.
    pub(crate) fn training_work(&self, calibration: &Calibration, network: Architecture) -> GhzSeconds {
        if self.frequency_source == "configured" {
            GhzSeconds(calibration.train_seconds_per_sample(network) * self.frequency_ghz)
        } else {
            network.training_work()
        }
    }
}

/// One device's side of a question.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// f_loc: clock times cores.
    pub(crate) frequency_ghz: f64,
    pub(crate) frequency_source: &'static str,
    /// Whether the board says that its clock is held down.
    pub(crate) throttled: bool,
    /// What the link carries.
    pub(crate) link_bits_per_second: f64,
    pub(crate) link_source: &'static str,
    /// Samples trained on.
    pub(crate) samples: u32,
    pub(crate) can_train: bool,
    pub(crate) missed_deadlines: u32,
    pub(crate) taken_late: u32,
    pub(crate) students: BTreeMap<String, StudentFigures>,
}

/// One student on one device.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StudentFigures {
    /// Why the board cannot have it, if it cannot.
    pub(crate) excluded: Option<&'static str>,
    /// An epoch on the board.
    pub(crate) local_s: f64,
    pub(crate) local_source: &'static str,
    /// An epoch on all of the host.
    pub(crate) host_s: f64,
    pub(crate) host_source: &'static str,
    pub(crate) accuracy_own: f64,
    pub(crate) accuracy_avg: f64,
    pub(crate) accuracy_source: &'static str,
    /// Held-out samples behind the accuracies: of its own twin, and of all.
    pub(crate) own_samples: u32,
    pub(crate) all_samples: u32,
    /// Peak memory of training it on the board, where it was measured.
    pub(crate) memory_kib: Option<u32>,
}

/// What every device's figures are made of.
pub(crate) struct Ground<'a> {
    pub(crate) scheduler: &'a SchedulerConfig,
    pub(crate) calibration: &'a Calibration,
    pub(crate) host: &'a HostFigures,
    pub(crate) now: Duration,
}

impl Figures {
    pub(crate) fn of(member: &Member, ground: &Ground<'_>) -> Self {
        let sample = member.twin.telemetry(ground.now).map(|(sample, _)| sample);
        let compute = member.twin.compute();
        let (frequency, frequency_source) = compute.map_or((UNKNOWN_FREQUENCY, "assumed"), |known| {
            (known.clock * f64::from(known.cores), known.source.name())
        });
        let paced = member.allotment().map(|allotment| allotment.rate);
        let (link, link_source) =
            sample.and_then(|sample| link_rate(sample, paced)).unwrap_or((UNKNOWN_RATE, "assumed"));
        let samples = member.twin.counts().map_or(1, |counts| counts.train.max(1));
        let clock = compute.map(|known| known.clock);
        let students = ground.scheduler.models.iter().map(|&(network, expected)| {
            let student = StudentFigures::of(member, ground, (network, expected), (frequency, clock), samples, sample);
            (network.name().to_owned(), student)
        });
        let experience = &member.twin.experience;
        Self {
            frequency_ghz: frequency.0,
            frequency_source,
            throttled: compute.is_some_and(|known| known.throttled),
            link_bits_per_second: link.0,
            link_source,
            samples,
            can_train: member.can_train(),
            missed_deadlines: experience.missed_deadlines,
            taken_late: experience.taken_late,
            students: students.collect(),
        }
    }

    /// The same for the scheduler. `present` is the student that the device has: it is permitted whatever else is.
    pub(crate) fn spec(
        &self,
        device: &DeviceId,
        scheduler: &SchedulerConfig,
        reference: f64,
        present: Option<Architecture>,
    ) -> DeviceSpec {
        let names = |held: &dyn Fn(&str, &StudentFigures) -> bool| -> Vec<String> {
            self.students.iter().filter(|(name, figures)| held(name, figures)).map(|(name, _)| name.clone()).collect()
        };
        let fitting =
            names(&|name, figures| figures.excluded.is_none() || present.is_some_and(|has| has.name() == name));
        let overrides = self.students.iter().map(|(name, figures)| {
            let accuracy = Accuracy { own: figures.accuracy_own, avg: figures.accuracy_avg };
            let scored = (figures.own_samples > 0 || figures.all_samples > 0).then_some(accuracy);
            Override {
                model: name.clone(),
                local_seconds: (figures.local_source != FROM_FREQUENCY).then_some(Seconds(figures.local_s)),
                host_seconds: Some(Seconds(figures.host_s)),
                local_accuracy: scored,
                host_accuracy: scored,
            }
        });
        DeviceSpec {
            id: device.clone(),
            frequency: Gigahertz(self.frequency_ghz),
            // The rate that the whole band would give: r = b e reaches the link's own rate at b = b_max.
            link: Link::Efficiency(BitsPerSecondPerHertz(self.link_bits_per_second / scheduler.bandwidth.0)),
            data_scale: f64::from(self.samples) / reference,
            can_train: self.can_train,
            // A board that can hold nothing of what is offered is trained for all the same: it says so when it cannot.
            models: Some(fitting).filter(|names| !names.is_empty()),
            overrides: overrides.collect(),
            rate_cap: None,
            group: None,
        }
    }
}

/// [`StudentFigures::local_source`] where nothing was measured.
pub(crate) const FROM_FREQUENCY: &str = "derived from the frequency";

impl StudentFigures {
    fn of(
        member: &Member,
        ground: &Ground<'_>,
        (network, expected): (Architecture, Accuracy),
        (frequency, clock): (Gigahertz, Option<Gigahertz>),
        samples: u32,
        sample: Option<&Telemetry>,
    ) -> Self {
        let experience = &member.twin.experience;
        let work = ground.host.training_work(ground.calibration, network);
        let epoch = f64::from(samples);
        let (local, local_source) = match experience.speeds.of(network) {
            Some(speed) => (speed.at(clock), speed.source.name()),
            None => ((work / frequency).0, FROM_FREQUENCY),
        };
        let estimate = experience.accuracies.estimate(network, expected);
        let scored = estimate.own_samples > 0 || estimate.all_samples > 0;
        Self {
            excluded: excluded(member, network, sample),
            local_s: local * epoch,
            local_source,
            host_s: ground.calibration.train_seconds_per_sample(network) * epoch,
            host_source: "measured by calibration",
            accuracy_own: estimate.accuracy.own,
            accuracy_avg: estimate.accuracy.avg,
            accuracy_source: if scored { "held-out samples" } else { "configuration" },
            own_samples: estimate.own_samples,
            all_samples: estimate.all_samples,
            memory_kib: experience.speeds.memory_kib(network),
        }
    }
}

/// Why a board cannot have a student, if it cannot.
fn excluded(member: &Member, network: Architecture, sample: Option<&Telemetry>) -> Option<&'static str> {
    let speeds = &member.twin.experience.speeds;
    if speeds.is_unfit(network) {
        return Some("it did not train there when it was calibrated");
    }
    let total = sample.and_then(|sample| sample.room.memory_total.value());
    if let (Some(needed), Some(total)) = (speeds.memory_kib(network), total)
        && needed > total.0
    {
        return Some("it takes more memory than the board has");
    }
    // What the board says its memory holds; one that says nothing holds what the zoo has.
    let capabilities = member.twin.birth().map(|birth| &birth.capabilities);
    let silent = capabilities.is_none_or(|can| can.models.is_empty() || can.models.contains(&network));
    (!silent).then_some("the board says that its memory does not hold it")
}

/// The link's rate and source: measured where transfers have told, else what the interface says. A transfer that was
/// paced tells only that the link is no slower: taking its pace for the link would starve the board bit by bit.
fn link_rate(sample: &Telemetry, paced: Option<BitsPerSecond>) -> Option<(BitsPerSecond, &'static str)> {
    let interface = match &sample.link {
        ReportedLink::Emulated(link) => {
            let rate = link.up.value().map(|rate| BitsPerSecond::from(*rate)).filter(usable);
            return rate.map(|rate| (rate, "emulated"));
        }
        ReportedLink::Wifi(link) => link.sent_rate.value(),
        ReportedLink::Wired(link) => link.speed.value(),
        ReportedLink::Unknown => None,
    };
    let interface = interface.map(|rate| BitsPerSecond::from(*rate)).filter(usable);
    let measured = latest(&sample.path).value().map(|rate| BitsPerSecond::from(*rate)).filter(usable);
    match (measured, interface) {
        (Some(measured), Some(interface)) if paced.is_some_and(|pace| measured.0 >= HELD_BACK * pace.0) => {
            let rate = if measured.0 > interface.0 { measured } else { interface };
            Some((rate, "interface: transfers were held back by their share"))
        }
        (Some(measured), None) if paced.is_some_and(|pace| measured.0 >= HELD_BACK * pace.0) => {
            // Nothing else is known, so it is tried with more.
            Some((measured * 2.0, "transfers, held back by their share"))
        }
        (Some(measured), _) => Some((measured, "measured by transfers")),
        (None, Some(interface)) => Some((interface, "interface")),
        (None, None) => None,
    }
}

/// The payload rate of the last transfer, whichever way it went: the states of a student that the host trains go down
/// only, and a board that began anew would be believed to have the slow link of one that never said anything.
fn latest(path: &Path) -> Reading<KilobitsPerSecond> {
    let (up, down) = (path.goodput_up, path.goodput_down);
    match (up.age(), down.age()) {
        (Some(up_age), Some(down_age)) if down_age < up_age => down,
        (None, Some(_)) => down,
        (Some(_), Some(_) | None) | (None, None) => up,
    }
}

fn usable(rate: &BitsPerSecond) -> bool {
    rate.is_positive_finite()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twin_shared::wire::telemetry::{Age, Source};

    fn measured(kilobits: u32, age_s: u32) -> Reading<KilobitsPerSecond> {
        Reading::Known { value: KilobitsPerSecond(kilobits), source: Source::Measured, age: Age::of_seconds(age_s) }
    }

    fn rate(up: Reading<KilobitsPerSecond>, down: Reading<KilobitsPerSecond>, paced: f64) -> Option<f64> {
        let path = Path { goodput_up: up, goodput_down: down, ..Path::default() };
        let sample = Telemetry { path, ..Telemetry::default() };
        link_rate(&sample, Some(BitsPerSecond(paced))).map(|(rate, _)| rate.0)
    }

    #[test]
    fn the_last_transfer_counts_whichever_way_it_went() {
        assert_eq!(rate(measured(8_000, 5), Reading::Unknown, 1e9), Some(8e6));
        assert_eq!(rate(measured(8_000, 60), measured(3_000, 5), 1e9), Some(3e6), "the link became worse since");
        assert_eq!(rate(measured(8_000, 5), measured(3_000, 60), 1e9), Some(8e6));
        assert_eq!(rate(Reading::Unknown, Reading::Unknown, 1e9), None);
    }

    #[test]
    fn a_board_that_began_anew_gets_out_of_the_slow_link_that_was_assumed() {
        let mut link = UNKNOWN_RATE.0;
        for _ in 0..6 {
            // Held back by what it was allotted, it gets that far, and the host trains for it: nothing goes up.
            let carried = (link * 0.95 / 1e3).round();
            link = rate(Reading::Unknown, measured(carried as u32, 0), link).expect("something was measured");
        }
        assert!(link > 20.0 * UNKNOWN_RATE.0, "{link}");
    }
}
