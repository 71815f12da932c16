//! Counters of a virtual disk.
//!
//! *Place*: moved by `execute` and `queue`, read by whoever publishes metrics. *Owner*: the export, on its shard.
//! *Invariants*: they only grow. *On failure*: none.

use std::cell::Cell;

/// Counters of one virtual disk.
#[derive(Default)]
pub(super) struct DiskMetrics {
    counts: Cell<DiskSnapshot>,
}

/// The counters as of one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskSnapshot {
    /// Times that a VM connected.
    pub connections: u64,
    /// Reads answered.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Writes answered.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Other requests answered.
    pub others: u64,
    /// Requests that ended with an error; they are not counted above.
    pub failures: u64,
    /// Requests that a process before this one, or a connection before this one, left under way.
    pub repeated: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Rings stopped for what the guest did with them.
    pub broken_rings: u64,
}

impl DiskMetrics {
    fn count(&self, change: impl FnOnce(&mut DiskSnapshot)) {
        let mut counts = self.counts.get();
        change(&mut counts);
        self.counts.set(counts);
    }

    pub(super) fn snapshot(&self) -> DiskSnapshot {
        self.counts.get()
    }

    pub(super) fn connected(&self) {
        self.count(|counts| counts.connections += 1);
    }

    pub(super) fn read(&self, bytes: u64) {
        self.count(|counts| {
            counts.reads += 1;
            counts.read_bytes += bytes;
        });
    }

    pub(super) fn written(&self, bytes: u64) {
        self.count(|counts| {
            counts.writes += 1;
            counts.written_bytes += bytes;
        });
    }

    pub(super) fn other(&self) {
        self.count(|counts| counts.others += 1);
    }

    /// Counts a failure and says the how manyth it was.
    pub(super) fn failed(&self) -> u64 {
        self.count(|counts| counts.failures += 1);
        self.counts.get().failures
    }

    pub(super) fn repeated(&self, requests: u64) {
        self.count(|counts| counts.repeated += requests);
    }

    pub(super) fn interrupted(&self) {
        self.count(|counts| counts.interrupts += 1);
    }

    pub(super) fn broken(&self) {
        self.count(|counts| counts.broken_rings += 1);
    }
}
