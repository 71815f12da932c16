//! What a user is told when something fails: a code, what, the cause, and what to try.
//!
//! *Place*: travels as the message of a gRPC status from the metadata server to the CLI and the
//! client, and is printed by both.
//! *Owner*: plain values.
//! *Invariants*: `parse(fault.to_string())` gives the same fault back, since the separator
//! cannot occur inside a part.
//! *On failure*: a text that is not a fault parses to `None`, and is shown as it is.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// gRPC metadata key by which a metadata server that does not lead names the one that does.
pub const MDS_LEADER_METADATA: &str = "ogee-mds-leader";

const PREFIX: &str = "OGEE-";
const CAUSE: &str = " | because: ";
const REMEDY: &str = " | try: ";

/// An error and its sources, outermost first: the cause of a [`Fault`].
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

/// A failure in the user's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    code: Cow<'static, str>,
    what: String,
    cause: String,
    remedy: String,
}

impl Fault {
    /// Builds a fault. `cause` and `remedy` may be empty.
    #[must_use]
    pub fn new(code: &'static str, what: &str, cause: &str, remedy: &str) -> Self {
        Self {
            code: Cow::Borrowed(code),
            what: clean(what),
            cause: clean(cause),
            remedy: clean(remedy),
        }
    }

    /// Reads a fault back from its one-line form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (code, rest) = text.split_once(": ")?;
        let digits = code.strip_prefix(PREFIX)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let (rest, remedy) = rest.split_once(REMEDY).unwrap_or((rest, ""));
        let (what, cause) = rest.split_once(CAUSE).unwrap_or((rest, ""));
        Some(Self {
            code: Cow::Owned(code.to_owned()),
            what: what.to_owned(),
            cause: cause.to_owned(),
            remedy: remedy.to_owned(),
        })
    }

    /// Stable code, such as `OGEE-2003`: `ogee explain` takes it.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What could not be done.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Why; empty when `what` says it all.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// What to try next; empty when there is nothing to do.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)?;
        if !self.cause.is_empty() {
            write!(f, "{CAUSE}{}", self.cause)?;
        }
        if !self.remedy.is_empty() {
            write!(f, "{REMEDY}{}", self.remedy)?;
        }
        Ok(())
    }
}

impl Error for Fault {}

/// A bar or a line break inside a part would be read as a separator.
fn clean(part: &str) -> String {
    part.chars()
        .map(|c| match c {
            '|' => '/',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_read_back() {
        let fault = Fault::new(
            "OGEE-2003",
            "no volume \"a\"",
            "never made",
            "ogee volume list",
        );
        let text = fault.to_string();
        assert_eq!(
            text,
            "OGEE-2003: no volume \"a\" | because: never made | try: ogee volume list"
        );
        assert_eq!(Fault::parse(&text), Some(fault));
    }

    #[test]
    fn other_texts_are_not_faults() {
        for text in ["", "transport error", "OGEE-: x", "OGEE-12a: x", "BLK-1: x"] {
            assert_eq!(Fault::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_parts_survive(what in ".{0,40}", cause in ".{0,40}", remedy in ".{0,40}") {
            let fault = Fault::new("OGEE-2999", &what, &cause, &remedy);
            prop_assert_eq!(Fault::parse(&fault.to_string()), Some(fault));
        }
    }
}
