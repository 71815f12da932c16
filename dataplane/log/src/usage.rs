//! How full a log is.
//!
//! *Place*: asked by admission and by write-back, which paces itself by it. *Owner*: plain values.
//! *Invariants*: `used + free <= capacity`. *On failure*: none.

use ogee_proto::unit::ByteLen;

/// Space of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogUsage {
    /// Bytes that entries may take altogether, by the cautious count used for admission.
    pub capacity: ByteLen,
    /// Capacity that is not free. More than `live`: a segment is free only as a whole.
    pub used: ByteLen,
    /// Bytes that an append may still take; queued ones are subtracted.
    pub free: ByteLen,
    /// Bytes of live entries on the medium, records included.
    pub live: ByteLen,
    /// Bytes of live payloads in extents of the store. They count as used: what the log may hold is
    /// bounded as if it held them.
    pub placed: ByteLen,
    /// Bytes accepted and not yet durable.
    pub queued: ByteLen,
    /// Durable payload bytes held in memory.
    pub cached: ByteLen,
    /// Free segments, the reserve included.
    pub free_segments: usize,
}

/// Whether the log wants to be purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Below the threshold.
    Normal,
    /// Above it: write back, checkpoint and purge.
    High,
}
