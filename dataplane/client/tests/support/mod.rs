//! An in-process cluster for the client's tests: real services over loopback, real dedupe rules,
//! a replica set in memory, and faults on demand.

mod cluster;
mod control;
mod group;

pub use cluster::{Cluster, Fault};
pub use control::TestControl;
