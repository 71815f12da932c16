//! Names that users give: volumes, pools, zones, servers.
//!
//! The rule is narrow on purpose: a name is also a path component, a metric label, an NBD export
//! and a word on a command line, and must need quoting in none of them.

use crate::limit::NAME_LEN_MAX;
use std::fmt;
use std::str::FromStr;

/// A valid name: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Box<str>);

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name may not be empty: use 1 to {NAME_LEN_MAX} of a-z, 0-9, '.', '_' and '-'")]
    Empty,
    /// Longer than [`NAME_LEN_MAX`].
    #[error("name \"{name}\" has {len} bytes: at most {NAME_LEN_MAX} are allowed")]
    TooLong {
        /// As given, cut to what an error line can hold.
        name: Box<str>,
        /// Its length in bytes.
        len: usize,
    },
    /// The first character is not a letter or a digit.
    #[error("name \"{name}\" starts with {found:?}: a name must start with one of a-z or 0-9")]
    First {
        /// As given.
        name: Box<str>,
        /// The character refused.
        found: char,
    },
    /// A later character is outside the set.
    #[error(
        "name \"{name}\" has {found:?} at byte {at}: \
         only a-z, 0-9, '.', '_' and '-' are allowed"
    )]
    Character {
        /// As given.
        name: Box<str>,
        /// The character refused.
        found: char,
        /// Where it stands, in bytes from the start.
        at: usize,
    },
}

impl Name {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`NameError`] that names the bad character and the rule.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.len() > NAME_LEN_MAX {
            return Err(NameError::TooLong {
                name: shorten(name),
                len: name.len(),
            });
        }
        let first = name.chars().next().ok_or(NameError::Empty)?;
        if !is_start(first) {
            return Err(NameError::First {
                name: name.into(),
                found: first,
            });
        }
        match name.char_indices().find(|(_, c)| !is_inner(*c)) {
            Some((at, found)) => Err(NameError::Character {
                name: name.into(),
                found,
                at,
            }),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_start(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

const fn is_inner(c: char) -> bool {
    is_start(c) || matches!(c, '.' | '_' | '-')
}

/// The front of an overlong name: enough to recognise it by.
fn shorten(name: &str) -> Box<str> {
    let front: String = name.chars().take(NAME_LEN_MAX).collect();
    format!("{front}…").into()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Lets a map keyed by names be asked with a plain `&str`.
impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(&name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, NameError};
    use crate::limit::NAME_LEN_MAX;
    use proptest::prelude::{prop_assert_eq, proptest};

    #[test]
    fn plain_names_are_taken() {
        for name in [
            "a",
            "0",
            "db-1",
            "zone.a",
            "vm_01.disk-0",
            &"x".repeat(NAME_LEN_MAX),
        ] {
            assert_eq!(Name::new(name).expect("valid").as_str(), name);
        }
    }

    #[test]
    fn empty_and_overlong_are_refused() {
        assert_eq!(Name::new(""), Err(NameError::Empty));
        let long = "x".repeat(NAME_LEN_MAX + 1);
        let error = Name::new(&long).expect_err("too long");
        assert!(
            matches!(error, NameError::TooLong { len: 64, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("at most 63"), "{error}");
    }

    #[test]
    fn the_bad_character_and_the_rule_are_named() {
        let first = Name::new("-db").expect_err("bad first");
        assert_eq!(
            first.to_string(),
            "name \"-db\" starts with '-': a name must start with one of a-z or 0-9"
        );
        let inner = Name::new("db/1").expect_err("bad inner");
        assert_eq!(
            inner,
            NameError::Character {
                name: "db/1".into(),
                found: '/',
                at: 2
            }
        );
        assert!(inner.to_string().contains("only a-z, 0-9"), "{inner}");
    }

    #[test]
    fn upper_case_space_and_other_scripts_are_refused() {
        for name in ["Db", "dB", "a b", "a\n", "ä", "aä", "a\0"] {
            Name::new(name).expect_err(name);
        }
    }

    proptest! {
        /// The check agrees with the rule as the documentation words it.
        #[test]
        fn agrees_with_the_documented_rule(name in "[a-z0-9._A/ -]{0,70}") {
            let start = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            let inner = |c: char| start(c) || "._-".contains(c);
            let valid = (1..=63).contains(&name.len())
                && name.starts_with(start)
                && name.chars().all(inner);
            prop_assert_eq!(Name::new(&name).is_ok(), valid);
        }
    }
}
