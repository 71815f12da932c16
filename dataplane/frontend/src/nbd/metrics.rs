//! Counters of an export.
//!
//! *Place*: moved by `execute`, read by whoever publishes metrics. *Owner*: the export, on its shard.
//! *Invariants*: they only grow. *On failure*: none.

use std::cell::Cell;

/// Counters of an export, summed over its connections.
#[derive(Default)]
pub struct ExportMetrics {
    counts: Cell<ExportSnapshot>,
}

/// The counters as of one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExportSnapshot {
    /// Connections that chose the export.
    pub connections: u64,
    /// Reads answered.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Those of them that were copied once, into the reply buffer; large payloads are not.
    pub copied_bytes: u64,
    /// Writes answered.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Other commands answered.
    pub others: u64,
    /// Requests answered with an error; they are not counted above.
    pub failures: u64,
    /// Blocks that were read to be written back changed, for unaligned requests.
    pub merged_blocks: u64,
}

impl ExportMetrics {
    pub(super) fn count(&self, change: impl FnOnce(&mut ExportSnapshot)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    pub(super) fn snapshot(&self, merged_blocks: u64) -> ExportSnapshot {
        ExportSnapshot {
            merged_blocks,
            ..self.counts.get()
        }
    }
}
