//! The models that this board may answer by: the last three that came, one of them active.
//!
//! ```text
//! DATA_DIR/models/VERSION.safetensors    a bundle
//! DATA_DIR/models/models.json            which are kept, oldest first, and which is active
//! ```
//!
//! `models.json` is replaced as a whole, so a model is active or it is not, whenever the power goes. Agent and command
//! line may both change it: whoever does holds the lock.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twin_data::bundle::{self, About, Bundle, BundleError};
use twin_infer::{InferError, Network};
use twin_shared::id::ModelVersion;

use crate::durable;
pub use crate::session::Activation;

/// Models that are kept.
pub const KEPT: usize = 3;
/// Fewest digits that name a version.
const SHORTEST_NAME: usize = 4;

/// The models of a board.
#[derive(Debug, Clone)]
pub struct Models {
    folder: PathBuf,
}

/// A model that is kept.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its version.
    pub version: ModelVersion,
    /// What it says of itself.
    pub about: About,
    /// Whether it answers.
    pub active: bool,
}

/// Why a model cannot be kept, found or changed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The disk refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The list is damaged.
    #[error("{}: {error}; remove it, and the host sends the model again", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// Not a model.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A model of a network that cannot answer.
    #[error(transparent)]
    Network(#[from] InferError),
    /// Another model than was said.
    #[error("the bundle is model {found:.12}, not {expected:.12}")]
    Other {
        /// What it is.
        found: ModelVersion,
        /// What was said.
        expected: ModelVersion,
    },
    /// None is active.
    #[error("no model is active on this board: `twin-host promote` gives it one")]
    None,
    /// Nothing to go back to.
    #[error("no earlier model is kept on this board: kept are {0}")]
    NothingEarlier(String),
    /// Pruned, or never here.
    #[error("model {name} is not on this board, pruned perhaps: kept are {kept}; `twin-host promote` sends it again")]
    NotKept {
        /// What was asked for.
        name: String,
        /// What there is.
        kept: String,
    },
    /// Not a version, or several.
    #[error("{0:?} names no single model: give at least {SHORTEST_NAME} digits of its version; kept are {1}")]
    Ambiguous(String, String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    active: Option<String>,
    kept: Vec<String>,
    /// What the host wanted when the owner went back on the board.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declined: Option<String>,
}

impl Models {
    /// The models below the agent's data directory. Nothing is made yet.
    #[must_use]
    pub fn at(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("models") }
    }

    /// Where a model lies, or would.
    #[must_use]
    pub fn path(&self, version: &ModelVersion) -> PathBuf {
        self.folder.join(format!("{version}.safetensors"))
    }

    /// Keeps a bundle that came, after it was read and its network built. The oldest that is not active goes when
    /// there are too many. One that is kept already stays where it is, however often it comes.
    ///
    /// # Errors
    /// When it is not that model, its network cannot answer, or the disk refuses. Nothing has changed then.
    pub fn install(&self, version: ModelVersion, file: &Path) -> Result<(), ModelError> {
        let bytes = read(file)?;
        let bundle = Bundle::from_bytes(&bytes)?;
        if bundle.about.version() != version {
            return Err(ModelError::Other { found: bundle.about.version(), expected: version });
        }
        Network::new(&bundle)?;
        fs::create_dir_all(&self.folder).map_err(io_at(&self.folder))?;
        let _held = self.lock()?;
        let place = self.path(&version);
        let mut index = self.index()?;
        let name = version.to_string();
        if index.kept.contains(&name) && read(&place).is_ok_and(|kept| kept == bytes) {
            return Ok(());
        }
        durable::replace(&place, &bytes).map_err(io_at(&place))?;
        index.kept.retain(|kept| *kept != name);
        index.kept.push(name);
        let pruned = index.prune();
        self.keep(&index)?;
        // The list no longer names them; a file that stays does no harm.
        for old in pruned {
            let path = self.folder.join(format!("{old}.safetensors"));
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(file = %path.display(), %error, "a model that is no longer kept stays");
            }
        }
        Ok(())
    }

    /// Answers by the model that the host wants from now on, if it is kept. The host says what it wants with every
    /// connection: what the owner went back from is not taken again until the host has wanted another.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn activate(&self, version: ModelVersion) -> Result<Activation, ModelError> {
        self.switch(version, |index| {
            let declined = index.declined.as_deref() == Some(version.to_string().as_str());
            if !declined {
                index.declined = None;
            }
            !declined
        })
    }

    /// Answers by an earlier model from now on, as the owner wants, if it is kept.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn roll_back(&self, version: ModelVersion) -> Result<Activation, ModelError> {
        self.switch(version, |index| {
            // Of several steps back the first one left what the host wants.
            let wanted = index.declined.take().or_else(|| index.active.clone());
            index.declined = wanted.filter(|wanted| *wanted != version.to_string());
            true
        })
    }

    /// Answers by a model, if it is kept and the index, once changed so, lets it.
    fn switch(&self, version: ModelVersion, change: impl FnOnce(&mut Index) -> bool) -> Result<Activation, ModelError> {
        if !self.folder.is_dir() {
            return Ok(Activation::Absent);
        }
        let _held = self.lock()?;
        let before = self.index()?;
        let mut index = before.clone();
        let name = version.to_string();
        if !index.kept.contains(&name) || !self.path(&version).is_file() {
            return Ok(Activation::Absent);
        }
        if !change(&mut index) {
            return Ok(Activation::Declined);
        }
        index.active = Some(name);
        if index != before {
            self.keep(&index)?;
        }
        Ok(if index.active == before.active { Activation::Already } else { Activation::Switched })
    }

    /// The model that answers, and its file.
    ///
    /// # Errors
    /// When none is active, or the list cannot be read.
    pub fn active(&self) -> Result<(ModelVersion, PathBuf), ModelError> {
        let active = self.index()?.active.as_deref().and_then(ModelVersion::from_hex).ok_or(ModelError::None)?;
        Ok((active, self.path(&active)))
    }

    /// Reads a model that is kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, version: &ModelVersion) -> Result<Bundle, ModelError> {
        Ok(Bundle::from_bytes(&read(&self.path(version))?)?)
    }

    /// All that are kept, oldest first.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn list(&self) -> Result<Vec<Kept>, ModelError> {
        let index = self.index()?;
        let versions = index.kept.iter().filter_map(|name| ModelVersion::from_hex(name));
        versions
            .map(|version| {
                let active = index.active.as_deref() == Some(version.to_string().as_str());
                Ok(Kept { version, about: self.read(&version)?.about, active })
            })
            .collect()
    }

    /// The model that a rollback goes to: the one that these digits begin, or the one that came before the active.
    ///
    /// # Errors
    /// When it is not kept, or the digits fit none or several.
    pub fn target(&self, name: Option<&str>) -> Result<ModelVersion, ModelError> {
        let index = self.index()?;
        let known = || {
            let short = index.kept.iter().map(|version| version.get(..12).unwrap_or(version));
            if index.kept.is_empty() { "none".to_owned() } else { short.collect::<Vec<_>>().join(", ") }
        };
        let Some(name) = name else {
            let at = index.active.as_ref().and_then(|active| index.kept.iter().position(|kept| kept == active));
            let before = at.and_then(|at| at.checked_sub(1)).and_then(|at| ModelVersion::from_hex(&index.kept[at]));
            return before.ok_or_else(|| ModelError::NothingEarlier(known()));
        };
        let digits = name.to_ascii_lowercase();
        if digits.len() < SHORTEST_NAME || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ModelError::Ambiguous(name.to_owned(), known()));
        }
        let mut fitting = index.kept.iter().filter(|kept| kept.starts_with(&digits));
        match (fitting.next(), fitting.next()) {
            (Some(_), Some(_)) => Err(ModelError::Ambiguous(name.to_owned(), known())),
            (only, _) => only
                .and_then(|only| ModelVersion::from_hex(only))
                .ok_or_else(|| ModelError::NotKept { name: name.to_owned(), kept: known() }),
        }
    }

    fn index_file(&self) -> PathBuf {
        self.folder.join("models.json")
    }

    fn index(&self) -> Result<Index, ModelError> {
        let path = self.index_file();
        match durable::read(&path).map_err(io_at(&path))? {
            None => Ok(Index::default()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| ModelError::Index { path, error }),
        }
    }

    fn keep(&self, index: &Index) -> Result<(), ModelError> {
        let path = self.index_file();
        let bytes = serde_json::to_vec(index).map_err(|error| ModelError::Index { path: path.clone(), error })?;
        durable::replace(&path, &bytes).map_err(io_at(&path))
    }

    fn lock(&self) -> Result<File, ModelError> {
        let path = self.folder.join("lock");
        let file = File::create(&path).map_err(io_at(&path))?;
        file.lock().map_err(io_at(&path))?;
        Ok(file)
    }
}

impl Index {
    /// Takes out what is too much, the active one never.
    fn prune(&mut self) -> Vec<String> {
        let mut pruned = Vec::new();
        while self.kept.len() > KEPT {
            let oldest = self.kept.iter().position(|kept| self.active.as_ref() != Some(kept)).unwrap_or(0);
            pruned.push(self.kept.remove(oldest));
        }
        pruned
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ModelError> {
    let length = fs::metadata(file).map_err(io_at(file))?.len();
    if length > bundle::MAX_BYTES {
        return Err(BundleError::Format(format!("{length} bytes are over {}", bundle::MAX_BYTES)).into());
    }
    fs::read(file).map_err(io_at(file))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> ModelError {
    let path = path.to_owned();
    move |error| ModelError::Io { path, error }
}

#[cfg(test)]
mod tests;
