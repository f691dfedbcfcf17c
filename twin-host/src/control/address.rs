//! Where the socket is. A socket's path is limited to about a hundred bytes; a data directory's is not, so a long one
//! is reached through the process's own descriptor of the directory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";

/// Longest path that every system takes, bytes.
const LONGEST: usize = 100;

/// A path to the socket that is short enough; it holds for as long as this lives.
pub(super) struct Address {
    path: PathBuf,
    _directory: Option<File>,
}

impl Address {
    pub(super) fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(SOCKET);
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path, _directory: None });
        }
        let directory = File::open(data_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(SOCKET);
        Ok(Self { path, _directory: Some(directory) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
