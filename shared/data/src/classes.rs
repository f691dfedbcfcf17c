//! The list of classes: which name has which index. The host keeps it, boards follow it. Names are only ever
//! appended, so an index means the same class for ever.

use serde::{Deserialize, Serialize};

/// Longest name, bytes.
pub const MAX_NAME: usize = 64;
/// Most bytes that a list may take as JSON.
pub const MAX_JSON: usize = 4 << 20;
/// The folder of pictures that wait for a label; no class may have this name.
pub const INCOMING: &str = "incoming";

/// A version of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct ClassList {
    version: u32,
    names: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    names: Vec<String>,
}

/// What is wrong with a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// Not a name.
    #[error(
        "{0:?} is no class name: 1 to {MAX_NAME} bytes, no '/', no control character, no '.' in front, not {INCOMING:?}"
    )]
    Name(String),
    /// Two names that people take for one.
    #[error("{0:?} and {1:?} are two spellings of one class: keep one of them")]
    TwoSpellings(String, String),
    /// The same name twice.
    #[error("the class {0:?} is there already")]
    Twice(String),
    /// Not in the list.
    #[error("the class {name:?} is not in the host's list (version {version}): {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The list's version.
        version: u32,
        /// The names that are, or what to do.
        known: String,
    },
    /// In the list under another spelling.
    #[error("the class {name:?} is spelled {listed:?} in the host's list: rename it")]
    Spelling {
        /// The name.
        name: String,
        /// The list's.
        listed: String,
    },
    /// More than an index can tell apart.
    #[error("{0} classes are more than 65535")]
    TooMany(usize),
    /// Not a list as JSON.
    #[error("not a list of classes: {0}")]
    Json(String),
}

/// Checks a class's name.
///
/// # Errors
/// [`ClassError::Name`].
pub fn check_name(name: &str) -> Result<(), ClassError> {
    let fine = (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains('/')
        && !name.chars().any(char::is_control)
        && name.trim() == name
        && spelling(name) != INCOMING;
    if fine { Ok(()) } else { Err(ClassError::Name(name.to_owned())) }
}

/// What two spellings of one class have in common: letters without their case, and one space for any run of spaces,
/// `_` and `-`.
#[must_use]
pub fn spelling(name: &str) -> String {
    let folded = name.to_lowercase().replace(['_', '-'], " ");
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Nothing, if every name is a class's and no two are spellings of one.
///
/// # Errors
/// The first that is not.
pub fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<(), ClassError> {
    let mut seen = std::collections::BTreeMap::new();
    for name in names {
        check_name(name)?;
        match seen.insert(spelling(name), name) {
            Some(earlier) if earlier == name => return Err(ClassError::Twice(name.to_owned())),
            Some(earlier) => return Err(ClassError::TwoSpellings(earlier.to_owned(), name.to_owned())),
            None => {}
        }
    }
    Ok(())
}

impl ClassList {
    /// A list.
    ///
    /// # Errors
    /// When a name is none, two are spellings of one, or there are too many.
    pub fn new(version: u32, names: Vec<String>) -> Result<Self, ClassError> {
        if names.len() > usize::from(u16::MAX) {
            return Err(ClassError::TooMany(names.len()));
        }
        check_names(names.iter().map(String::as_str))?;
        Ok(Self { version, names })
    }

    /// Counts the lists of a host.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The names, by index.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u16 {
        u16::try_from(self.names.len()).expect("checked when the list was made")
    }

    /// The next version, with these names behind the others.
    ///
    /// # Errors
    /// When one is no name, is there already, or is another spelling of one.
    pub fn with(&self, more: impl IntoIterator<Item = String>) -> Result<Self, ClassError> {
        Self::new(self.version + 1, self.names.iter().cloned().chain(more).collect())
    }

    /// The index of a name.
    ///
    /// # Errors
    /// When it is not in the list, or is spelled otherwise there.
    pub fn index(&self, name: &str) -> Result<u16, ClassError> {
        let folded = spelling(name);
        match self.names.iter().zip(0u16..).find(|(listed, _)| spelling(listed) == folded) {
            Some((listed, index)) if listed == name => Ok(index),
            Some((listed, _)) => Err(ClassError::Spelling { name: name.to_owned(), listed: listed.clone() }),
            None => Err(ClassError::Unknown { name: name.to_owned(), version: self.version, known: self.listing() }),
        }
    }

    fn listing(&self) -> String {
        const SHOWN: usize = 12;
        let mut text = self.names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        if self.names.len() > SHOWN {
            text.push_str(&format!(" and {} more", self.names.len() - SHOWN));
        }
        format!("it has {text}; twin-host classes add adds one")
    }

    /// The list as it travels and lies on disk.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names serialise")
    }

    /// Reads a list.
    ///
    /// # Errors
    /// When it is none, or longer than [`MAX_JSON`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ClassError> {
        if bytes.len() > MAX_JSON {
            return Err(ClassError::Json(format!("{} bytes are over {MAX_JSON}", bytes.len())));
        }
        serde_json::from_slice(bytes).map_err(|error| ClassError::Json(error.to_string()))
    }
}

impl TryFrom<Raw> for ClassList {
    type Error = ClassError;

    fn try_from(raw: Raw) -> Result<Self, ClassError> {
        Self::new(raw.version, raw.names)
    }
}

impl From<ClassList> for Raw {
    fn from(list: ClassList) -> Self {
        Self { version: list.version, names: list.names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Result<ClassList, ClassError> {
        ClassList::new(1, names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn names_are_found_and_others_are_refused_by_name() {
        let list = list(&["cat", "fire truck", "c++", "c#"]).unwrap();
        assert_eq!(list.index("c#"), Ok(3));
        let said = list.index("Fire_Truck").unwrap_err().to_string();
        assert!(said.contains("\"Fire_Truck\"") && said.contains("\"fire truck\""), "{said}");
        let said = list.index("zebra").unwrap_err().to_string();
        assert!(said.contains("\"zebra\"") && said.contains("cat, fire truck"), "{said}");
    }

    #[test]
    fn two_spellings_and_what_is_no_name_are_refused() {
        assert!(matches!(list(&["Cat", "cat"]), Err(ClassError::TwoSpellings(..))));
        assert!(matches!(list(&["a-b", "a  b"]), Err(ClassError::TwoSpellings(..))));
        assert!(matches!(list(&["cat", "cat"]), Err(ClassError::Twice(_))));
        for bad in ["", " a", "a/b", "..", ".x", "Incoming", "a\n", &"x".repeat(65)] {
            assert!(matches!(list(&[bad]), Err(ClassError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_longer_list_keeps_every_index() {
        let first = list(&["cat", "dog"]).unwrap();
        let second = first.with(["axolotl".to_owned()]).unwrap();
        assert_eq!((second.version(), second.index("dog"), second.index("axolotl")), (2, Ok(1), Ok(2)));
        assert_eq!(ClassList::from_json(&second.to_json()), Ok(second.clone()));
        assert!(second.with(["DOG".to_owned()]).is_err());
        assert!(ClassList::from_json(br#"{"version":1,"names":["a","A"]}"#).is_err());
        assert!(ClassList::from_json(b"[]").is_err());
    }
}
