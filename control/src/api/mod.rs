//! The gRPC services, and HTTP for monitoring.
//!
//! *Place*: the metadata server's face: `Volumes`, `Names` and `Topology` for operators and clients,
//! `Chunkservers` for the data plane, `MdsRaft` for the other metadata servers.
//! *Owner*: the API thread. Handlers reach the Raft thread by its client only.
//! *Invariants*: what a handler tells of the metadata includes every write acknowledged before.
//! Every failure is a fault with a code, a cause and a remedy.
//! *On failure*: a metadata server that does not lead names the one that does.

mod capacity;
mod chunkservers;
mod context;
mod desk;
mod dry_run;
mod emptying;
mod error;
mod healing;
mod http;
mod identity;
mod info;
mod jobs;
mod maintenance;
mod members;
mod names;
mod peers;
mod replacing;
mod reports;
#[cfg(test)]
mod reports_tests;
mod resetting;
mod strangers;
mod topology;
mod volumes;
mod watch;

pub(crate) use chunkservers::ChunkserversApi;
pub(crate) use context::{ApiConfig, Context};
pub(crate) use healing::heal;
pub(crate) use http::router;
pub(crate) use members::MembersApi;
pub(crate) use names::NamesApi;
pub(crate) use peers::PeersApi;
pub(crate) use topology::TopologyApi;
pub(crate) use volumes::VolumesApi;
pub(crate) use watch::watch_cluster;
