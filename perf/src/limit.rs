//! Every limit of this crate.
//!
//! *Place*: read by every module. *Owner*: none. *Invariants*: asserted. *On failure*: a workload
//! past a limit is refused before anything is sent.

use ogee_proto::limit::BLOCK_SIZE;
use std::time::Duration;

/// Largest request: a client splits it, so this only bounds our buffers.
pub(crate) const REQUEST_MAX: usize = 16 << 20;
/// Requests under way: buffers of this many lanes exist.
pub(crate) const LANES_MAX: usize = 4096;
/// Bytes of all lanes' buffers.
pub(crate) const BUFFERS_MAX: usize = 4 << 30;
/// Places whose contents a verifying run remembers: 17 bytes each, so 272 MiB.
pub(crate) const VERIFY_SLOTS_MAX: u64 = 16 << 20;
/// Longest latency that is told apart from longer ones.
pub(crate) const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Significant digits of a latency.
pub(crate) const LATENCY_DIGITS: u8 = 3;
/// How often progress is told.
pub(crate) const PROGRESS_PERIOD: Duration = Duration::from_secs(1);
/// How long an open-loop run goes on past its end to send what was due before it.
pub(crate) const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// How long a run waits, once its time is over, for the next of its last requests to end.
pub(crate) const STRAGGLER_WAIT: Duration = Duration::from_secs(60);
/// Bytes at the front of each block that say where and when it was written.
pub(crate) const STAMP_LEN: usize = 32;

const _: () = assert!(STAMP_LEN <= BLOCK_SIZE);
const _: () = assert!(REQUEST_MAX.is_multiple_of(BLOCK_SIZE));
