//! Names that users give: volumes, directories, pools, zones, servers.
//!
//! The rule is narrow on purpose: a name is also a path component, a metric label, an NBD export
//! and a word on a command line, and must need quoting in none of them. Volumes may be in directories:
//! what they are called is a path of such names.

use crate::limit::{NAME_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX};
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
    /// A part of a path is no name.
    #[error("path \"{path}\" cannot be used, because of its part {number}: {part}")]
    Part {
        /// As given.
        path: Box<str>,
        /// Which part, counted from 1.
        number: usize,
        /// What is wrong with it.
        part: Box<NameError>,
    },
    /// Longer than [`PATH_LEN_MAX`].
    #[error("path \"{path}\" has {len} bytes: at most {PATH_LEN_MAX} are allowed")]
    PathTooLong {
        /// As given, cut to what an error line can hold.
        path: Box<str>,
        /// Its length in bytes.
        len: usize,
    },
    /// More parts than [`PATH_DEPTH_MAX`].
    #[error("path \"{path}\" has {depth} parts: at most {PATH_DEPTH_MAX} are allowed")]
    TooDeep {
        /// As given.
        path: Box<str>,
        /// How many it has.
        depth: usize,
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

/// What a volume or a directory is called: up to [`PATH_DEPTH_MAX`] names with `/` between them, the last one its own,
/// those before it the directories that it is in. A single name is a path, too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathName(Box<str>);

impl PathName {
    /// Checks and wraps a path.
    ///
    /// # Errors
    /// [`NameError`] that names the bad part and the rule.
    pub fn new(path: &str) -> Result<Self, NameError> {
        if !path.contains('/') {
            return Name::new(path).map(Self::from);
        }
        if path.len() > PATH_LEN_MAX {
            return Err(NameError::PathTooLong {
                path: shorten(path),
                len: path.len(),
            });
        }
        let depth = path.split('/').count();
        if depth > PATH_DEPTH_MAX {
            return Err(NameError::TooDeep {
                path: path.into(),
                depth,
            });
        }
        for (number, part) in (1..).zip(path.split('/')) {
            Name::new(part).map_err(|error| NameError::Part {
                path: path.into(),
                number,
                part: Box::new(error),
            })?;
        }
        Ok(Self(path.into()))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that it is in; none: at the top.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }

    /// The directories that it is in, the innermost first.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        let above = self.parent();
        std::iter::successors(above, |path| Some(path.rsplit_once('/')?.0))
    }

    /// Whether it is that directory, or in it at any depth.
    #[must_use]
    pub fn is_within(&self, directory: &str) -> bool {
        let rest = self.0.strip_prefix(directory);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What it is called when the directory `from`, in which it is, is called `to`.
    ///
    /// # Errors
    /// It would be too long or too deep.
    ///
    /// # Panics
    /// If it is not [within](Self::is_within) `from`.
    pub fn moved(&self, from: &Self, to: &Self) -> Result<Self, NameError> {
        assert!(self.is_within(&from.0), "{self} is not in {from}");
        let (_, rest) = self.0.split_at(from.0.len());
        Self::new(&format!("{to}{rest}"))
    }

    /// The same as the name of a file, a socket or a lock: `@` stands for `/`. No name has one, so two paths never
    /// share a file.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.0.replace('/', "@")
    }
}

impl From<Name> for PathName {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

/// What both kinds of text have in common.
macro_rules! text {
    ($of:ident) => {
        impl fmt::Display for $of {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $of {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $of {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// Lets a map keyed by them be asked with a plain `&str`.
        impl std::borrow::Borrow<str> for $of {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $of {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $of {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$of> for String {
            fn from(text: $of) -> Self {
                text.0.into()
            }
        }
    };
}

text!(Name);
text!(PathName);

#[cfg(test)]
mod tests {
    use super::{Name, NameError, PathName};
    use crate::limit::{NAME_LEN_MAX, PATH_LEN_MAX};
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

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

        /// What is no path in the one way is none in the other.
        #[test]
        fn a_path_is_names_with_slashes_between_them(path in "[a-z0-9._A/-]{0,40}") {
            let is_path = path.split('/').count() <= 8 && path.split('/').all(|part| Name::new(part).is_ok());
            prop_assert_eq!(PathName::new(&path).is_ok(), is_path);
        }

        #[test]
        fn paths_and_their_files_are_told_apart(one in "[ab/.]{1,9}", other in "[ab/.]{1,9}") {
            if let (Ok(one), Ok(other)) = (PathName::new(&one), PathName::new(&other)) {
                prop_assert_eq!(one.file_name() == other.file_name(), one == other);
                prop_assert!(!one.file_name().contains('/'));
            }
        }
    }

    fn path(text: &str) -> PathName {
        PathName::new(text).expect("a path")
    }

    #[test]
    fn a_path_knows_where_it_is() {
        let volume = path("team/web/db-1");
        assert_eq!(volume.parent(), Some("team/web"));
        assert_eq!(volume.ancestors().collect::<Vec<_>>(), ["team/web", "team"]);
        assert_eq!(path("db").ancestors().count(), 0);
        assert!(volume.is_within("team") && volume.is_within("team/web/db-1"));
        assert!(
            !volume.is_within("tea") && !volume.is_within("team/we") && !volume.is_within("db-1")
        );
        let moved = volume.moved(&path("team"), &path("old/team2"));
        assert_eq!(moved, Ok(path("old/team2/web/db-1")));
        assert_eq!(volume.moved(&volume, &path("x")), Ok(path("x")));
        assert_eq!(volume.file_name(), "team@web@db-1");
        assert_eq!(path("db-1").file_name(), "db-1");
    }

    #[test]
    fn the_bad_part_of_a_path_is_named() {
        let said = |text: &str| PathName::new(text).expect_err(text).to_string();
        let part = said("team/Web/db");
        assert!(
            part.contains("\"team/Web/db\"") && part.contains("part 2"),
            "{part}"
        );
        assert!(part.contains("name \"Web\" starts with 'W'"), "{part}");
        for (text, number) in [("/db", 1), ("team//db", 2), ("team/", 2), ("a/b/../c", 3)] {
            assert!(said(text).contains(&format!("part {number}")), "{text}");
        }
        let deep = said("a/b/c/d/e/f/g/h/i");
        assert!(deep.contains("9 parts: at most 8"), "{deep}");
        let long = said(&["x".repeat(63).as_str(); 4].join("/"));
        assert!(long.contains("255 bytes: at most 200"), "{long}");
        assert!(
            PathName::new(&format!("{0}/{0}/{0}/x", "x".repeat(63)))
                .is_ok_and(|it| it.as_str().len() <= PATH_LEN_MAX)
        );
        // Without a slash it is a name, and refused as one.
        assert_eq!(
            PathName::new("Db").unwrap_err(),
            Name::new("Db").unwrap_err()
        );
    }

    #[test]
    fn a_moved_path_stays_within_the_bounds() {
        let deep = path("a/b/c/d/e/f/g");
        assert!(deep.moved(&path("a"), &path("x/y")).is_ok());
        let refused = deep.moved(&path("a"), &path("x/y/z"));
        assert!(matches!(refused, Err(NameError::TooDeep { depth: 9, .. })));
    }
}
