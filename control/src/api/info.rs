//! Metadata and reports in the words of the wire.

use std::collections::BTreeSet;
use std::time::Instant;

use ogee_proto::id::{ChunkserverId, CopysetId, PoolId, VolumeId};
use ogee_proto::service::{
    CopysetInfo, Label, MapSegment, PoolInfo, ReplicaInfo, VolumeInfo, VolumeMap,
};

use crate::liveness::{Liveness, Strangers};
use crate::placement::Scatter;
use crate::scheduler::HealRules;
use crate::state::{Copyset, Pool, Replica, State, Volume};

/// The metadata, the reports, and the moment at which they are looked at.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub(super) state: &'a State,
    pub(super) liveness: &'a Liveness,
    pub(super) now: Instant,
    pub(super) rules: &'a HealRules,
    pub(super) strangers: &'a Strangers,
}

impl Scene<'_> {
    pub(super) fn is_online(&self, server: ChunkserverId) -> bool {
        self.liveness.is_online(self.now, server)
    }

    /// How a chunkserver is, in one word.
    pub(super) fn presence(&self, server: ChunkserverId) -> &'static str {
        if !self.is_online(server) {
            "offline"
        } else if self.liveness.is_unstable(self.now, server) {
            "unstable"
        } else {
            "online"
        }
    }

    /// Endpoints as the newest heartbeat gives them, else as registered.
    pub(super) fn endpoints_of(&self, server: ChunkserverId) -> &[String] {
        let heard = self.liveness.heard(server).map(|h| &h.endpoints);
        let registered = self.state.chunkservers().get(&server).map(|c| &c.endpoints);
        heard
            .filter(|e| !e.is_empty())
            .or(registered)
            .map_or(&[], Vec::as_slice)
    }

    pub(super) fn endpoints(&self, server: ChunkserverId) -> Vec<String> {
        self.endpoints_of(server).to_vec()
    }

    /// Every chunkserver that shares a copyset with `id`, itself included.
    pub(super) fn beside(&self, id: ChunkserverId) -> BTreeSet<ChunkserverId> {
        let hosted = self.state.hosted(id);
        let copysets = hosted.filter_map(|id| self.state.copysets().get(&id));
        copysets
            .flat_map(|copyset| copyset.members().map(|replica| replica.chunkserver))
            .collect()
    }

    pub(super) fn volume_info(&self, id: VolumeId, volume: &Volume) -> VolumeInfo {
        let pool = self.state.pools().get(&volume.pool);
        let hosts: Vec<&str> = volume.users.all().iter().map(|u| u.host.as_str()).collect();
        VolumeInfo {
            id: id.get(),
            name: volume.name.to_string(),
            size: volume.size,
            replicas: pool.map_or(0, |p| p.replicas.into()),
            stripe_unit: volume.stripe.unit.into(),
            stripe_count: volume.stripe.count,
            pool: pool.map_or_else(String::new, |p| p.name.to_string()),
            owner: volume.owner.clone(),
            epoch: volume.epoch.get(),
            created_unix_ms: volume.created_unix_ms,
            attached: !hosts.is_empty(),
            attached_host: hosts.join(", "),
            copyset_count: count(volume.copysets().len()),
            labels: volume
                .labels
                .iter()
                .map(|(key, value)| Label {
                    key: key.to_string(),
                    value: value.clone(),
                })
                .collect(),
        }
    }

    pub(super) fn volume_map(&self, id: VolumeId, volume: &Volume) -> VolumeMap {
        let segments = volume.segments.iter().map(|segment| MapSegment {
            first_chunk: segment.first_chunk,
            copysets: segment.copysets.iter().map(|id| id.get()).collect(),
        });
        let copysets = volume.copysets().into_iter();
        VolumeMap {
            volume: Some(self.volume_info(id, volume)),
            segments: segments.collect(),
            copysets: copysets.filter_map(|id| self.copyset_by_id(id)).collect(),
            mds: Vec::new(),
        }
    }

    pub(super) fn copyset_by_id(&self, id: CopysetId) -> Option<CopysetInfo> {
        Some(self.copyset_info(id, self.state.copysets().get(&id)?))
    }

    pub(super) fn copyset_info(&self, id: CopysetId, copyset: &Copyset) -> CopysetInfo {
        let leader = self.liveness.leader(self.now, copyset);
        let pool = self.state.pools().get(&copyset.pool);
        let info = |role: &'static str| move |replica| self.replica_info(replica, role);
        let voters = copyset.replicas.iter().map(info("voter"));
        let changing = copyset.change.iter();
        let abandoned = changing.clone().flat_map(|change| &change.abandoned);
        let abandoned = abandoned.map(info("abandoned"));
        let joining = changing.map(|change| &change.joining);
        let joining = joining.map(info("joining")).chain(abandoned);
        let leaving = copyset.leaving.iter().map(info("leaving"));
        CopysetInfo {
            id: id.get(),
            replicas: voters.chain(joining).collect(),
            leaving: leaving.collect(),
            leader_replica: leader.map_or(0, |l| l.replica.get()),
            conf_epoch: copyset.conf_epoch,
            pool: pool.map_or_else(String::new, |p| p.name.to_string()),
            term: leader.map_or(0, |l| l.term),
            formed: copyset.formed,
        }
    }

    fn replica_info(&self, replica: &Replica, role: &str) -> ReplicaInfo {
        let server = self.state.chunkservers().get(&replica.chunkserver);
        let status = self
            .liveness
            .replica(self.now, replica.chunkserver, replica.id);
        ReplicaInfo {
            id: replica.id.get(),
            chunkserver: replica.chunkserver.get(),
            chunkserver_name: server.map_or_else(String::new, |c| c.name.to_string()),
            store: replica.store.to_string(),
            endpoint: self.endpoint(replica).unwrap_or_default().into(),
            zone: server.map_or_else(String::new, |c| c.zone.to_string()),
            online: self.is_online(replica.chunkserver),
            applied: status.map_or(0, |s| s.applied),
            last_log: status.map_or(0, |s| s.last_log),
            role: role.into(),
            state: self.replica_state(replica).into(),
            eta_ms: None,
        }
    }

    fn replica_state(&self, replica: &Replica) -> &'static str {
        let server = replica.chunkserver;
        match self.liveness.replica(self.now, server, replica.id) {
            Some(status) => status.state.as_str(),
            None if !self.is_online(server) => "offline",
            None if !replica.created => "waiting",
            None => "missing",
        }
    }

    /// Endpoint of the shard that owns the replica's store.
    pub(super) fn endpoint(&self, replica: &Replica) -> Option<&str> {
        let heard = self.liveness.heard(replica.chunkserver);
        let usage = heard.and_then(|h| h.stores.get(&replica.store));
        let registered = self.state.stores().get(&replica.store).map(|s| s.shard);
        let shard = usage.map(|u| u.shard).or(registered)?;
        let endpoints = self.endpoints_of(replica.chunkserver);
        endpoints.get(usize::from(shard)).map(String::as_str)
    }

    pub(super) fn pool_info(&self, id: PoolId, pool: &Pool) -> PoolInfo {
        let volumes = self.state.volumes().values();
        let copysets = pool.copysets.iter();
        let copysets = copysets.filter_map(|id| self.state.copysets().get(id));
        let width = Scatter::of(copysets.map(Copyset::stores)).summary();
        PoolInfo {
            scatter_width: pool.scatter_width,
            scatter_least: count(width.least),
            scatter_mean: width.mean,
            scatter_most: count(width.most),
            device_sets: count(width.sets),
            promised: self.state.promised(id),
            quota: pool.quota,
            allows_volumes: !pool.is_closed,
            weight: pool.weight,
            class: pool
                .class
                .map_or_else(String::new, |class| class.to_string()),
            volumes: count(volumes.filter(|volume| volume.pool == id).count()),
            name: pool.name.to_string(),
            replicas: pool.replicas.into(),
            copysets: count(pool.copysets.len()),
            copysets_ready: count(self.state.formed(pool)),
            raw: 0,
            raw_used: 0,
            usable: 0,
            usable_free: 0,
            used: 0,
        }
    }
}

/// Counts on the wire; every one is bounded far below.
pub(super) fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
