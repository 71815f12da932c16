//! How long requests are.
//!
//! *Place*: part of a workload; each lane draws from it once per request.
//! *Owner*: none; plain values. *Invariants*: a mix is never empty, its shares sum up to 100 %, every
//! size is a multiple of a block. *On failure*: [`SizesError`] names the part that is wrong.

use crate::limit::REQUEST_MAX;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::size::parse_size;
use ogee_proto::unit::ByteLen;
use std::fmt;
use std::str::FromStr;

/// The sizes of a workload's requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Of reads.
    pub read: SizeMix,
    /// Of writes.
    pub write: SizeMix,
}

/// Sizes and how often each is drawn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SizeMix {
    /// Each with the sum of its share and those before it, in percent.
    parts: Vec<(u32, ByteLen)>,
}

/// Why a description of sizes was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizesError {
    /// A size is out of range.
    #[error("request size {0} must be a multiple of 4096 bytes, at most 16 MiB")]
    Block(ByteLen),
    /// A part is not a size.
    #[error("\"{part}\": {cause}")]
    Size {
        /// As given.
        part: Box<str>,
        /// Of the size's parser.
        cause: ogee_proto::size::SizeError,
    },
    /// A share is not a percentage.
    #[error(
        "the share in \"{0}\" must be a whole number from 0 to 100: write it like 4k/70:64k/30"
    )]
    Share(Box<str>),
    /// The shares do not make a whole.
    #[error(
        "the shares in \"{text}\" sum up to {sum} %, not 100 %: \
         change one, or leave one out (4k/70:64k/) to give it the rest"
    )]
    Sum {
        /// As given.
        text: Box<str>,
        /// What they sum up to.
        sum: u32,
    },
    /// More than two lists.
    #[error("\"{0}\" has more than one comma: give sizes of reads, and of writes behind a comma")]
    Lists(Box<str>),
}

impl Sizes {
    /// All of one size.
    #[must_use]
    pub fn one(size: ByteLen) -> Self {
        let mix = SizeMix {
            parts: vec![(100, size)],
        };
        Self {
            read: mix.clone(),
            write: mix,
        }
    }

    /// The one size, if there is only one.
    #[must_use]
    pub fn single(&self) -> Option<ByteLen> {
        let mut all = self.all();
        let first = all.next()?;
        all.all(|size| size == first).then_some(first)
    }

    pub(crate) fn largest(&self) -> ByteLen {
        self.all().max().unwrap_or(ByteLen::ZERO)
    }

    /// Every size is a multiple of this one, and requests are aligned to it.
    pub(crate) fn unit(&self) -> ByteLen {
        ByteLen::new(self.all().map(ByteLen::get).fold(0, gcd))
    }

    pub(crate) fn check(&self) -> Result<(), SizesError> {
        self.all().try_for_each(|size| {
            let bytes = size.as_usize();
            let fits = bytes > 0 && bytes <= REQUEST_MAX && bytes.is_multiple_of(BLOCK_SIZE);
            if fits {
                Ok(())
            } else {
                Err(SizesError::Block(size))
            }
        })
    }

    fn all(&self) -> impl Iterator<Item = ByteLen> {
        let parts = self.read.parts.iter().chain(&self.write.parts);
        parts.map(|(_, size)| *size)
    }
}

impl SizeMix {
    /// The size that a draw from 0 to 99 stands for.
    pub(crate) fn at(&self, draw: u32) -> ByteLen {
        let part = self.parts.iter().find(|(below, _)| draw < *below);
        let (_, size) = part
            .or(self.parts.last())
            .expect("invariant: a mix is never empty");
        *size
    }

    /// Whether a draw is needed.
    pub(crate) fn is_mixed(&self) -> bool {
        self.parts.len() > 1
    }
}

/// As fio's `bssplit`: `4k/70:64k/30`, writes behind a comma, a share that is left out takes the rest.
impl FromStr for Sizes {
    type Err = SizesError;

    fn from_str(text: &str) -> Result<Self, SizesError> {
        let sizes = match text.split_once(',') {
            None => {
                let mix: SizeMix = text.parse()?;
                Self {
                    read: mix.clone(),
                    write: mix,
                }
            }
            Some((_, writes)) if writes.contains(',') => {
                return Err(SizesError::Lists(text.into()));
            }
            Some((reads, writes)) => Self {
                read: reads.parse()?,
                write: writes.parse()?,
            },
        };
        sizes.check()?;
        Ok(sizes)
    }
}

impl FromStr for SizeMix {
    type Err = SizesError;

    fn from_str(text: &str) -> Result<Self, SizesError> {
        let parts: Vec<_> = text.split(':').map(part).collect::<Result<_, _>>()?;
        let given: u32 = parts.iter().filter_map(|(_, share)| *share).sum();
        let open = u32::try_from(parts.iter().filter(|(_, share)| share.is_none()).count())
            .unwrap_or(u32::MAX);
        let is_whole = if open == 0 {
            given == 100
        } else {
            given <= 100
        };
        if !is_whole {
            return Err(SizesError::Sum {
                text: text.into(),
                sum: given,
            });
        }
        let (mut left, mut open, mut below) = (100 - given, open, 0);
        let cumulated = parts.into_iter().map(|(size, share)| {
            let share = share.unwrap_or_else(|| {
                let own = left / open.max(1);
                (left, open) = (left - own, open.saturating_sub(1));
                own
            });
            below += share;
            (below, size)
        });
        Ok(Self {
            parts: cumulated.collect(),
        })
    }
}

fn part(text: &str) -> Result<(ByteLen, Option<u32>), SizesError> {
    let (size, share) = text.split_once('/').unwrap_or((text, ""));
    let size = parse_size(size).map_err(|cause| SizesError::Size {
        part: text.into(),
        cause,
    })?;
    let share = match share.trim() {
        "" => None,
        digits => {
            let share = digits.parse().ok().filter(|share| *share <= 100);
            Some(share.ok_or_else(|| SizesError::Share(text.into()))?)
        }
    };
    Ok((size, share))
}

const fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(size) => write!(f, "{}", short(size)),
            None if self.read == self.write => write!(f, "{}", self.read),
            None => write!(f, "{},{}", self.read, self.write),
        }
    }
}

impl fmt::Display for SizeMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = 0;
        for (index, (below, size)) in self.parts.iter().enumerate() {
            let colon = if index > 0 { ":" } else { "" };
            write!(f, "{colon}{}/{}", short(*size), below - before)?;
            before = *below;
        }
        Ok(())
    }
}

/// As fio writes it: a parser's round trip.
fn short(size: ByteLen) -> String {
    match size.get() {
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 20) => format!("{}m", bytes >> 20),
        bytes if bytes > 0 && bytes.is_multiple_of(1 << 10) => format!("{}k", bytes >> 10),
        bytes => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: u64 = 1024;

    fn drawn(mix: &SizeMix) -> Vec<(u64, u32)> {
        let mut counts: Vec<(u64, u32)> = Vec::new();
        for draw in 0..100 {
            let size = mix.at(draw).get() / K;
            match counts.iter_mut().find(|(known, _)| *known == size) {
                Some((_, count)) => *count += 1,
                None => counts.push((size, 1)),
            }
        }
        counts
    }

    #[test]
    fn shares_are_drawn_as_given() {
        let sizes: Sizes = "4k/70:64k/30".parse().unwrap();
        assert_eq!(drawn(&sizes.read), [(4, 70), (64, 30)]);
        assert_eq!(sizes.read, sizes.write);
        let sizes: Sizes = "4k/50:16k/:64k/,1m".parse().unwrap();
        assert_eq!(drawn(&sizes.read), [(4, 50), (16, 25), (64, 25)]);
        assert_eq!(drawn(&sizes.write), [(1024, 100)]);
        let thirds: Sizes = "4k:8k:16k".parse().unwrap();
        assert_eq!(drawn(&thirds.read), [(4, 33), (8, 33), (16, 34)]);
    }

    #[test]
    fn a_description_survives_the_round_trip() {
        for text in ["4k", "4k/70:64k/30", "4k/10:1m/90", "4k/50:8k/50,16k/100"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str| text.parse::<Sizes>().unwrap_err();
        let sum = |sum| SizesError::Sum {
            text: "x".into(),
            sum,
        };
        for (text, due) in [
            ("4k/70:64k/20", 90),
            ("4k/70:64k/50", 120),
            ("4k/101:8k/1", 0),
        ] {
            match refused(text) {
                SizesError::Sum { sum: found, .. } => assert_eq!(found, due, "{text}"),
                SizesError::Share(part) => assert_eq!(&*part, "4k/101"),
                other => panic!("{text}: {other} instead of {}", sum(due)),
            }
        }
        assert!(matches!(refused("4k/x"), SizesError::Share(_)));
        assert!(matches!(refused("4q/50:8k/50"), SizesError::Size { .. }));
        assert!(matches!(refused(""), SizesError::Size { .. }));
        assert!(matches!(refused("5000"), SizesError::Block(_)));
        assert!(matches!(refused("32m"), SizesError::Block(_)));
        assert!(matches!(refused("4k,4k,4k"), SizesError::Lists(_)));
        assert!(refused("4k/70:64k/20").to_string().contains("90 %"));
    }

    #[test]
    fn the_unit_divides_every_size() {
        let unit = |text: &str| text.parse::<Sizes>().unwrap().unit().get() / K;
        assert_eq!(unit("64k"), 64);
        assert_eq!(unit("8k/50:12k/50"), 4);
        assert_eq!(unit("16k/100,64k/100"), 16);
    }
}
