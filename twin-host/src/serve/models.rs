//! From a job's students to models that boards answer by.

use std::fmt;

use twin_core::coordinator::JobProgress;
use twin_shared::id::{BlobHash, DeviceId, ModelVersion};
use twin_shared::pipe::{EvaluateJob, Job, Outcome, Part, Score};
use twin_shared::plan::Method;
use twin_shared::wire::{Birth, ModelOffer, Order, Purpose, WIRE_VERSION};

use super::Host;
use super::job::{JobFailure, JobRun, Voices, Work};
use crate::control::Happened;
use crate::export::{Parts, make};
use crate::link::LinkOrder;
use crate::store::{ModelRecord, StoreError};
use crate::train::{Ask, Told};

/// Why a model is not promoted.
#[derive(Debug, thiserror::Error)]
pub(super) enum PromotionError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is worse than what the device has.
    #[error("{0}")]
    Worse(Box<Loss>),
    /// There is nothing to go back to.
    #[error("{0} has no earlier model to go back to")]
    Nothing(DeviceId),
}

/// What a promotion would lose.
#[derive(Debug)]
pub(super) struct Loss {
    device: DeviceId,
    candidate: ModelRecord,
    present: ModelRecord,
    limit: f64,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, candidate, present, limit } = self;
        let of = |score: Score| format!("{} of {}", score.correct, score.total);
        write!(
            f,
            "{device} keeps {:.12}, which is right on {} of its held-out images; {:.12} is on {}, and more than {:.1} % \
             lost is refused (models.most_lost)",
            present.version.to_string(),
            of(present.held_out),
            candidate.version.to_string(),
            of(candidate.held_out),
            limit * 100.0
        )
    }
}

impl JobRun<'_> {
    /// Makes a model of every student that is trained to the end, with its score on the board's held-out images.
    pub(super) async fn make_models(&mut self, voices: &mut Voices) -> Result<(), JobFailure> {
        let teacher = match &self.kept.0 {
            Some(JobProgress::Distilling { teacher, .. }) => *teacher,
            Some(JobProgress::Gathering | JobProgress::Teaching(_)) | None => return Ok(()),
        };
        let finished = self.kept.1.iter().filter_map(|(device, progress)| Some((device.clone(), progress.finished()?)));
        for (device, state) in finished.collect::<Vec<_>>() {
            let Some(student) = self.host.store.student_of(self.id, &device)? else { continue };
            let blobs = self.host.store.blobs(&device)?;
            let counts = self.coordinator.members().get(&device).and_then(|member| member.twin.counts());
            let label_counts = counts.map(|counts| counts.labels.clone()).unwrap_or_default();
            let held = counts.map_or(0, |counts| counts.held);
            let parts = Parts {
                device: device.clone(),
                job: self.id,
                epochs: student.round + 1,
                architecture: student.architecture.parse().map_err(|_| JobFailure::Unknown(device.clone()))?,
                method: self.job.student.method,
                classes: self.classes.clone(),
                label_counts,
                teacher: (self.host.store.teacher(self.id), teacher),
                state: (blobs.path(&state), state),
            };
            let held_out = if held == 0 { Score::default() } else { self.score(voices, &device, &state).await? };
            let (version, bundle) = tokio::task::spawn_blocking(move || make(parts, &blobs)).await??;
            let model = ModelRecord {
                version,
                job: self.id,
                epochs: student.round + 1,
                architecture: student.architecture,
                state,
                bundle,
                held_out,
                made: 0,
            };
            self.host.store.add_model(&device, &model)?;
            let (version, held_out) = (version.to_string(), held_out.fraction());
            self.host.tell(self.id, Happened::Model { device, version, held_out });
        }
        Ok(())
    }

    /// A student's score on the board's held-out images.
    async fn score(&self, voices: &mut Voices, device: &DeviceId, state: &BlobHash) -> Result<Score, JobFailure> {
        let job = Job::Evaluate(EvaluateJob {
            weights: self.host.store.blobs(device)?.path(state).display().to_string(),
            teacher: match self.job.student.method {
                Method::SimKd => Some(self.host.store.teacher(self.id).display().to_string()),
                Method::Kd { .. } | Method::CrossEntropy => None,
            },
            dataset: self.dataset_of(device)?,
            part: Part::Held,
            devices: Vec::new(),
        });
        let key = Work::Model(device.clone());
        let _ = self.student_asks.send(Ask::Run { flow: device.to_string(), key: key.clone(), job: Box::new(job) });
        while let Some((work, told)) = voices.students.recv().await {
            if work != key {
                continue;
            }
            match told {
                Told::Done(Outcome::Evaluation(evaluation)) => return Ok(evaluation.full_top1),
                Told::Done(outcome) => return Err(JobFailure::Scoring(device.clone(), format!("{outcome:?}"))),
                Told::Failed(message) => return Err(JobFailure::Scoring(device.clone(), message)),
                Told::Progress { .. } | Told::Block(_) => {}
            }
        }
        Err(JobFailure::Scoring(device.clone(), "the trainer is gone".into()))
    }
}

impl Host {
    /// Has a device answer by a model from now on, unless it is worse than the present one by more than is allowed.
    pub(super) fn promote(&self, device: &DeviceId, named: Option<&str>) -> Result<ModelVersion, PromotionError> {
        let candidate = self.store.model(device, named)?;
        if let Some(present) = self.store.promoted(device)? {
            let fractions = (candidate.held_out.fraction(), present.held_out.fraction());
            if let (Some(found), Some(before)) = fractions
                && before - found > self.config.most_lost
            {
                let (device, limit) = (device.clone(), self.config.most_lost);
                return Err(PromotionError::Worse(Box::new(Loss { device, candidate, present, limit })));
            }
        }
        self.store.promote(device, candidate.version)?;
        self.offer_model(device)?;
        Ok(candidate.version)
    }

    /// Has a device answer by an earlier model again: the one that is named, or the one before the present one.
    pub(super) fn roll_back(&self, device: &DeviceId, named: Option<&str>) -> Result<ModelVersion, PromotionError> {
        self.store.device(device)?;
        let nothing = || PromotionError::Nothing(device.clone());
        let model = match named {
            Some(_) => self.store.model(device, named)?,
            None => {
                let present = self.store.promoted(device)?.ok_or_else(nothing)?;
                self.store.promoted_before(device, present.version)?.ok_or_else(nothing)?
            }
        };
        self.store.promote(device, model.version)?;
        self.offer_model(device)?;
        Ok(model.version)
    }

    /// What every board hears with its birth, unless it speaks an earlier version of the wire: the list of classes, labels
    /// for its waiting pictures, and the model to answer by.
    pub(super) fn greet(&self, device: &DeviceId, birth: &Birth) -> Result<(), StoreError> {
        if birth.versions.newest < WIRE_VERSION {
            return Ok(());
        }
        self.offer_classes(device)?;
        self.offer_labels(device)?;
        self.offer_model(device)
    }

    /// Sends a board the labels that its waiting pictures have got here and that it has not made its own.
    pub(super) fn offer_labels(&self, device: &DeviceId) -> Result<(), StoreError> {
        let labels = self.store.waiting_labels(device)?;
        if !labels.0.is_empty() {
            let blob = self.store.blobs(device)?.put(&labels.to_json())?;
            self.order(device, LinkOrder::Send(blob, Purpose::WaitingLabels));
        }
        Ok(())
    }

    /// Tells a board by which model to answer, and sends it where the board lacks it. Said again with every birth, so a
    /// board that is away hears of it when it is back.
    pub(super) fn offer_model(&self, device: &DeviceId) -> Result<(), StoreError> {
        let Some(model) = self.store.promoted(device)? else { return Ok(()) };
        let blobs = self.store.blobs(device)?;
        let bytes = blobs.size(&model.bundle)?;
        let offer = ModelOffer { version: model.version, job: model.job, bundle: model.bundle, bytes };
        self.order(device, LinkOrder::Command(Order::Activate(offer)));
        self.order(device, LinkOrder::Send(model.bundle, Purpose::Model { version: model.version }));
        Ok(())
    }

    /// Sends a board the list of classes.
    pub(super) fn offer_classes(&self, device: &DeviceId) -> Result<(), StoreError> {
        let list = self.store.classes()?;
        if list.count() > 0 {
            let blob = self.store.blobs(device)?.put(&list.to_json())?;
            self.order(device, LinkOrder::Send(blob, Purpose::Classes { version: list.version() }));
        }
        Ok(())
    }
}
