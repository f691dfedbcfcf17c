//! Who the board is: its name, its key, this boot, and its count of births.

use std::io;
use std::path::{Path, PathBuf};

use twin_shared::id::BootId;
use twin_shared::wire::seal::DeviceKey;

use crate::durable;

/// Births are reserved by so many at a time, so that a board that cannot connect does not write a file a minute.
const RESERVED: u64 = 64;

/// Why the board does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of its identity cannot be read or written.
    #[error("{}: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The sealing key is no key.
    #[error("{}: a sealing key is 64 hexadecimal digits", file.display())]
    Key {
        /// The file.
        file: PathBuf,
    },
    /// The count of births is no number.
    #[error("{}: the count of births is damaged; write a number into it that is above every earlier one", file.display())]
    Births {
        /// The file.
        file: PathBuf,
    },
}

/// Reads the sealing key: 64 hexadecimal digits, and a line's end if it likes.
///
/// # Errors
/// When the file cannot be read or holds anything else.
pub fn read_key(file: &Path) -> Result<DeviceKey, IdentityError> {
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(file).map_err(at(file))?);
    let bytes = blake3::Hash::from_hex(text.trim_end()).map_err(|_| IdentityError::Key { file: file.to_owned() })?;
    Ok(DeviceKey::new(*bytes.as_bytes()))
}

/// A boot id for this process.
#[must_use]
pub fn new_boot() -> BootId {
    BootId(rand::random())
}

/// Counts the board's connections for ever.
#[derive(Debug)]
pub struct Births {
    file: PathBuf,
    next: u64,
    reserved: u64,
}

impl Births {
    /// Goes on counting above everything that an earlier life may have used.
    ///
    /// # Errors
    /// When the file is there and is no count.
    pub fn open(file: PathBuf) -> Result<Self, IdentityError> {
        let reserved = match durable::read(&file).map_err(at(&file))? {
            None => 0,
            Some(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim_end().parse().ok())
                .ok_or_else(|| IdentityError::Births { file: file.clone() })?,
        };
        Ok(Self { file, next: reserved, reserved })
    }

    /// The next birth's number, which nobody has had before, and which is on disk before anybody sees it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take(&mut self) -> Result<u64, IdentityError> {
        if self.next >= self.reserved {
            let reserved = self.next.saturating_add(RESERVED);
            durable::replace(&self.file, format!("{reserved}\n").as_bytes()).map_err(at(&self.file))?;
            self.reserved = reserved;
        }
        self.next += 1;
        Ok(self.next)
    }
}

fn at(file: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let file = file.to_owned();
    move |error| IdentityError::Io { file, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn births_only_grow_whenever_the_power_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("births");
        let mut last = 0;
        for connections in [1, 3, RESERVED + 5, 1] {
            let mut births = Births::open(file.clone()).expect("opened");
            for _ in 0..connections {
                let birth = births.take().expect("written");
                assert!(birth > last, "{birth} after {last}");
                last = birth;
            }
        }
        fs::write(&file, "many").expect("written");
        assert!(matches!(Births::open(file), Err(IdentityError::Births { .. })));
    }

    #[test]
    fn a_key_is_64_digits() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key");
        fs::write(&file, format!("{}\n", "0a".repeat(32))).expect("written");
        assert_eq!(read_key(&file).expect("valid").expose(), &[10; 32]);
        for bad in ["", "0a", &"0g".repeat(32), &"0a".repeat(33)] {
            fs::write(&file, bad).expect("written");
            assert!(matches!(read_key(&file), Err(IdentityError::Key { .. })), "{bad}");
        }
    }
}
