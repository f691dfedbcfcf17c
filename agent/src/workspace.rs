//! The folder that the agent shares with its trainer: labels, momentum and fresh states of the present epoch.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use twin_data::blobs::{BlobError, Blobs};
use twin_shared::id::{BlobHash, JobId, RoundId};
use twin_shared::pipe::{CompressPlan, EpochJob, LabelSource};
use twin_shared::plan::{Compression, Method};
use twin_shared::wire::{Assignment, Sparing};

use crate::session::Kept;

/// The folder.
#[derive(Debug, Clone)]
pub struct Workspace {
    folder: PathBuf,
}

impl Workspace {
    /// Opens the folder, making it where it is missing. Its path must be absolute: the trainer reads it too.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Makes room for an epoch, and removes what other epochs left but the momentum of the one before and what the
    /// rounding of the state that both sides hold left out. What there is of this epoch stays.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn prepare(&self, job: JobId, round: RoundId, common: &BlobHash) -> io::Result<()> {
        let labels = self.labels(job, round);
        let own = [labels.clone(), self.checkpoint(job, round)];
        let before = round.0.checked_sub(1).map(|before| self.momentum(job, RoundId(before)));
        let residual = self.residual(common);
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if own.contains(&path) || path == residual || Some(&path) == before.as_ref() {
                continue;
            }
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
        fs::create_dir_all(labels)
    }

    /// Puts a block of labels where the trainer looks for it: a second name of the blob, or a copy where the file
    /// system knows no second names.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn place_labels(&self, blob: &Path, job: JobId, round: RoundId, index: u32) -> io::Result<()> {
        let folder = self.labels(job, round);
        fs::create_dir_all(&folder)?;
        let place = folder.join(format!("{index:05}.labels"));
        let fresh = folder.join(format!("{index:05}.new"));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if fs::hard_link(blob, &fresh).is_err() {
            fs::copy(blob, &fresh)?;
        }
        // Of two names of one file a rename does nothing, and both stay.
        fs::rename(&fresh, &place)?;
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The blocks of labels that lie where the trainer looks for them, and the blobs that they are by what is on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn labels_at_hand(&self, job: JobId, round: RoundId) -> io::Result<Vec<(u32, BlobHash)>> {
        let folder = match fs::read_dir(self.labels(job, round)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in folder {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(index) = name.strip_suffix(".labels").and_then(|index| index.parse().ok()) {
                found.push((index, BlobHash::of(&fs::read(&path)?)));
            }
        }
        Ok(found)
    }

    /// Where the trainer puts an epoch's state.
    #[must_use]
    pub fn state(&self, job: JobId, round: RoundId) -> PathBuf {
        self.folder.join(format!("state-{job}-{round}.safetensors"))
    }

    /// An assignment in the trainer's words.
    ///
    /// # Errors
    /// When a path is not UTF-8, which frames need.
    pub fn epoch_job(
        &self,
        assignment: &Assignment,
        sparing: &Sparing,
        momentum: bool,
        blobs: &Blobs,
        dataset: &BlobHash,
    ) -> Result<EpochJob, NotText> {
        let (job, round) = (assignment.job, assignment.round);
        let before = momentum
            .then(|| round.0.checked_sub(1))
            .flatten()
            .map(|before| self.momentum(job, RoundId(before)))
            .filter(|file| file.is_file());
        let labels = match assignment.method {
            Method::CrossEntropy => LabelSource::None,
            Method::SimKd | Method::Kd { .. } => LabelSource::Blocks { directory: text(&self.labels(job, round))? },
        };
        Ok(EpochJob {
            architecture: assignment.architecture,
            method: assignment.method,
            state: text(&blobs.path(&assignment.base))?,
            momentum: before.as_deref().map(text).transpose()?,
            dataset: text(&blobs.path(dataset))?,
            plan: assignment.plan,
            recipe: assignment.recipe,
            labels,
            state_out: text(&self.state(job, round))?,
            momentum_out: Some(text(&self.momentum(job, round))?),
            checkpoint: Some(text(&self.checkpoint(job, round))?),
            compression: self.compress_plan(assignment, sparing, blobs)?,
        })
    }

    /// How an epoch's state is made fit to travel, where it travels and not whole.
    fn compress_plan(
        &self,
        assignment: &Assignment,
        sparing: &Sparing,
        blobs: &Blobs,
    ) -> Result<Option<CompressPlan>, NotText> {
        let base = blobs.path(&sparing.common);
        // Without the common state there is nothing to be a difference to.
        if sparing.compression == Compression::None || !sparing.upload || !base.is_file() {
            return Ok(None);
        }
        let (job, round) = (assignment.job, assignment.round);
        let residual = Some(self.residual(&sparing.common)).filter(|file| file.is_file());
        Ok(Some(CompressPlan {
            compression: sparing.compression,
            base: text(&base)?,
            residual: residual.as_deref().map(text).transpose()?,
            residual_out: text(&self.fresh(job, round, "residual"))?,
            delta_out: text(&self.fresh(job, round, "delta"))?,
        }))
    }

    /// Takes what an epoch wrote: its state and the file that carries it are among the blobs then, and what was left
    /// out lies under the state's name, for the next rounding.
    ///
    /// # Errors
    /// What the disk says.
    pub fn keep(&self, job: JobId, round: RoundId, blobs: &Blobs) -> Result<Kept, String> {
        let said = |error: BlobError| error.to_string();
        let (state, _) = blobs.adopt(&self.state(job, round)).map_err(said)?;
        let (residual, delta) = (self.fresh(job, round, "residual"), self.fresh(job, round, "delta"));
        if !delta.is_file() {
            return Ok(Kept { state, delta: None });
        }
        let (delta, _) = blobs.adopt(&delta).map_err(said)?;
        fs::rename(&residual, self.residual(&state)).map_err(|error| format!("{}: {error}", residual.display()))?;
        Ok(Kept { state, delta: Some(delta) })
    }

    fn labels(&self, job: JobId, round: RoundId) -> PathBuf {
        self.folder.join(format!("labels-{job}-{round}"))
    }

    /// What the rounding that made this state left out.
    fn residual(&self, state: &BlobHash) -> PathBuf {
        self.folder.join(format!("residual-{state}"))
    }

    fn fresh(&self, job: JobId, round: RoundId, kind: &str) -> PathBuf {
        self.folder.join(format!("{kind}-{job}-{round}.new"))
    }

    fn checkpoint(&self, job: JobId, round: RoundId) -> PathBuf {
        self.folder.join(format!("checkpoint-{job}-{round}.safetensors"))
    }

    fn momentum(&self, job: JobId, round: RoundId) -> PathBuf {
        self.folder.join(format!("momentum-{job}-{round}.safetensors"))
    }
}

/// A path that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not UTF-8", .0.display())]
pub struct NotText(PathBuf);

fn text(path: &Path) -> Result<String, NotText> {
    path.to_str().map(str::to_owned).ok_or_else(|| NotText(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_keeps_its_own_files_and_the_last_momentum() {
        let folder = tempfile::tempdir().expect("a folder");
        let workspace = Workspace::open(folder.path().join("work")).expect("made");
        let blob = folder.path().join("blob");
        fs::write(&blob, b"labels").expect("written");
        let (job, rounds) = (JobId(3), [RoundId(0), RoundId(1), RoundId(2)]);
        let common = BlobHash([1; 32]);
        for round in rounds {
            workspace.prepare(job, round, &common).expect("prepared");
            // A block that comes again is placed again.
            for _ in 0..2 {
                workspace.place_labels(&blob, job, round, 7).expect("placed");
            }
            fs::write(workspace.momentum(job, round), b"momentum").expect("written");
            fs::write(workspace.state(job, round), b"state").expect("written");
            fs::write(workspace.checkpoint(job, round), b"checkpoint").expect("written");
        }
        for state in [common, BlobHash([2; 32])] {
            fs::write(workspace.residual(&state), b"residual").expect("written");
        }
        workspace.prepare(job, RoundId(2), &common).expect("prepared");
        assert!(workspace.labels(job, rounds[2]).join("00007.labels").is_file());
        assert_eq!(fs::read_dir(workspace.labels(job, rounds[2])).expect("there").count(), 1);
        assert!(workspace.momentum(job, rounds[1]).is_file() && workspace.residual(&common).is_file());
        assert!(workspace.checkpoint(job, rounds[2]).is_file());
        assert_eq!(fs::read_dir(folder.path().join("work")).expect("there").count(), 4);
        let blob = BlobHash::of(b"labels");
        assert_eq!(workspace.labels_at_hand(job, rounds[2]).expect("readable"), [(7, blob)]);
        assert_eq!(workspace.labels_at_hand(job, RoundId(9)).expect("none"), []);
    }
}
