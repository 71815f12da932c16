//! Why a workload was refused or a run ended early.
//!
//! *Place*: the result of `run`. *Owner*: none. *Invariants*: names the first cause.
//! *On failure*: the command line prints it.

use crate::sizes::SizesError;
use crate::target::TargetError;
use ogee_proto::unit::{ByteLen, ByteOffset};
use std::time::Duration;

/// Why a workload cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// A request size is out of range.
    #[error(transparent)]
    Sizes(#[from] SizesError),
    /// Too many or no requests at a time.
    #[error(
        "{jobs} jobs of depth {iodepth} on {targets} target(s) must make 1 to 4096 requests at a time"
    )]
    Lanes {
        /// As asked.
        jobs: usize,
        /// As asked.
        iodepth: usize,
        /// As given.
        targets: usize,
    },
    /// Nothing to load.
    #[error("no target is given")]
    NoTarget,
    /// What was written where is remembered request by request.
    #[error("a verifying run needs one request size: give bs instead of bssplit")]
    VerifySizes,
    /// Two things would set the pace.
    #[error("an open loop (arrival_rate) sets the pace itself: leave rate and rate_iops out")]
    TwoPaces,
    /// The buffers would take too much memory.
    #[error("the buffers would take {0}: lower the request size or the depth")]
    Buffers(ByteLen),
    /// The range does not lie in the volume, or holds not even one request per lane.
    #[error(
        "the range of {len} at {start} does not fit: the target has {size}, and a request must fit in"
    )]
    Range {
        /// Its start.
        start: ByteOffset,
        /// Its length.
        len: ByteLen,
        /// The volume's size.
        size: ByteLen,
    },
    /// The range has fewer places than requests at a time.
    #[error("a range of {places} requests is too small for {lanes} at a time: lower the depth")]
    Crowded {
        /// Places of one request each.
        places: u64,
        /// Requests at a time.
        lanes: u64,
    },
    /// A verifying run would have to remember too much.
    #[error("{places} places are too many to verify: at most 16777216, so narrow the range")]
    VerifyPlaces {
        /// Places of one request each.
        places: u64,
    },
    /// The share of reads is no percentage.
    #[error("a share of {0} % reads must be from 0 to 100")]
    ReadPercent(u8),
}

/// Why a run ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PerfError {
    /// The workload cannot be run.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The target answered with an error.
    #[error("the request at {offset} failed")]
    Request {
        /// Where it went.
        offset: ByteOffset,
        /// The answer.
        #[source]
        cause: TargetError,
    },
    /// A read brought something else than was written.
    #[error("block at {offset} holds {found}, not write {expected} of this run")]
    Mismatch {
        /// The block.
        offset: ByteOffset,
        /// The number of the write whose bytes were due.
        expected: u64,
        /// What stood there.
        found: Found,
    },
    /// After the run was over no request ended for a minute, though some are under way.
    #[error("requests are still under way after the end of the run, and none has ended for {0:?}")]
    Stuck(Duration),
}

/// What stood in a block that should hold something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Zeros at the place of the stamp.
    Zeros,
    /// A stamp of another place, write or run.
    Stamp {
        /// The block that it was written for.
        block: u64,
        /// The number of the write.
        generation: u64,
        /// Whether it is of this run.
        this_run: bool,
    },
    /// The right stamp, and behind it bytes that were never written.
    Body,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Zeros => f.write_str("zeros"),
            Self::Stamp {
                block,
                generation,
                this_run,
            } => {
                let run = if *this_run { "this" } else { "another" };
                write!(f, "write {generation} of block {block} of {run} run")
            }
            Self::Body => f.write_str("damaged bytes behind the right stamp"),
        }
    }
}
