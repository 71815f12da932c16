//! Latencies and counts of a run, as they come in.
//!
//! *Place*: every request that counts is recorded here; `report` reads it out.
//! *Owner*: the run. *Invariants*: a recorded request has ended well.
//! *On failure*: a latency past an hour is recorded as an hour.

use crate::limit::{LATENCY_DIGITS, LATENCY_NS_MAX};
use hdrhistogram::Histogram;
use std::time::Duration;

/// Reads or writes of a run.
pub(crate) struct Tally {
    latencies_ns: Histogram<u64>,
    bytes: u64,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let latencies_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
            .expect("invariant: constant bounds are valid");
        Self {
            latencies_ns,
            bytes: 0,
        }
    }

    /// A request has ended well.
    pub(crate) fn record(&mut self, bytes: u64, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.latencies_ns.saturating_record(took_ns);
        self.bytes += bytes;
    }

    /// Requests.
    pub(crate) fn requests(&self) -> u64 {
        self.latencies_ns.len()
    }

    /// Their bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Their latencies.
    pub(crate) const fn latencies_ns(&self) -> &Histogram<u64> {
        &self.latencies_ns
    }
}
