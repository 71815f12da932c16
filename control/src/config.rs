//! What a metadata server is told at start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ogee_proto::name::Name;

use crate::error::MdsError;

/// One metadata server of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Never 0, unique in the group.
    pub id: u64,
    /// `host:port` of its gRPC services, as the others and the clients reach it.
    pub addr: String,
}

/// Configuration of one metadata server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MdsConfig {
    /// Where the metadata is kept; made if missing.
    pub data_dir: PathBuf,
    /// gRPC services. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// `/metrics` and `/healthz`; `None` leaves them out.
    pub metrics_listen: Option<SocketAddr>,
    /// This member.
    pub id: u64,
    /// The whole group, this member included; empty: this member alone.
    pub members: Vec<Member>,
    /// How often chunkservers heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// A chunkserver not heard from for so long is offline, in milliseconds.
    pub offline_ms: u64,
    /// How long making a pool waits for enough zones to come online, in milliseconds.
    pub zone_wait_ms: u64,
    /// Name of the cluster, for people.
    pub cluster: String,
}

impl MdsConfig {
    /// A lone metadata server with the default timing.
    #[must_use]
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            data_dir,
            listen,
            metrics_listen: None,
            id: 1,
            members: Vec::new(),
            heartbeat_ms: 1000,
            offline_ms: 3000,
            zone_wait_ms: 10_000,
            cluster: "ogee".into(),
        }
    }

    /// The group's addresses by id; for a lone server, where it listens.
    pub(crate) fn group(&self, bound: SocketAddr) -> Result<BTreeMap<u64, String>, MdsError> {
        if self.members.is_empty() && self.id != 0 {
            return Ok(BTreeMap::from([(self.id, bound.to_string())]));
        }
        let group: BTreeMap<u64, String> = self
            .members
            .iter()
            .map(|m| (m.id, m.addr.clone()))
            .collect();
        let unique = group.len() == self.members.len() && !group.contains_key(&0);
        if unique && group.contains_key(&self.id) {
            Ok(group)
        } else {
            Err(MdsError::Members { id: self.id })
        }
    }

    pub(crate) fn cluster_name(&self) -> Result<Name, MdsError> {
        Name::new(&self.cluster).map_err(|source| MdsError::ClusterName {
            cluster: self.cluster.clone(),
            source,
        })
    }
}
