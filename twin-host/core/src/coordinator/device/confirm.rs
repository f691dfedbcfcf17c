//! The end of a device's epoch: both sides say which state they hold.

use core::time::Duration;

use twin_shared::id::{BlobHash, DeviceId, RoundId};
use twin_shared::model::Site;
use twin_shared::units::Seconds;
use twin_shared::wire::TwinDocument;

use super::super::message::{Fatal, Measured, Output, RoundRecord};
use super::super::phase::{Confirmation, Phase, Running};
use super::super::{Common, JobSpec, StudentAt};
use super::Member;
use super::epoch::{plan, seconds};

impl Member {
    #[expect(clippy::too_many_arguments, reason = "all of an epoch's record")]
    pub(super) fn confirm(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        run: Running,
        site: Site,
        state: BlobHash,
        loss: f32,
        measured: Measured,
        out: &mut Vec<Output>,
    ) {
        let document =
            TwinDocument { version: self.twin.next_document(), job: spec.job, round: run.student.round, state };
        out.push(Output::Desired(device.clone(), document));
        self.phase = Phase::Confirming(Confirmation { run, site, document, loss, measured });
    }

    /// The board's own document. Equal to the twin's, the epoch is done; of the same version and unequal, the run is
    /// broken.
    pub(in crate::coordinator) fn on_reported(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        reported: &TwinDocument,
        now: Duration,
        out: &mut Vec<Output>,
    ) -> Option<RoundRecord> {
        let Phase::Confirming(confirmation) = &self.phase else {
            return None;
        };
        let wanted = confirmation.document;
        if reported.version != wanted.version {
            // Retained from before; the one that is wanted comes after it.
            return None;
        }
        if *reported != wanted {
            let (device, round) = (device.clone(), wanted.round);
            self.fatal = Some(Fatal::Unequal { device, round, board: reported.state, twin: wanted.state });
            return None;
        }
        let Confirmation { run, site, loss, mut measured, .. } = *confirmation;
        measured.total = Seconds(seconds(now.saturating_sub(run.since)));
        let (round, state) = (RoundId(wanted.round.0 + 1), wanted.state);
        let common = Common { round, state, proved: true };
        let student = StudentAt { round, state, site: Some(site), common, ..run.student };
        self.phase = Phase::Confirming(Confirmation { run: Running { student, ..run }, ..confirmation.clone() });
        out.push(Output::Forget(device.clone(), wanted.round));
        let round = wanted.round;
        let plan = plan(spec, round);
        let (allotment, state, board_state) = (run.allotment, wanted.state, reported.state);
        let device = device.clone();
        Some(RoundRecord { device, round, allotment, site, state, board_state, loss, measured, plan })
    }

    /// Goes on from a confirmed epoch.
    pub(in crate::coordinator) fn next_round(
        &mut self,
        spec: &JobSpec,
        device: &DeviceId,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        let Phase::Confirming(Confirmation { run: Running { student, .. }, .. }) = self.phase else {
            return;
        };
        if student.round.0 < spec.recipe.epochs {
            self.begin(spec, device, student, now, out);
        } else {
            self.phase = Phase::Finished { state: student.state };
        }
    }
}
