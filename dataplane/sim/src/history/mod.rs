//! What clients did to blocks and what they saw, and whether a linearizable register explains it.
//!
//! *Place*: written by load generators and the simulator's clients; read by [`check`] and by the
//! `ogee-history` binary, as one JSON object a line.
//! *Owner*: plain data.
//! *Invariants*: times come from one clock that never goes back. Only their order matters: a
//! simulator whose clock stands still between events numbers the events instead. Operations that
//! touch (one ends when the other begins) count as concurrent.
//! *On failure*: see [`Violation`].

mod check;
mod violation;

pub use check::{Summary, check};
pub use violation::{Violation, ViolationKind};

use serde::{Deserialize, Serialize};

/// What a block holds that was never written.
pub const INITIAL: u64 = 0;

/// One operation of a client on one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who: for the reader of a report only. A client may have many operations under way.
    pub client: u32,
    /// Which block. Blocks are independent of each other.
    pub block: u64,
    /// Read or write.
    pub kind: OperationKind,
    /// What was written or read: unique among the writes of a block, and never [`INITIAL`] for a
    /// write. Discards write zeros, which is not unique: they are not modelled yet.
    pub value: u64,
    /// When the client asked.
    pub invoked_ns: u64,
    /// When it was told; none if it was told nothing, or that the outcome is unknown. Such a write
    /// may take effect at any time after it was invoked, or never; such a read says nothing.
    pub completed_ns: Option<u64>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Changes the block. Stands before the reads of its value.
    Write,
    /// Tells what it holds.
    Read,
}
