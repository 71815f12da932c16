//! What to do to a volume.
//!
//! *Place*: from the command line into `run`, by way of [`Plan`].
//! *Owner*: none; plain values.
//! *Invariants*: a plan that exists fits the volume and every limit.
//! *On failure*: [`WorkloadError`] names what does not fit.

use crate::error::WorkloadError;
use crate::limit::{BUFFERS_MAX, LANES_MAX, REQUEST_MAX, VERIFY_SLOTS_MAX};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// Which requests, in which order. The names are fio's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rw {
    /// Reads, front to back.
    Read,
    /// Writes, front to back.
    Write,
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

/// Not one of fio's names that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is none of read, write, randread, randwrite, randrw, randrw:PERCENT")]
pub struct RwParseError(Box<str>);

/// When a run is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// After a time.
    Runtime(Duration),
    /// After so many bytes, over all jobs.
    Bytes(ByteLen),
}

/// Load on one volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Stands in the report as `jobname`.
    pub name: String,
    /// Which requests.
    pub rw: Rw,
    /// Bytes of each.
    pub block: ByteLen,
    /// Requests at a time of each job.
    pub iodepth: usize,
    /// Jobs; sequential ones share the range out among them.
    pub jobs: usize,
    /// When it is over.
    pub stop: Stop,
    /// Time at the front that does not count.
    pub ramp: Duration,
    /// Requests per second of all jobs together, at most.
    pub rate: Option<NonZeroU32>,
    /// Where the range starts.
    pub start: ByteOffset,
    /// How long it is; none: to the end of the volume.
    pub span: Option<ByteLen>,
    /// Of the addresses.
    pub seed: u64,
    /// Check every read against what this run wrote, and read all of that back at the end.
    pub verify: bool,
}

/// A workload that fits its volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Where the range starts.
    pub(crate) start: ByteOffset,
    /// Bytes of a request.
    pub(crate) block: ByteLen,
    /// Places of one request each.
    pub(crate) places: u64,
}

impl Default for Workload {
    /// fio's defaults where it has any: 4 KiB random reads, one at a time, for ten seconds.
    fn default() -> Self {
        Self {
            name: "ogee-bench".to_owned(),
            rw: Rw::RandRead,
            block: ByteLen::from_usize(BLOCK_SIZE),
            iodepth: 1,
            jobs: 1,
            stop: Stop::Runtime(Duration::from_secs(10)),
            ramp: Duration::ZERO,
            rate: None,
            start: ByteOffset::ZERO,
            span: None,
            seed: 1,
            verify: false,
        }
    }
}

impl Workload {
    /// Fits the workload to a volume of `size`.
    pub(crate) fn plan(&self, size: ByteLen) -> Result<Plan, WorkloadError> {
        self.check_shape()?;
        let rest = ByteLen::new(size.get().saturating_sub(self.start.get()));
        let len = self.span.unwrap_or(rest);
        let fits = self.start.is_multiple_of(BLOCK_SIZE) && len <= rest && len >= self.block;
        if !fits {
            return Err(WorkloadError::Range {
                start: self.start,
                len,
                size,
            });
        }
        let (places, lanes) = (len.get() / self.block.get(), self.lanes() as u64);
        if places < lanes {
            return Err(WorkloadError::Crowded { places, lanes });
        }
        if self.verify && places > VERIFY_SLOTS_MAX {
            return Err(WorkloadError::VerifyPlaces { places });
        }
        Ok(Plan {
            start: self.start,
            block: self.block,
            places,
        })
    }

    /// Requests at a time.
    pub(crate) const fn lanes(&self) -> usize {
        self.jobs.saturating_mul(self.iodepth)
    }

    fn check_shape(&self) -> Result<(), WorkloadError> {
        let block = self.block.as_usize();
        if block == 0 || block > REQUEST_MAX || !block.is_multiple_of(BLOCK_SIZE) {
            return Err(WorkloadError::Block(self.block));
        }
        if !(1..=LANES_MAX).contains(&self.lanes()) {
            return Err(WorkloadError::Lanes {
                jobs: self.jobs,
                iodepth: self.iodepth,
            });
        }
        let buffers = self.lanes().saturating_mul(block);
        if buffers > BUFFERS_MAX {
            return Err(WorkloadError::Buffers(ByteLen::from_usize(buffers)));
        }
        match self.rw.read_percent() {
            percent if percent > 100 => Err(WorkloadError::ReadPercent(percent)),
            _ => Ok(()),
        }
    }
}

impl Rw {
    /// Whether places are drawn at random.
    pub(crate) const fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw { .. })
    }

    /// Share of reads.
    pub(crate) const fn read_percent(self) -> u8 {
        match self {
            Self::Read | Self::RandRead => 100,
            Self::Write | Self::RandWrite => 0,
            Self::RandRw { read_percent } => read_percent,
        }
    }
}

impl fmt::Display for Rw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Write => f.write_str("write"),
            Self::RandRead => f.write_str("randread"),
            Self::RandWrite => f.write_str("randwrite"),
            Self::RandRw { read_percent } => write!(f, "randrw:{read_percent}"),
        }
    }
}

impl FromStr for Rw {
    type Err = RwParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mix = |percent: &str| percent.parse().ok().filter(|percent| *percent <= 100);
        let parsed = match text.split_once(':') {
            None => match text {
                "read" => Some(Self::Read),
                "write" => Some(Self::Write),
                "randread" => Some(Self::RandRead),
                "randwrite" => Some(Self::RandWrite),
                "randrw" => Some(Self::RandRw { read_percent: 50 }),
                _ => None,
            },
            Some(("randrw", percent)) => {
                mix(percent).map(|read_percent| Self::RandRw { read_percent })
            }
            Some(_) => None,
        };
        parsed.ok_or_else(|| RwParseError(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ByteLen = ByteLen::new(64 << 20);

    fn refused(change: impl FnOnce(&mut Workload)) -> WorkloadError {
        let mut workload = Workload::default();
        change(&mut workload);
        workload.plan(SIZE).unwrap_err()
    }

    #[test]
    fn names_and_back() {
        for text in [
            "read",
            "write",
            "randread",
            "randwrite",
            "randrw:50",
            "randrw:0",
        ] {
            assert_eq!(text.parse::<Rw>().unwrap().to_string(), text);
        }
        assert_eq!("randrw".parse(), Ok(Rw::RandRw { read_percent: 50 }));
        for text in ["", "trim", "randrw:101", "randrw:", "read:50"] {
            assert!(text.parse::<Rw>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_whole_volume_is_the_default_range() {
        let plan = Workload::default().plan(SIZE).unwrap();
        assert_eq!(plan.places, SIZE.get() / 4096);
        let ranged = Workload {
            start: ByteOffset::new(1 << 20),
            span: Some(ByteLen::new(1 << 20)),
            ..Workload::default()
        };
        assert_eq!(ranged.plan(SIZE).unwrap().places, 256);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(matches!(
            refused(|w| w.block = ByteLen::new(5000)),
            WorkloadError::Block(_)
        ));
        assert!(matches!(
            refused(|w| w.block = ByteLen::ZERO),
            WorkloadError::Block(_)
        ));
        assert!(matches!(
            refused(|w| w.iodepth = 0),
            WorkloadError::Lanes { .. }
        ));
        assert!(matches!(
            refused(|w| w.jobs = 5000),
            WorkloadError::Lanes { .. }
        ));
        let big = refused(|w| {
            w.block = ByteLen::new(16 << 20);
            w.iodepth = 512;
        });
        assert!(matches!(big, WorkloadError::Buffers(_)));
        let outside = refused(|w| w.start = ByteOffset::new(SIZE.get()));
        assert!(matches!(outside, WorkloadError::Range { .. }));
        let crowded = refused(|w| {
            w.span = Some(ByteLen::new(8192));
            w.iodepth = 3;
        });
        assert_eq!(
            crowded,
            WorkloadError::Crowded {
                places: 2,
                lanes: 3
            }
        );
        let mix = refused(|w| w.rw = Rw::RandRw { read_percent: 101 });
        assert_eq!(mix, WorkloadError::ReadPercent(101));
    }
}
