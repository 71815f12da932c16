//! What a host needs.
//!
//! *Place*: read by the checks. *Owner*: none, constants. *Invariants*: what is another crate's limit is taken
//! from there. *On failure*: none.

use ogee_runtime::limit;
use ogee_transport::RdmaOptions;
use ogee_transport::rdma::RdmaNeeds;

/// Version that io_uring needs (`ogee_runtime` refuses to start on an older one).
pub(crate) const KERNEL_MIN: (u32, u32) = (5, 11);
/// Locked memory that a development cluster needs, whose executors share a user's limit.
pub(crate) const MEMLOCK_WANTED: u64 = limit::MEMLOCK_BUDGET as u64;
pub(crate) const MEMLOCK_EXECUTORS: usize = limit::EXECUTORS_PER_BUDGET;
/// And what the limit must be for one executor, also for those whom it does not bind.
pub(crate) const MEMLOCK_MIN: u64 = limit::MEMLOCK_MIN as u64;
/// Descriptors of a chunkserver: its connections (4096 of a listener at most; a hundred is usual), rings, devices.
pub(crate) const OPEN_FILES_MIN: u64 = 1024;

/// Packet of RoCE that is worth having; 1500-byte Ethernet gives 1024.
pub(crate) const RDMA_MTU_WANTED: u32 = 4096;
/// Bytes of an Ethernet packet that RoCE v2 does not have for data: IP (v6), UDP, transport headers, checksum.
pub(crate) const RDMA_HEADERS: u32 = 76;

/// What a shard takes of an RDMA device, unless its configuration says otherwise.
pub(crate) fn rdma_needs() -> RdmaNeeds {
    RdmaOptions::default().needs()
}
