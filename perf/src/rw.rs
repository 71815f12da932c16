//! Which requests a run makes, in which order.
//!
//! *Place*: part of a workload. *Owner*: none; a value. *Invariants*: the names are fio's.
//! *On failure*: [`RwParseError`] names the text.

use std::fmt;
use std::str::FromStr;

/// Which requests, in which order. The names are fio's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rw {
    /// Reads, front to back.
    Read,
    /// Writes, front to back.
    Write,
    /// Reads and writes, front to back.
    ReadWrite {
        /// Share of reads.
        read_percent: u8,
    },
    /// Reads at random places.
    RandRead,
    /// Writes at random places.
    RandWrite,
    /// Reads and writes at random places.
    RandRw {
        /// Share of reads.
        read_percent: u8,
    },
}

/// Share of reads of a mix that does not say.
const READ_PERCENT_DEFAULT: u8 = 70;

/// Not one of fio's names that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is none of read, write, rw, randread, randwrite, randrw, rw:PERCENT, randrw:PERCENT"
)]
pub struct RwParseError(Box<str>);

impl Rw {
    /// Whether places are drawn at random.
    pub(crate) const fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw { .. })
    }

    /// Whether anything is written.
    #[must_use]
    pub const fn writes(self) -> bool {
        self.read_percent() < 100
    }

    /// The same with another share of reads, if it mixes.
    #[must_use]
    pub const fn with_read_percent(self, read_percent: u8) -> Self {
        match self {
            Self::ReadWrite { .. } => Self::ReadWrite { read_percent },
            Self::RandRw { .. } => Self::RandRw { read_percent },
            other => other,
        }
    }

    /// Share of reads.
    pub(crate) const fn read_percent(self) -> u8 {
        match self {
            Self::Read | Self::RandRead => 100,
            Self::Write | Self::RandWrite => 0,
            Self::ReadWrite { read_percent } | Self::RandRw { read_percent } => read_percent,
        }
    }
}

impl fmt::Display for Rw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write => f.write_str("write"),
            Self::ReadWrite { read_percent } => write!(f, "rw:{read_percent}"),
            Self::RandRead => f.write_str("randread"),
            Self::RandWrite => f.write_str("randwrite"),
            Self::RandRw { read_percent } => write!(f, "randrw:{read_percent}"),
        }
    }
}

impl FromStr for Rw {
    type Err = RwParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || RwParseError(text.into());
        let (name, percent) = match text.split_once(':') {
            None => (text, None),
            Some((name, percent)) => {
                let percent = percent.parse().ok().filter(|percent| *percent <= 100);
                (name, Some(percent.ok_or_else(refused)?))
            }
        };
        let read_percent = percent.unwrap_or(READ_PERCENT_DEFAULT);
        match (name, percent) {
            ("read", None) => Ok(Self::Read),
            ("write", None) => Ok(Self::Write),
            ("randread", None) => Ok(Self::RandRead),
            ("randwrite", None) => Ok(Self::RandWrite),
            ("rw" | "readwrite", _) => Ok(Self::ReadWrite { read_percent }),
            ("randrw", _) => Ok(Self::RandRw { read_percent }),
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        for text in [
            "read",
            "write",
            "rw:30",
            "randread",
            "randwrite",
            "randrw:50",
            "randrw:0",
        ] {
            assert_eq!(text.parse::<Rw>().unwrap().to_string(), text);
        }
        assert_eq!("randrw".parse(), Ok(Rw::RandRw { read_percent: 70 }));
        for text in ["", "trim", "randrw:101", "randrw:", "read:50"] {
            assert!(text.parse::<Rw>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_mixes_take_another_share() {
        let with = |text: &str| {
            text.parse::<Rw>()
                .unwrap()
                .with_read_percent(40)
                .to_string()
        };
        assert_eq!(
            [with("randrw"), with("rw"), with("randread")],
            ["randrw:40", "rw:40", "randread"]
        );
    }
}
