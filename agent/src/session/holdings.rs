//! What the board holds beside its student: versions of its dataset, and models that it may answer by.

use twin_shared::id::{BlobHash, DatasetVersion, ModelVersion};
use twin_shared::wire::{DatasetOffer, FailureCode, ModelOffer, Status};

use super::message::{Activation, Output};
use super::{Session, UNASKED, failed};

/// The blob of a dataset: its version is the hash of its bytes.
pub(super) fn blob_of(version: &DatasetVersion) -> BlobHash {
    BlobHash(version.0)
}

impl Session {
    /// Nothing, if the board holds this version; why not otherwise.
    pub(super) fn require_dataset(&self, wanted: Option<DatasetVersion>) -> Result<(), String> {
        let Some(wanted) = wanted else { return Err("no dataset here".to_owned()) };
        let present = self.about.dataset.is_some_and(|(offer, _)| offer.version == wanted);
        if present || self.earlier.contains(&wanted) {
            Ok(())
        } else {
            Err(format!("the dataset {wanted:.12} is not here"))
        }
    }

    /// The owner has changed the dataset: the host hears of it by the birth, and asks for what changed when it
    /// wants it. An epoch in progress goes on with the version that it was assigned.
    pub(super) fn on_dataset(
        &mut self,
        offer: DatasetOffer,
        blob: BlobHash,
        earlier: Vec<DatasetVersion>,
        out: &mut Vec<Output>,
    ) {
        self.earlier = earlier;
        if self.about.dataset != Some((offer, blob)) {
            self.about.dataset = Some((offer, blob));
            self.publish_birth(out);
        }
    }

    pub(super) fn on_send_delta(&mut self, id: u64, from: DatasetVersion, to: DatasetVersion, out: &mut Vec<Output>) {
        if let Err(message) = self.require_dataset(Some(to)) {
            self.reply(id, failed(FailureCode::Missing, &message), out);
            return;
        }
        self.dataset_command = Some(id);
        self.reply(id, Status::Accepted, out);
        out.push(Output::SendDelta { from, to });
    }

    pub(super) fn on_activate(&mut self, id: u64, offer: ModelOffer, out: &mut Vec<Output>) {
        // A later wish takes the place of one that still waits for its bundle.
        if let Some((command, version)) = self.activating.replace((id, offer.version))
            && command != id
            && command != UNASKED
        {
            let message = format!("model {:.12} is wanted instead of {version:.12}", offer.version);
            self.reply(command, failed(FailureCode::Missing, &message), out);
        }
        out.push(Output::Activate(offer.version));
    }

    pub(super) fn on_installed(&mut self, version: ModelVersion, result: Result<(), String>, out: &mut Vec<Output>) {
        match (result, self.activating) {
            (Ok(()), Some((_, wanted))) if wanted == version => out.push(Output::Activate(version)),
            (Ok(()), _) => {}
            (Err(message), Some((command, wanted))) if wanted == version => {
                self.activating = None;
                self.reply(command, failed(FailureCode::Storage, &message), out);
            }
            (Err(message), _) => out.push(Output::Warn(format!("model {version:.12}: {message}"))),
        }
    }

    pub(super) fn on_activated(
        &mut self,
        version: ModelVersion,
        result: Result<Activation, String>,
        out: &mut Vec<Output>,
    ) {
        let Some((command, wanted)) = self.activating else { return };
        if wanted != version {
            return;
        }
        let status = match result {
            // Its bundle is on its way, or will be sent for this answer.
            Ok(Activation::Absent) => return self.reply(command, Status::Accepted, out),
            Ok(Activation::Switched | Activation::Already) => Status::Done,
            Ok(Activation::Declined) => {
                out.push(Output::Warn(format!("the owner went back from model {version:.12}")));
                failed(FailureCode::Inhibited, "the board's owner went back from this model")
            }
            Err(message) => failed(FailureCode::Storage, &message),
        };
        self.activating = None;
        self.reply(command, status, out);
    }
}
