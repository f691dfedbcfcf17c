//! What a field test came to, and what can be read from it. PURE.

use std::time::Duration;

use twin_shared::id::DeviceId;

use super::plan::{Boards, Change, Plan, Target};
use super::replay::Replay;
use crate::control::Happened;
use crate::recording::Recording;

/// A field test that is over.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) plan: Plan,
    /// How boards got their parts of a core and their links.
    pub(super) how: String,
    /// Cores of the machine.
    pub(super) cores: usize,
    /// Seconds since 1970.
    pub(super) began: f64,
    pub(super) over: f64,
    pub(super) done: Vec<Done>,
    pub(super) recording: Recording,
    /// In the plan's order; empty for real boards.
    pub(super) standing: Vec<Standing>,
    pub(super) replays: Vec<Replay>,
}

/// Something that was done, or happened by itself.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Done {
    /// After the time that steps count from; none for what nobody planned.
    pub(super) planned: Option<Duration>,
    /// After the start.
    pub(super) at: Duration,
    pub(super) target: Target,
    pub(super) change: Option<Change>,
    pub(super) what: String,
    pub(super) failure: Option<String>,
}

/// Whether board and twin hold the same student at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Equal,
    Unequal,
    /// The test ended while a state was under way.
    OnOneSide,
    /// No epoch was done.
    None,
}

/// An epoch that was done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Epoch {
    /// Seconds after the start.
    pub(super) at_s: f64,
    pub(super) device: DeviceId,
    pub(super) round: u32,
    pub(super) network: String,
    pub(super) site: String,
    pub(super) loss: f32,
    pub(super) seconds: f64,
}

impl Standing {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Unequal => "UNEQUAL",
            Self::OnOneSide => "under way",
            Self::None => "no student",
        }
    }
}

/// The middle of some numbers; of an even count the lower one.
pub(super) fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len().checked_sub(1)? / 2).copied()
}

impl Run {
    /// Seconds after the start.
    pub(super) fn since(&self, at: f64) -> f64 {
        at - self.began
    }

    pub(super) fn epochs(&self) -> Vec<Epoch> {
        let rounds = self.recording.events.iter().filter_map(|event| {
            let Happened::Round { device, round, network, site, loss, seconds, .. } = &event.happened else {
                return None;
            };
            Some(Epoch {
                at_s: self.since(event.at),
                device: device.clone(),
                round: *round,
                network: network.clone(),
                site: site.clone(),
                loss: *loss,
                seconds: *seconds,
            })
        });
        rounds.collect()
    }

    /// Epochs that began on a board and were given to the host.
    pub(super) fn offloaded(&self, device: &DeviceId) -> usize {
        let of = |event: &&crate::control::Event| matches!(&event.happened, Happened::Offloaded { device: of, .. } if of == device);
        self.recording.events.iter().filter(of).count()
    }

    /// When the teacher was done, seconds after the start.
    pub(super) fn teacher_s(&self) -> Option<f64> {
        let teacher = self.recording.events.iter().find(|event| matches!(event.happened, Happened::Teacher { .. }));
        teacher.map(|event| self.since(event.at))
    }

    /// Seconds from a moment to a board's next sample.
    pub(super) fn next_sample(&self, device: &DeviceId, after_s: f64) -> Option<f64> {
        let samples = self.recording.samples.iter().filter(|sample| sample.device == *device);
        samples.map(|sample| self.since(sample.at) - after_s).find(|wait| *wait > 0.0)
    }

    /// Seconds from a moment to a board's next epoch, or to anybody's.
    pub(super) fn next_epoch(&self, device: Option<&DeviceId>, after_s: f64) -> Option<f64> {
        let epochs = self.epochs().into_iter().filter(|epoch| device.is_none_or(|device| epoch.device == *device));
        epochs.map(|epoch| epoch.at_s - after_s).find(|wait| *wait > 0.0)
    }

    /// A board's links as the plan set them: from when, to when, seconds after the start, and how fast.
    pub(super) fn links(&self, device: &DeviceId) -> Vec<(f64, f64, f64)> {
        let mut links = Vec::new();
        if let Boards::Emulated { boards, .. } = &self.plan.boards {
            links.extend(boards.iter().find(|board| board.name == *device).map(|board| (0.0, board.link.0)));
        }
        links.extend(self.done.iter().filter(|done| done.target == Target::Board(device.clone())).filter_map(|done| {
            match (done.change, &done.failure) {
                (Some(Change::Link(rate)), None) => Some((done.at.as_secs_f64(), rate.0)),
                _ => None,
            }
        }));
        let ends: Vec<f64> = links.iter().skip(1).map(|(from, _)| *from).chain([self.since(self.over)]).collect();
        links.into_iter().zip(ends).map(|((from, rate), to)| (from, to, rate)).collect()
    }

    /// Changes of a device's site or student from one decision to the next: when, device, from, to, why.
    pub(super) fn changes(&self) -> Vec<(f64, u32, String, String, String, String)> {
        let mut last: std::collections::BTreeMap<&str, String> = std::collections::BTreeMap::new();
        let mut changes = Vec::new();
        for moment in &self.recording.moments {
            for got in &moment.answered.devices {
                let now = format!("{} {}", got.model, got.site);
                let before = last.insert(&got.id, now.clone());
                if before.as_ref() != Some(&now) {
                    let before = before.unwrap_or_else(|| "-".into());
                    changes.push((self.since(moment.at), moment.number, got.id.clone(), before, now, got.why.clone()));
                }
            }
        }
        changes
    }

    /// What did not come through as it should: steps that could not be done, programs that ended by themselves, boards
    /// that did no epoch or do not hold what their twins hold.
    pub(super) fn failures(&self) -> Vec<String> {
        let undone = self.done.iter().filter_map(|done| {
            let failure = done.failure.as_ref()?;
            Some(format!("{} {} at {:.0} s: {failure}", done.target, done.what, done.at.as_secs_f64()))
        });
        let mut failures: Vec<String> = undone.collect();
        let epochs = self.epochs();
        for (k, name) in self.plan.boards.names().into_iter().enumerate() {
            if !epochs.iter().any(|epoch| epoch.device == *name) {
                failures.push(format!("{name} did no epoch"));
            }
            if self.standing.get(k) == Some(&Standing::Unequal) {
                failures.push(format!("{name} and its twin hold different students"));
            }
        }
        failures
    }
}
