//! One second of a run.
//!
//! *Place*: told while a run goes on, and kept as the report's series.
//! *Owner*: none; plain values. *Invariants*: percentiles are of this second's requests alone.
//! *On failure*: none.

use crate::figure::{per_second, precise};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One second of a run, or what was left of it at its end.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When it ended, in milliseconds since requests count; zero during the ramp.
    pub end_ms: u64,
    /// How long it was.
    pub span_ms: u64,
    /// Reads that ended in it.
    pub read: SideSample,
    /// Writes that ended in it.
    pub write: SideSample,
}

/// Reads or writes of a second.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SideSample {
    /// Requests.
    pub ios: u64,
    /// Requests per second.
    pub iops: f64,
    /// Bytes per second.
    pub bw_bytes: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// 99 % of them took no longer.
    pub p99_ns: u64,
    /// 99.9 % of them took no longer.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl SideSample {
    pub(crate) fn new(ios: u64, bytes: u64, latencies: &Histogram<u64>, span: Duration) -> Self {
        // An empty histogram has percentiles of one bucket.
        let at = |quantile| match latencies.is_empty() {
            true => 0,
            false => latencies.value_at_quantile(quantile),
        };
        let seconds = span.as_secs_f64();
        Self {
            ios,
            iops: if seconds > 0.0 {
                precise(ios) / seconds
            } else {
                0.0
            },
            bw_bytes: per_second(bytes, span),
            p50_ns: at(0.5),
            p99_ns: at(0.99),
            p999_ns: at(0.999),
            max_ns: latencies.max(),
        }
    }
}
