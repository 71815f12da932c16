//! Latencies and bytes of one kind of request.
//!
//! *Place*: filled by `run`, sealed once a second, read by `report`.
//! *Owner*: the run. *Invariants*: a recorded request has ended well; recording allocates nothing;
//! each request is in one second's histogram and, once that is sealed, in the whole run's.
//! *On failure*: a latency past an hour is recorded as an hour.

use crate::limit::{LATENCY_DIGITS, LATENCY_NS_MAX};
use crate::sample::SideSample;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Reads or writes of a run.
pub(crate) struct Tally {
    /// From when they were due.
    latency: Recorder,
    /// From when they were sent, where that differs.
    service: Option<Recorder>,
    /// Of this second: requests and bytes, those of the ramp too.
    recent: Counts,
    /// Of the run, without the ramp.
    total: Counts,
}

/// How many, how much.
#[derive(Clone, Copy, Default)]
struct Counts {
    requests: u64,
    bytes: u64,
}

/// One kind of latency: of this second, and of all sealed ones.
struct Recorder {
    recent_ns: Histogram<u64>,
    total_ns: Histogram<u64>,
}

impl Tally {
    /// Nothing yet; an open loop tells service from latency.
    pub(crate) fn new(is_open_loop: bool) -> Self {
        Self {
            latency: Recorder::new(),
            service: is_open_loop.then(Recorder::new),
            recent: Counts::default(),
            total: Counts::default(),
        }
    }

    /// A request has ended well, `latency` after it was due and `service` after it was sent.
    pub(crate) fn record(&mut self, bytes: u64, latency: Duration, service: Duration) {
        self.latency.record(latency);
        if let Some(recorder) = &mut self.service {
            recorder.record(service);
        }
        self.recent.count(bytes);
        self.total.count(bytes);
    }

    /// A request of the ramp has ended well.
    pub(crate) fn record_ramp(&mut self, bytes: u64) {
        self.recent.count(bytes);
    }

    /// Ends a second that took `span`.
    pub(crate) fn seal(&mut self, span: Duration) -> SideSample {
        let sample = SideSample::new(
            self.recent.requests,
            self.recent.bytes,
            &self.latency.recent_ns,
            span,
        );
        self.recent = Counts::default();
        self.latency.seal();
        if let Some(recorder) = &mut self.service {
            recorder.seal();
        }
        sample
    }

    /// Requests.
    pub(crate) const fn requests(&self) -> u64 {
        self.total.requests
    }

    /// Their bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.total.bytes
    }

    /// Their latencies from when they were due, of the seconds that are sealed.
    pub(crate) const fn latencies_ns(&self) -> &Histogram<u64> {
        &self.latency.total_ns
    }

    /// Their latencies from when they were sent, of the seconds that are sealed.
    pub(crate) fn services_ns(&self) -> &Histogram<u64> {
        let recorder = self.service.as_ref().unwrap_or(&self.latency);
        &recorder.total_ns
    }
}

impl Counts {
    const fn count(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
    }
}

impl Recorder {
    fn new() -> Self {
        let empty = || {
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
                .expect("invariant: constant bounds are valid")
        };
        Self {
            recent_ns: empty(),
            total_ns: empty(),
        }
    }

    fn record(&mut self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.recent_ns.saturating_record(took_ns);
    }

    fn seal(&mut self) {
        let added = self.total_ns.add(&self.recent_ns);
        added.expect("invariant: both have the same bounds");
        self.recent_ns.reset();
    }
}
