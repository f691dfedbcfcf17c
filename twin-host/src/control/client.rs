//! The commands' end of the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::address::Address;
use super::event::Event;
use super::message::{Answer, Request};

/// Longest line that a host says, bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// Why a host could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No host serves this data directory.
    #[error("no twin-host serves {0}: start one with twin-host serve")]
    NobodyServes(PathBuf),
    /// The socket is there and cannot be used.
    #[error("{path}: {error}")]
    Socket {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The host ended, or does not speak as this program does.
    #[error("the host's answer was cut off or is not understood; its log may say more")]
    CutOff,
    /// The host refused.
    #[error("{0}")]
    Refused(String),
}

/// An answered request, and what the host tells after it.
#[derive(Debug)]
pub struct Conversation {
    /// The answer.
    pub answer: Answer,
    lines: BufReader<io::Take<UnixStream>>,
}

/// Asks the host that serves a data directory.
///
/// # Errors
/// When none does, it cannot be reached, or it refuses.
pub fn ask(data_dir: &Path, request: &Request) -> Result<Conversation, ControlError> {
    let socket = |error: io::Error| {
        let path = data_dir.to_owned();
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            ControlError::NobodyServes(path)
        } else {
            ControlError::Socket { path, error }
        }
    };
    let address = Address::of(data_dir).map_err(socket)?;
    let mut stream = UnixStream::connect(address.path()).map_err(socket)?;
    let mut line = serde_json::to_vec(request).expect("plain data serialises");
    line.push(b'\n');
    stream.write_all(&line).map_err(socket)?;
    let mut lines = BufReader::new(stream.take(LONGEST_LINE));
    match serde_json::from_str(&read_line(&mut lines)?.ok_or(ControlError::CutOff)?) {
        Ok(Answer::Refused(why)) => Err(ControlError::Refused(why)),
        Ok(answer @ Answer::Done { .. }) => Ok(Conversation { answer, lines }),
        Err(_) => Err(ControlError::CutOff),
    }
}

impl Conversation {
    /// The next event; `None` when the host has no more to tell.
    ///
    /// # Errors
    /// When the host ends in the middle, or says what this program does not understand.
    pub fn next_event(&mut self) -> Result<Option<Event>, ControlError> {
        match read_line(&mut self.lines)? {
            None => Ok(None),
            Some(line) => serde_json::from_str(&line).map(Some).map_err(|_| ControlError::CutOff),
        }
    }
}

fn read_line(lines: &mut BufReader<io::Take<UnixStream>>) -> Result<Option<String>, ControlError> {
    lines.get_mut().set_limit(LONGEST_LINE);
    let mut line = String::new();
    match lines.read_line(&mut line) {
        Ok(0) => Ok(None),
        Ok(_) if line.ends_with('\n') => Ok(Some(line)),
        Ok(_) | Err(_) => Err(ControlError::CutOff),
    }
}
