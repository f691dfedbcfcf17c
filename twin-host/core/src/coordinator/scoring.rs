//! Held-out samples tell how good a student has become: those of its own twin, and those of other twins, which score
//! the frozen state and return only how many of how many they got right.

use std::collections::BTreeMap;

use twin_shared::id::{BlobHash, DeviceId, RoundId};
use twin_shared::model::Architecture;
use twin_shared::pipe::Score;

use super::Member;
use super::message::{Note, Output, Task};
use crate::experience::Scored;

/// Twins that score one student at most, its own included: what it takes grows with the devices, not their square.
const SCORERS: usize = 8;

/// Whether a student is scored after so many of its epochs.
pub(super) const fn is_due((done, all): (u32, u32), every: u32) -> bool {
    done >= all || (every > 0 && done.is_multiple_of(every))
}

/// What is being scored.
#[derive(Debug, Default)]
pub(super) struct Scoring {
    pending: BTreeMap<(DeviceId, RoundId), Pending>,
}

#[derive(Debug)]
struct Pending {
    state: BlobHash,
    architecture: Architecture,
    scored: Scored,
    /// Twins that have not answered.
    left: usize,
}

impl Scoring {
    /// Whether no answer is waited for.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// States of a device that are still to be scored.
    pub(super) fn states(&self, device: &DeviceId) -> impl Iterator<Item = BlobHash> {
        self.pending.iter().filter(move |((scored, _), _)| scored == device).map(|(_, pending)| pending.state)
    }

    /// Has a state scored by its own twin and by others: which others changes from epoch to epoch, so that all have
    /// their say in time.
    pub(super) fn begin(
        &mut self,
        members: &BTreeMap<DeviceId, Member>,
        device: &DeviceId,
        round: RoundId,
        state: BlobHash,
        (architecture, (epochs, of)): (Architecture, (u32, u32)),
        out: &mut Vec<Output>,
    ) {
        let holds_out = |member: &Member| member.twin.counts().is_some_and(|counts| counts.held > 0);
        let others: Vec<&DeviceId> =
            members.iter().filter(|(other, member)| *other != device && holds_out(member)).map(|(id, _)| id).collect();
        let first = if others.is_empty() { 0 } else { round.0 as usize * (SCORERS - 1) % others.len() };
        let others = others.iter().cycle().skip(first).take(others.len().min(SCORERS - 1)).copied();
        let own = members.get(device).filter(|member| holds_out(member)).map(|_| device);
        let scorers: Vec<DeviceId> = own.into_iter().chain(others).cloned().collect();
        if scorers.is_empty() {
            return;
        }
        let scored = Scored { own: Score::default(), all: Score::default(), epochs, of };
        let pending = Pending { state, architecture, scored, left: scorers.len() };
        self.pending.insert((device.clone(), round), pending);
        out.extend(scorers.into_iter().map(|by| Output::Run(Task::Score { device: device.clone(), round, state, by })));
    }

    /// A twin has scored, or could not. With the last one the estimate follows.
    pub(super) fn on_score(
        &mut self,
        members: &mut BTreeMap<DeviceId, Member>,
        device: &DeviceId,
        round: RoundId,
        by: &DeviceId,
        score: Option<Score>,
        out: &mut Vec<Output>,
    ) {
        let key = (device.clone(), round);
        let Some(pending) = self.pending.get_mut(&key) else { return };
        if let Some(score) = score {
            let all = &mut pending.scored.all;
            all.correct = all.correct.saturating_add(score.correct);
            all.total = all.total.saturating_add(score.total);
            if by == device {
                pending.scored.own = score;
            }
        }
        pending.left -= 1;
        if pending.left > 0 {
            return;
        }
        let Some(Pending { architecture, scored, .. }) = self.pending.remove(&key) else { return };
        if scored.all.total == 0 {
            return;
        }
        if let Some(member) = members.get_mut(device) {
            member.twin.experience.accuracies.scored(architecture, scored);
            out.push(Output::Learnt(device.clone()));
            out.push(Output::Note(Note::Scored { device: device.clone(), round, architecture, scored }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::{DatasetCounts, Twin, TwinDataset};
    use twin_shared::id::DatasetVersion;

    fn fleet(held: &[u32]) -> BTreeMap<DeviceId, Member> {
        let member = |held: u32| {
            let counts = Some(DatasetCounts { train: 9, held, labels: vec![9] });
            let (version, blob) = (DatasetVersion([1; 32]), BlobHash([1; 32]));
            Member::new(Twin::new(Some(TwinDataset { version, blob, counts }), 0), core::time::Duration::ZERO)
        };
        held.iter().enumerate().map(|(k, held)| (name(k), member(*held))).collect()
    }

    fn name(k: usize) -> DeviceId {
        format!("board{k:02}").parse().expect("valid")
    }

    fn scorers(out: &[Output]) -> Vec<DeviceId> {
        let by =
            |output: &Output| if let Output::Run(Task::Score { by, .. }) = output { Some(by.clone()) } else { None };
        out.iter().filter_map(by).collect()
    }

    fn begin(scoring: &mut Scoring, members: &BTreeMap<DeviceId, Member>, round: u32) -> Vec<DeviceId> {
        let mut out = Vec::new();
        let what = (Architecture::Vgg8, (round + 1, 10));
        scoring.begin(members, &name(0), RoundId(round), BlobHash([7; 32]), what, &mut out);
        scorers(&out)
    }

    #[test]
    fn own_and_others_are_told_apart_and_added_up() {
        let mut members = fleet(&[10, 10, 0, 10]);
        let mut scoring = Scoring::default();
        let mut by = begin(&mut scoring, &members, 9);
        assert_eq!(by[0], name(0), "its own first");
        by.sort();
        assert_eq!(by, [name(0), name(1), name(3)], "one that holds nothing out is not asked");
        let mut out = Vec::new();
        let score = |correct| Some(Score { correct, total: 10 });
        scoring.on_score(&mut members, &name(0), RoundId(9), &name(0), score(9), &mut out);
        scoring.on_score(&mut members, &name(0), RoundId(9), &name(1), score(3), &mut out);
        assert!(out.is_empty() && !scoring.is_idle());
        // The third could not: what the others said counts.
        scoring.on_score(&mut members, &name(0), RoundId(9), &name(3), None, &mut out);
        assert!(scoring.is_idle());
        let scored = members[&name(0)].twin.experience.accuracies.of(Architecture::Vgg8).copied();
        let expected =
            Scored { own: Score { correct: 9, total: 10 }, all: Score { correct: 12, total: 20 }, epochs: 10, of: 10 };
        assert_eq!(scored, Some(expected));
    }

    #[test]
    fn a_large_fleet_asks_a_few_and_all_in_turn() {
        let members = fleet(&[1; 40]);
        let mut asked = std::collections::BTreeSet::new();
        for round in 0..40 {
            let by = begin(&mut Scoring::default(), &members, round);
            assert_eq!((by.len(), &by[0]), (SCORERS, &name(0)));
            asked.extend(by);
        }
        assert_eq!(asked.len(), 40);
    }

    #[test]
    fn the_last_epoch_is_always_scored() {
        assert!(is_due((10, 10), 0) && !is_due((9, 10), 0) && is_due((8, 10), 4) && !is_due((9, 10), 4));
    }
}
