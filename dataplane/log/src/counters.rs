//! What a log has done since it was opened.
//!
//! *Place*: counted by `state` and the readers, exported by the shard. *Owner*: the log's task.
//! *Invariants*: values only grow. *On failure*: none.

use std::time::Duration;

/// Counters of one log. Latency of an append is the caller's to time, from call to callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogCounters {
    /// Batches written.
    pub flushes: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes written: batches and segment headers.
    pub bytes_written: u64,
    /// Payload bytes of entries made durable, copies forward included.
    pub payload_bytes: u64,
    /// Payload bytes written to extents of the store. Among those of entries made durable.
    pub placed_bytes: u64,
    /// Payload bytes copied in memory to build batches.
    pub bytes_copied: u64,
    /// Time spent in batch writes.
    pub flush_time: Duration,
    /// Batches that only say that the one before them is durable.
    pub closing_batches: u64,
    /// Segments begun.
    pub segments_begun: u64,
    /// Entries copied forward.
    pub entries_moved: u64,
    /// Entries copied forward by their identity alone: their bodies are lost.
    pub holes_moved: u64,
    /// Payloads found rotten since the log was opened.
    pub payloads_lost: u64,
    /// Entries put back from other replicas.
    pub entries_repaired: u64,
    /// Payloads asked for and found in memory.
    pub cache_hits: u64,
    /// Payloads asked for and read from the device.
    pub cache_misses: u64,
    /// Appends refused because the log was full.
    pub refused_full: u64,
}
