//! Pictures that wait for a label, shown to the host where the owner lets it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;
use twin_data::blobs::Blobs;
use twin_data::folder::Folder;
use twin_data::waiting::{self, Labels};
use twin_shared::id::BlobHash;
use twin_shared::wire::{Purpose, WIRE_VERSION};

use super::Agent;
use crate::config::{Config, DatasetFormat};
use crate::{dataset, durable, off_loop};

/// They are made into a file and sent at most this often, however often a camera adds one.
const APART: Duration = Duration::from_secs(60);
/// A host that does not take them is offered them again after so long.
const REFUSED_FOR: Duration = Duration::from_secs(600);

/// What is made of the pictures in the background: their blob, or nothing where there is nothing to show.
type Making = JoinHandle<anyhow::Result<Option<BlobHash>>>;

/// The pictures that wait, and what the host has of them.
pub(super) struct Waiting {
    folder: Folder,
    /// Whether the owner lets the host see them. Where that was taken back, the host is shown none.
    allowed: bool,
    /// Says what the host has, across restarts: it may be there only because of an earlier permission.
    note: PathBuf,
    shown: Option<BlobHash>,
    /// As of when the pictures were last looked at.
    seen: Option<Option<SystemTime>>,
    making: Option<Making>,
    /// What the host is to have.
    pub(super) made: Option<BlobHash>,
    flying: Option<BlobHash>,
    not_before: Option<Instant>,
    /// Whether the host knows of such pictures at all.
    understood: bool,
}

impl Waiting {
    /// `None` where the board has no folder of pictures.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let dataset = config.dataset.as_ref().filter(|dataset| dataset.format == DatasetFormat::Folder)?;
        let note = config.data_dir.join("incoming.shown");
        let shown = durable::read(&note).ok().flatten();
        let shown = shown.and_then(|text| BlobHash::from_hex(String::from_utf8(text).ok()?.trim()));
        Some(Self {
            folder: Folder::new(&dataset.path),
            allowed: dataset.share_incoming,
            note,
            shown,
            seen: None,
            making: None,
            made: None,
            flying: None,
            not_before: None,
            understood: false,
        })
    }

    /// Looks at the pictures anew if they have changed.
    fn look(&mut self, blobs: &Blobs) {
        let changed = if self.allowed { self.folder.waiting_since() } else { None };
        if self.making.is_some() || self.seen == Some(changed) {
            return;
        }
        self.seen = Some(changed);
        let (folder, blobs, shown) = (self.folder.clone(), blobs.clone(), self.shown);
        self.making = Some(tokio::task::spawn_blocking(move || {
            let pictures = if changed.is_some() { folder.waiting_images()? } else { Vec::new() };
            if pictures.is_empty() && shown.is_none() {
                return Ok(None);
            }
            let bytes = waiting::to_bytes(&pictures);
            // The host has them: nothing is written.
            Ok(Some(shown.filter(|shown| *shown == BlobHash::of(&bytes)).map_or_else(|| blobs.put(&bytes), Ok)?))
        }));
    }
}

impl Agent {
    /// The host has said which versions it speaks up to.
    pub(super) const fn on_spoken(&mut self, newest: u8) {
        if let Some(waiting) = &mut self.waiting {
            waiting.understood = newest >= WIRE_VERSION;
        }
    }

    /// Shows the host what waits, when it has changed.
    pub(super) async fn show_waiting(&mut self, now: Instant) {
        let Some(waiting) = &mut self.waiting else { return };
        if let Some(making) = waiting.making.take_if(|making| making.is_finished()) {
            match making.await {
                Ok(Ok(made)) => waiting.made = made,
                Ok(Err(error)) => tracing::warn!(%error, "pictures that wait cannot be shown to the host"),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        if waiting.flying.is_some() || waiting.not_before.is_some_and(|at| now < at) {
            return;
        }
        waiting.look(self.courier.blobs());
        if waiting.understood
            && self.session.is_served()
            && let Some(blob) = waiting.made.filter(|made| waiting.shown != Some(*made))
        {
            waiting.flying = Some(blob);
            if let Some(failed) = self.offer(blob, Purpose::Waiting) {
                self.waiting_left(false).await;
                self.tell(failed).await;
            }
        }
    }

    /// The host holds what it was shown, or will not take it.
    pub(super) async fn waiting_left(&mut self, taken: bool) {
        let Some(waiting) = &mut self.waiting else { return };
        let Some(blob) = waiting.flying.take() else { return };
        waiting.not_before = Some(Instant::now() + if taken { APART } else { REFUSED_FOR });
        if !taken {
            return;
        }
        waiting.shown = Some(blob);
        let (note, blobs) = (waiting.note.clone(), self.courier.blobs().clone());
        let noted = off_loop(move || {
            durable::replace(&note, blob.to_string().as_bytes())?;
            blobs.remove(&blob).map_err(std::io::Error::other)
        });
        if let Err(error) = noted.await {
            tracing::warn!(%error, "what the host has been shown is not written down");
        }
    }

    /// Gives waiting pictures the labels that came, in the background; the dataset's watch sees what comes of it.
    pub(super) fn take_labels(&self, blob: BlobHash) {
        let Some(waiting) = self.waiting.as_ref().filter(|waiting| waiting.allowed) else {
            tracing::warn!("the host has labels for pictures that it may not see: none is taken");
            return;
        };
        let (folder, path) = (waiting.folder.clone(), self.courier.blobs().path(&blob));
        let data_dir = self.config.data_dir.clone();
        drop(tokio::task::spawn_blocking(move || match label(&folder, &path, &data_dir) {
            Ok(0) => {}
            Ok(labelled) => tracing::info!(labelled, "pictures have labels from the host"),
            Err(error) => tracing::warn!(%error, "labels from the host are not taken"),
        }));
    }
}

fn label(folder: &Folder, labels: &Path, data_dir: &Path) -> anyhow::Result<usize> {
    let labels = Labels::from_json(&std::fs::read(labels)?)?;
    let classes = dataset::classes(data_dir)?;
    Ok(folder.label_waiting(&labels, classes.as_ref())?)
}
