//! Counters of one volume.
//!
//! *Place*: moved by `volume` and `core`, read by `/metrics` and by the benchmark.
//! *Owner*: the shard of the volume: plain cells.
//! *Invariants*: counters only grow.
//! *On failure*: none.

use ogee_proto::wire::FrameKind;
use std::cell::Cell;
use std::time::Duration;

/// Counters of one volume.
#[derive(Debug, Default)]
pub struct ClientMetrics {
    read: KindCounters,
    write: KindCounters,
    discard: KindCounters,
    write_zeroes: KindCounters,
    block_status: KindCounters,
    flushes: Cell<u64>,
    parts: Cell<u64>,
    retries: Cell<u64>,
    pauses: Cell<u64>,
    redirects: Cell<u64>,
    seals: Cell<u64>,
    refreshes: Cell<u64>,
    refresh_failures: Cell<u64>,
    slow_reports: Cell<u64>,
    bytes_copied: Cell<u64>,
}

/// Counters of one kind of user request.
#[derive(Debug, Default)]
struct KindCounters {
    requests: Cell<u64>,
    errors: Cell<u64>,
    bytes: Cell<u64>,
    latency_ns_sum: Cell<u64>,
    latency_ns_max: Cell<u64>,
}

/// The values of one kind of user request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KindSnapshot {
    /// Requests that ended, well or not.
    pub requests: u64,
    /// Those that ended with an error.
    pub errors: u64,
    /// Bytes of those that ended well.
    pub bytes: u64,
    /// Sum of the time they took, in nanoseconds.
    pub latency_ns_sum: u64,
    /// The longest, in nanoseconds.
    pub latency_ns_max: u64,
}

/// All values at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientSnapshot {
    /// Reads.
    pub read: KindSnapshot,
    /// Writes.
    pub write: KindSnapshot,
    /// Discards.
    pub discard: KindSnapshot,
    /// Zero writes.
    pub write_zeroes: KindSnapshot,
    /// Questions about allocation.
    pub block_status: KindSnapshot,
    /// Flushes.
    pub flushes: u64,
    /// Parts that requests were split into.
    pub parts: u64,
    /// Attempts beyond the first of a part.
    pub retries: u64,
    /// Pauses before an attempt.
    pub pauses: u64,
    /// Answers that named another leader.
    pub redirects: u64,
    /// Seals committed.
    pub seals: u64,
    /// Maps fetched.
    pub refreshes: u64,
    /// Maps not fetched.
    pub refresh_failures: u64,
    /// Slow requests reported.
    pub slow_reports: u64,
    /// Payload bytes copied by this crate.
    pub bytes_copied: u64,
}

impl ClientMetrics {
    /// All values now.
    #[must_use]
    pub const fn snapshot(&self) -> ClientSnapshot {
        ClientSnapshot {
            read: self.read.snapshot(),
            write: self.write.snapshot(),
            discard: self.discard.snapshot(),
            write_zeroes: self.write_zeroes.snapshot(),
            block_status: self.block_status.snapshot(),
            flushes: self.flushes.get(),
            parts: self.parts.get(),
            retries: self.retries.get(),
            pauses: self.pauses.get(),
            redirects: self.redirects.get(),
            seals: self.seals.get(),
            refreshes: self.refreshes.get(),
            refresh_failures: self.refresh_failures.get(),
            slow_reports: self.slow_reports.get(),
            bytes_copied: self.bytes_copied.get(),
        }
    }

    /// A user request has ended.
    pub(crate) fn request(&self, kind: FrameKind, bytes: u64, took: Duration, ok: bool) {
        if let Some(counters) = self.kind(kind) {
            counters.add(bytes, took, ok);
        }
    }

    pub(crate) fn flush(&self) {
        grow(&self.flushes, 1);
    }

    pub(crate) fn part(&self) {
        grow(&self.parts, 1);
    }

    pub(crate) fn retry(&self) {
        grow(&self.retries, 1);
    }

    pub(crate) fn pause(&self) {
        grow(&self.pauses, 1);
    }

    pub(crate) fn redirect(&self) {
        grow(&self.redirects, 1);
    }

    pub(crate) fn seal(&self) {
        grow(&self.seals, 1);
    }

    pub(crate) fn refresh(&self, ok: bool) {
        grow(
            if ok {
                &self.refreshes
            } else {
                &self.refresh_failures
            },
            1,
        );
    }

    pub(crate) fn slow_report(&self) {
        grow(&self.slow_reports, 1);
    }

    pub(crate) fn copied(&self, bytes: usize) {
        grow(&self.bytes_copied, bytes as u64);
    }

    const fn kind(&self, kind: FrameKind) -> Option<&KindCounters> {
        match kind {
            FrameKind::Read => Some(&self.read),
            FrameKind::Write => Some(&self.write),
            FrameKind::Discard => Some(&self.discard),
            FrameKind::WriteZeroes => Some(&self.write_zeroes),
            FrameKind::BlockStatus => Some(&self.block_status),
            _ => None,
        }
    }
}

impl KindCounters {
    fn add(&self, bytes: u64, took: Duration, ok: bool) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        grow(&self.requests, 1);
        if !ok {
            return grow(&self.errors, 1);
        }
        grow(&self.bytes, bytes);
        grow(&self.latency_ns_sum, took_ns);
        self.latency_ns_max
            .set(self.latency_ns_max.get().max(took_ns));
    }

    const fn snapshot(&self) -> KindSnapshot {
        KindSnapshot {
            requests: self.requests.get(),
            errors: self.errors.get(),
            bytes: self.bytes.get(),
            latency_ns_sum: self.latency_ns_sum.get(),
            latency_ns_max: self.latency_ns_max.get(),
        }
    }
}

fn grow(cell: &Cell<u64>, by: u64) {
    cell.set(cell.get().saturating_add(by));
}
