//! Small kernel files below a root folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// No kernel file that is read here is longer; /proc/stat of a large machine may be, and its first line is enough.
const LONGEST: u64 = 64 << 10;

/// A folder that stands for `/`.
#[derive(Debug, Clone)]
pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) const fn new(root: PathBuf) -> Self {
        Self(root)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    /// The text of a file, without the white space around it; none if it is missing, refuses to be read (as many do
    /// while a device is down), or is not text.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.at(path)).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file with one number.
    pub(super) fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The value of `KEY=value` in a file of such lines.
    pub(super) fn setting(&self, path: &str, key: &str) -> Option<String> {
        self.text(path)?.lines().find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
    }

    /// The names in a folder that begin so, in order.
    pub(super) fn names(&self, path: &str, prefix: &str) -> Vec<String> {
        let Ok(entries) = self.at(path).read_dir() else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        Path::exists(&self.at(path))
    }
}
