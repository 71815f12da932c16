//! Options: what a client asks during negotiation.
//!
//! *Place*: decoded from the wire, answered by `handshake`. *Owner*: none, values that borrow the
//! option's data. *Invariants*: strings are UTF-8 and within the specification's limit; every byte
//! of the data is accounted for. *On failure*: [`Malformed`], to be answered with its own code.

use super::error::ConnectionError;
use super::fields::{Fields, Truncated};
use super::wire::{OPTION_HEAD_LEN, OPTION_MAGIC, option, option_reply};
use crate::limit::STRING_LEN_MAX;

/// The fixed part of an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OptionHead {
    pub(super) code: u32,
    pub(super) len: u32,
}

impl OptionHead {
    pub(super) fn decode(raw: [u8; OPTION_HEAD_LEN]) -> Result<Self, ConnectionError> {
        let mut fields = Fields::new(&raw);
        let mut decode = || Ok((fields.u64()?, fields.u32()?, fields.u32()?));
        let (found, code, len) = decode().map_err(|Truncated| ConnectionError::Truncated)?;
        match found == OPTION_MAGIC {
            true => Ok(Self { code, len }),
            false => Err(ConnectionError::OptionMagic { found }),
        }
    }
}

/// Why an option's data cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the option's data is shorter than its fields")]
    Short,
    #[error("the option's data is longer than its fields")]
    Long,
    #[error("a string is longer than {STRING_LEN_MAX} bytes")]
    StringLen,
    #[error("a string is not UTF-8")]
    Encoding,
    #[error("a query does not name a namespace")]
    Namespace,
}

impl Malformed {
    /// The reply that says so.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::StringLen => option_reply::ERR_TOO_BIG,
            _ => option_reply::ERR_INVALID,
        }
    }
}

impl From<Truncated> for Malformed {
    fn from(Truncated: Truncated) -> Self {
        Self::Short
    }
}

/// An option that this server knows.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Ask<'a> {
    ExportName(&'a str),
    Abort,
    List,
    StructuredReply,
    /// `INFO` and, if it is to start the transmission, `GO`.
    Describe {
        name: &'a str,
        infos: Vec<u16>,
        is_go: bool,
    },
    /// `LIST_META_CONTEXT` and, if it is to choose, `SET_META_CONTEXT`.
    Contexts {
        name: &'a str,
        queries: Vec<&'a str>,
        is_set: bool,
    },
    /// Any other, TLS included.
    Unknown,
}

impl<'a> Ask<'a> {
    pub(super) fn decode(code: u32, data: &'a [u8]) -> Result<Self, Malformed> {
        match code {
            option::EXPORT_NAME => text(data).map(Self::ExportName),
            // Data with it is to be ignored.
            option::ABORT => Ok(Self::Abort),
            option::LIST => empty(data).map(|()| Self::List),
            option::STRUCTURED_REPLY => empty(data).map(|()| Self::StructuredReply),
            option::INFO => describe(data, false),
            option::GO => describe(data, true),
            option::LIST_META_CONTEXT => contexts(data, false),
            option::SET_META_CONTEXT => contexts(data, true),
            // TLS as a whole is not supported, for which the specification names this answer too.
            option::STARTTLS => Ok(Self::Unknown),
            _ => Ok(Self::Unknown),
        }
    }
}

fn describe(data: &[u8], is_go: bool) -> Result<Ask<'_>, Malformed> {
    let mut fields = Fields::new(data);
    let name = text(fields.counted()?)?;
    let count = fields.u16()?;
    // As long as the data at most, since a missing field ends it.
    let infos = (0..count).map(|_| fields.u16());
    let infos = infos.collect::<Result<Vec<_>, _>>()?;
    ended(&fields)?;
    Ok(Ask::Describe { name, infos, is_go })
}

fn contexts(data: &[u8], is_set: bool) -> Result<Ask<'_>, Malformed> {
    let mut fields = Fields::new(data);
    let name = text(fields.counted()?)?;
    let count = fields.u32()?;
    // As long as the data at most, since a missing field ends it.
    let queries = (0..count).map(|_| query(&mut fields));
    let queries = queries.collect::<Result<Vec<_>, _>>()?;
    ended(&fields)?;
    Ok(Ask::Contexts {
        name,
        queries,
        is_set,
    })
}

fn query<'a>(fields: &mut Fields<'a>) -> Result<&'a str, Malformed> {
    let query = text(fields.counted()?)?;
    match query.split_once(':') {
        Some((namespace, _)) if !namespace.is_empty() => Ok(query),
        _ => Err(Malformed::Namespace),
    }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    if bytes.len() > STRING_LEN_MAX {
        return Err(Malformed::StringLen);
    }
    str::from_utf8(bytes).map_err(|_| Malformed::Encoding)
}

fn empty(data: &[u8]) -> Result<(), Malformed> {
    ended(&Fields::new(data))
}

fn ended(fields: &Fields<'_>) -> Result<(), Malformed> {
    match fields.is_empty() {
        true => Ok(()),
        false => Err(Malformed::Long),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(text: &str) -> Vec<u8> {
        let len = u32::try_from(text.len()).expect("short");
        [&len.to_be_bytes(), text.as_bytes()].concat()
    }

    #[test]
    fn go_names_an_export_and_infos() {
        let data = [counted("disk"), vec![0, 2, 0, 3, 0, 1]].concat();
        let ask = Ask::decode(option::GO, &data);
        let expected = Ask::Describe {
            name: "disk",
            infos: vec![3, 1],
            is_go: true,
        };
        assert_eq!(ask, Ok(expected));
    }

    #[test]
    fn lengths_must_fit_exactly() {
        let data = [counted("disk"), vec![0, 2, 0, 3]].concat();
        assert_eq!(Ask::decode(option::GO, &data), Err(Malformed::Short));
        let data = [counted("disk"), vec![0, 0, 9]].concat();
        assert_eq!(Ask::decode(option::INFO, &data), Err(Malformed::Long));
        let data = [0xff, 0xff, 0xff, 0xff, b'x'];
        assert_eq!(Ask::decode(option::GO, &data), Err(Malformed::Short));
        assert_eq!(Ask::decode(option::LIST, &[0]), Err(Malformed::Long));
        let count_without_queries = [counted("disk"), vec![0xff; 4]].concat();
        let ask = Ask::decode(option::SET_META_CONTEXT, &count_without_queries);
        assert_eq!(ask, Err(Malformed::Short));
    }

    #[test]
    fn strings_are_short_utf8_and_queries_name_a_namespace() {
        let long = "x".repeat(STRING_LEN_MAX + 1);
        let ask = Ask::decode(option::EXPORT_NAME, long.as_bytes());
        assert_eq!(ask, Err(Malformed::StringLen));
        let ask = Ask::decode(option::EXPORT_NAME, &[0xff, 0xfe]);
        assert_eq!(ask, Err(Malformed::Encoding));
        for query in ["base", ":leaf", ""] {
            let data = [counted("disk"), vec![0, 0, 0, 1], counted(query)].concat();
            let ask = Ask::decode(option::SET_META_CONTEXT, &data);
            assert_eq!(ask, Err(Malformed::Namespace), "{query}");
        }
    }
}
