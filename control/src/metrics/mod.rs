//! Counters and gauges.
//!
//! *Place*: counters are moved by `api`; gauges are read from the metadata and the reports at
//! each scrape, so they cost nothing between scrapes and are never stale.
//! *Owner*: the API thread.
//! *Invariants*: names and labels are stable; their number does not grow with the cluster.
//! *On failure*: nothing here can fail.

mod registry;

pub(crate) use registry::Metrics;
