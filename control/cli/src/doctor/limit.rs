//! What a host needs.
//!
//! *Place*: read by the checks. *Owner*: none, constants. *Invariants*: what is another crate's limit is taken
//! from there. *On failure*: none.

use ogee_runtime::limit;

/// Version that io_uring needs (`ogee_runtime` refuses to start on an older one).
pub(crate) const KERNEL_MIN: (u32, u32) = (5, 11);
/// Locked memory that a development cluster needs, whose executors share a user's limit.
pub(crate) const MEMLOCK_WANTED: u64 = limit::MEMLOCK_BUDGET as u64;
pub(crate) const MEMLOCK_EXECUTORS: usize = limit::EXECUTORS_PER_BUDGET;
/// And what the limit must be for one executor, also for those whom it does not bind.
pub(crate) const MEMLOCK_MIN: u64 = limit::MEMLOCK_MIN as u64;
/// Descriptors of a chunkserver: its connections (4096 of a listener at most; a hundred is usual), rings, devices.
pub(crate) const OPEN_FILES_MIN: u64 = 1024;

/// Memory that a shard registers for RDMA: all requests that it holds at a time (16 MiB that it works on and
/// 112 MiB that wait, `ogee_shard::limit`), and as much of its peers' as one connection may send.
pub(crate) const RDMA_REGISTERED_PER_SHARD: u64 = 136 << 20;
/// Packet of RoCE that is worth having; 1500-byte Ethernet gives 1024.
pub(crate) const RDMA_MTU_WANTED: u32 = 4096;
/// Bytes of an Ethernet packet that RoCE v2 does not have for data: IP (v6), UDP, transport headers, checksum.
pub(crate) const RDMA_HEADERS: u32 = 76;

/// What a shard takes of a device.
#[cfg(feature = "rdma")]
pub(crate) mod per_shard {
    /// Connections: one of each client and each other shard.
    pub(crate) const PAIRS: u32 = 1024;
    /// Work requests of one connection.
    pub(crate) const PAIR_DEPTH: u32 = 64;
    /// Receive buffers of the shared queue: 4 of each connection at least.
    pub(crate) const RECEIVES: u32 = 4096;
    /// Entries of the completion queue: the receives, and as many sends.
    pub(crate) const COMPLETIONS: u32 = 2 * RECEIVES;
    /// RDMA READs under way towards one connection.
    pub(crate) const READS: u32 = 1;
    /// Memory windows: requests that carry a key.
    pub(crate) const WINDOWS: u32 = 1024;
    /// Pieces of one send or receive: head and payload.
    pub(crate) const PARTS: u32 = 2;
}
