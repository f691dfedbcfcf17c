//! The owner's dataset and models, while the agent runs.

use std::time::SystemTime;

use tokio::task::JoinHandle;
use twin_shared::id::{BlobHash, DatasetVersion, ModelVersion};
use twin_shared::wire::Purpose;

use super::Agent;
use crate::dataset::{self, DatasetError, Ready, Source};
use crate::models::Activation;
use crate::session::Input;
use crate::{hook, off_loop};

/// A dataset that is being read, beside everything else: a folder of pictures takes its time.
pub(super) type Loading = JoinHandle<Result<Ready, DatasetError>>;

/// The dataset of the configuration, and what is being done about it.
pub(super) struct Watched {
    pub(super) source: Source,
    pub(super) loading: Option<Loading>,
    /// When the manifest was written that was read last.
    seen: Option<SystemTime>,
}

impl Watched {
    pub(super) const fn new(source: Source) -> Self {
        Self { source, loading: None, seen: None }
    }

    /// Reads the dataset anew, if that is not being done.
    pub(super) fn load(&mut self) {
        if self.loading.is_none() {
            self.seen = self.source.changed_at();
            let source = self.source.clone();
            self.loading = Some(tokio::task::spawn_blocking(move || source.load()));
        }
    }

    /// Takes what was read for out of date.
    pub(super) const fn forget(&mut self) {
        self.seen = None;
    }

    /// Reads it if the owner has changed it.
    pub(super) fn look(&mut self) {
        if self.source.is_folder() && self.source.changed_at() != self.seen {
            self.load();
        }
    }
}

impl Agent {
    /// The dataset was read, or is not in order.
    pub(super) async fn on_dataset(&mut self, loaded: Result<Ready, DatasetError>) {
        match loaded {
            Ok(ready) => {
                let Ready { offer, blob, earlier } = ready;
                tracing::info!(version = %format_args!("{:.12}", offer.version), samples = offer.samples, "the dataset");
                self.tell(Input::Dataset { offer, blob, earlier }).await;
            }
            Err(error @ DatasetError::NoClasses) => tracing::info!(%error, "the dataset waits"),
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::warn!("the dataset stays as it was: {line}");
                }
            }
        }
        // Changed meanwhile, perhaps.
        if let Some(watched) = &mut self.dataset {
            watched.look();
        }
    }

    /// Sends what changed, or everything where the twin's version is not remembered.
    pub(super) async fn send_delta(&mut self, from: DatasetVersion, to: DatasetVersion) -> Option<Input> {
        let Some(watched) = &self.dataset else { return None };
        let source = watched.source.clone();
        let delta = off_loop(move || source.delta(from, to)).await;
        let delta = delta.unwrap_or_else(|error| {
            tracing::warn!(%error, "what changed cannot be told; the dataset is sent whole");
            None
        });
        self.delta = delta;
        let (blob, purpose) = match delta {
            Some(delta) => (delta, Purpose::DatasetDelta { from, to }),
            None => (BlobHash(to.0), Purpose::Dataset(to)),
        };
        self.offer(blob, purpose)
    }

    pub(super) async fn take_classes(&mut self, blob: BlobHash) {
        let (folder, blobs) = (self.config.data_dir.clone(), self.courier.blobs().clone());
        match off_loop(move || dataset::follow_classes(&folder, &blobs, &blob)).await {
            Ok(true) => {
                tracing::info!("a new list of classes");
                if let Some(watched) = self.dataset.as_mut().filter(|watched| watched.source.is_folder()) {
                    // One that is being read now is read by the old list, and again when it is done.
                    watched.forget();
                    watched.load();
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "a list of classes is not taken"),
        }
    }

    pub(super) async fn install(&self, version: ModelVersion, blob: BlobHash) -> Input {
        let (models, file) = (self.models.clone(), self.courier.blobs().path(&blob));
        let result = off_loop(move || models.install(version, &file)).await;
        match &result {
            Ok(()) => tracing::info!(%version, "a model is kept"),
            Err(error) => tracing::warn!(%error, "a model is not kept"),
        }
        Input::Installed { version, result: result.map_err(|error| error.to_string()) }
    }

    pub(super) async fn activate(&self, version: ModelVersion) -> Input {
        let models = self.models.clone();
        let result = off_loop(move || models.activate(version)).await;
        if matches!(result, Ok(Activation::Switched)) {
            tracing::info!(%version, "another model answers from now on");
            let (rules, device) = (self.config.model.clone(), self.config.device.clone());
            let file = self.models.path(&version);
            // Nobody waits for the owner's command.
            drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = hook::run(&rules, &device, &version, &file) {
                    tracing::warn!("{error}");
                }
            }));
        }
        Input::Activated { version, result: result.map_err(|error| error.to_string()) }
    }
}
