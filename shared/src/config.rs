//! Reads configuration files strictly: an unknown key is refused and the nearest known one named, and every error
//! says which key it is about.
//!
//! The known keys are those of the type that is read, so there is no second list to keep.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use toml::Value;

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML at all.
    #[error("not a TOML file: {0}")]
    Syntax(String),
    /// A key that means nothing here.
    #[error("`{at}` is not a known key{}", Suggestion(nearest))]
    UnknownKey {
        /// The key with the sections that it stands in.
        at: String,
        /// The known key that looks most like it, in full.
        nearest: Option<String>,
    },
    /// A word that is not one of those possible.
    #[error("`{at}` cannot be \"{found}\"{}; possible: {}", Suggestion(nearest), known.join(", "))]
    UnknownWord {
        /// The key.
        at: String,
        /// The word that stands there.
        found: String,
        /// The possible word that looks most like it.
        nearest: Option<String>,
        /// Every possible word.
        known: Vec<&'static str>,
    },
    /// A key without which nothing can start.
    #[error("`{at}` is missing")]
    Missing {
        /// The key.
        at: String,
    },
    /// A value of the wrong kind or out of range.
    #[error("`{at}`: {problem}")]
    Value {
        /// The key.
        at: String,
        /// What is wrong with its value.
        problem: String,
    },
}

impl ConfigError {
    /// A value that was read but cannot be served.
    pub fn value(at: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self::Value { at: at.into(), problem: problem.to_string() }
    }

    /// Puts the key before the place that the error has so far.
    fn inside(self, key: &str) -> Self {
        let join = |at: String| match at.as_bytes().first() {
            None => key.to_owned(),
            Some(b'[') => format!("{key}{at}"),
            Some(_) => format!("{key}.{at}"),
        };
        match self {
            Self::Syntax(problem) => Self::Syntax(problem),
            Self::UnknownKey { at, nearest } => Self::UnknownKey { at: join(at), nearest: nearest.map(join) },
            Self::UnknownWord { at, found, nearest, known } => {
                Self::UnknownWord { at: join(at), found, nearest, known }
            }
            Self::Missing { at } => Self::Missing { at: join(at) },
            Self::Value { at, problem } => Self::Value { at: join(at), problem },
        }
    }
}

/// The end of a sentence on an unknown word: the known one that was perhaps meant, or nothing.
#[derive(Debug)]
pub struct Suggestion<'a>(pub &'a Option<String>);

impl fmt::Display for Suggestion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |nearest| write!(f, ": did you mean `{nearest}`?"))
    }
}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::value("", problem)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing { at: field.to_owned() }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownKey { at: field.to_owned(), nearest: nearest(field, known) }
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::UnknownWord {
            at: String::new(),
            found: found.to_owned(),
            nearest: nearest(found, known),
            known: known.to_vec(),
        }
    }
}

/// Reads a whole configuration.
///
/// # Errors
/// A text that is not TOML, a key that `T` has not, a missing key, a value that does not fit.
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax(error.to_string().trim_end().to_owned()))?;
    T::deserialize(Strict(Value::Table(table)))
}

/// The candidate with the fewest edits from `word`, if that is at most a third of its length and one more.
#[must_use]
pub fn nearest(word: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(count, candidate)| *count <= candidate.len().max(word.len().min(64)) / 3 + 1)
        .min_by_key(|(count, _)| *count)
        .map(|(_, candidate)| (*candidate).to_owned())
}

/// Letters to insert, delete or replace to turn one word into the other (Levenshtein). Words longer than any key
/// are cut, so that a file cannot make this slow.
fn edits(from: &str, to: &str) -> usize {
    let target: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=target.len()).collect();
    for (i, letter) in from.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in target.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[target.len()]
}

/// A value whose structs take no unknown keys, and whose errors know their place.
struct Strict(Value);

impl<'de> de::Deserializer<'de> for Strict {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(truth) => visitor.visit_bool(truth),
            Value::Datetime(moment) => visitor.visit_string(moment.to_string()),
            Value::Array(values) => visitor.visit_seq(Items { values: values.into_iter(), next: 0 }),
            Value::Table(table) => visitor.visit_map(Entries { entries: table.into_iter(), current: None }),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        if let Value::Table(table) = &self.0
            && let Some(key) = table.keys().find(|key| !fields.contains(&key.as_str()))
        {
            return Err(de::Error::unknown_field(key, fields));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let Value::String(word) = self.0 else {
            let problem = format_args!("a word is wanted, not {}", self.0.type_str());
            return Err(ConfigError::value("", problem));
        };
        let word: de::value::StringDeserializer<ConfigError> = word.into_deserializer();
        de::Deserializer::deserialize_enum(word, name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items {
    values: std::vec::IntoIter<Value>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ConfigError> {
        let Some(value) = self.values.next() else {
            return Ok(None);
        };
        let at = format!("[{}]", self.next);
        self.next += 1;
        seed.deserialize(Strict(value)).map(Some).map_err(|error| error.inside(&at))
    }
}

struct Entries {
    entries: toml::map::IntoIter<String, Value>,
    current: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        self.current = self.entries.next();
        let Some((key, _)) = &self.current else { return Ok(None) };
        seed.deserialize(key.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConfigError> {
        let (key, value) = self.current.take().expect("serde asks for a value after its key only");
        seed.deserialize(Strict(value)).map_err(|error| error.inside(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Board {
        name: String,
        #[serde(default)]
        broker: Broker,
        #[serde(default)]
        windows: Vec<Window>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Broker {
        host: String,
        port: u16,
        security: Security,
        ratio: Option<f64>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Security {
        #[default]
        Mutual,
        Plain,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Window {
        from: String,
    }

    fn refusal(text: &str) -> String {
        from_toml::<Board>(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_fitting_file_is_read() {
        let text = "name = 'b'\nwindows = [{ from = '22:00' }]\n[broker]\nport = 8883\nsecurity = 'plain'\nratio = 0.5";
        let board: Board = from_toml(text).expect("valid");
        let broker = Broker { host: String::new(), port: 8883, security: Security::Plain, ratio: Some(0.5) };
        let windows = vec![Window { from: "22:00".into() }];
        assert_eq!(board, Board { name: "b".into(), broker, windows });
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        assert_eq!(
            refusal("name = 'b'\n[broker]\nprot = 1"),
            "`broker.prot` is not a known key: did you mean `broker.port`?"
        );
        assert_eq!(refusal("nmae = 'b'"), "`nmae` is not a known key: did you mean `name`?");
        assert_eq!(
            refusal("name = 'b'\n[[windows]]\nfrom = 'x'\n[[windows]]\nform = 'x'"),
            "`windows[1].form` is not a known key: did you mean `windows[1].from`?"
        );
        assert_eq!(refusal("name = 'b'\nweather = 1"), "`weather` is not a known key");
    }

    #[test]
    fn a_value_that_does_not_fit_names_its_key() {
        assert_eq!(
            refusal("name = 'b'\n[broker]\nport = 'x'"),
            "`broker.port`: invalid type: string \"x\", expected u16"
        );
        assert_eq!(
            refusal("name = 'b'\n[broker]\nport = 70000"),
            "`broker.port`: invalid value: integer `70000`, expected u16"
        );
        assert_eq!(
            refusal("name = 'b'\n[broker]\nsecurity = 'plan'"),
            "`broker.security` cannot be \"plan\": did you mean `plain`?; possible: mutual, plain"
        );
        assert_eq!(refusal("name = 'b'\n[broker]\nsecurity = 3"), "`broker.security`: a word is wanted, not integer");
        assert_eq!(refusal("[broker]"), "`name` is missing");
        assert_eq!(refusal("name = 'b'\n[[windows]]"), "`windows[0].from` is missing");
        assert!(refusal("name = ").starts_with("not a TOML file: "));
    }

    #[test]
    fn edits_are_counted() {
        for (from, to, count) in [("", "abc", 3), ("port", "port", 0), ("prot", "port", 2), ("hots", "host", 2)] {
            assert_eq!(edits(from, to), count, "{from} {to}");
        }
    }

    proptest! {
        #[test]
        fn edits_are_a_distance(a in "[a-c]{0,6}", b in "[a-c]{0,6}", c in "[a-c]{0,6}") {
            prop_assert_eq!(edits(&a, &b), edits(&b, &a));
            prop_assert!(edits(&a, &c) <= edits(&a, &b) + edits(&b, &c));
            prop_assert_eq!(edits(&a, &b) == 0, a == b);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = from_toml::<Board>(&text);
        }
    }
}
