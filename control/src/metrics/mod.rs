//! `/metrics` and `/healthz`.
//!
//! *Place*: counters are moved by `api`; gauges are read from the metadata and the reports at
//! each scrape, so they cost nothing between scrapes and are never stale.
//! *Owner*: the API thread.
//! *Invariants*: names and labels are stable; their number does not grow with the cluster.
//! *On failure*: `/healthz` answers 503 while there is no leader or Raft has stopped.

mod http;
mod registry;

pub(crate) use http::router;
pub(crate) use registry::Metrics;
