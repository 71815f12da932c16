//! Shards' reports → protobuf.

use crate::order::{ReplicaStatus, ShardReport, StoreStatus};
use ogee_proto::service::{ReplicaReport, StoreReport};

pub(super) fn store(status: &StoreStatus) -> StoreReport {
    StoreReport {
        store: status.store.to_string(),
        shard: u32::from(status.shard),
        path: status.path.clone(),
        capacity: status.capacity.get(),
        used: status.used.get(),
        log_capacity: status.log_capacity.get(),
        log_used: status.log_used.get(),
        state: status.state.to_owned(),
    }
}

pub(super) fn stores(reports: &[ShardReport]) -> Vec<StoreReport> {
    reports
        .iter()
        .flat_map(|report| report.stores.iter().map(store))
        .collect()
}

pub(super) fn replicas(reports: &[ShardReport]) -> Vec<ReplicaReport> {
    reports
        .iter()
        .flat_map(|report| report.replicas.iter().map(replica))
        .collect()
}

const fn state(status: &ReplicaStatus) -> &'static str {
    match (status.group.is_running, status.group.is_installing) {
        (true, true) => "installing",
        _ => status.state,
    }
}

fn replica(status: &ReplicaStatus) -> ReplicaReport {
    let group = &status.group;
    ReplicaReport {
        copyset: group.copyset.get(),
        replica: group.replica.get(),
        leader_replica: group.leader.map_or(0, |id| id.get()),
        term: group.term.get(),
        applied: group.applied.index.get(),
        last_log: group.last_log,
        conf_epoch: 0,
        state: state(status).to_owned(),
        store: status.store.to_string(),
        voters: status.voters.iter().map(|id| id.get()).collect(),
    }
}
