//! Shards' reports → protobuf.

use crate::order::{ReplicaStatus, ShardReport, StoreStatus};
use ogee_device::Flow;
use ogee_proto::id::{CopysetId, ReplicaId};
use ogee_proto::service::{IoFlow, LostBlocks, ReplicaName, ReplicaReport, StoreReport};
use std::collections::BTreeMap;

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
        writes: Some(flow(status.pace.writes)),
        flushes: Some(flow(status.pace.flushes)),
        reads: Some(flow(status.pace.reads)),
        failures: status.failures,
        retired_extents: status.retired,
    }
}

const fn flow(flow: Flow) -> IoFlow {
    IoFlow {
        ops: flow.ops,
        bytes: flow.bytes,
        waited_ns: flow.waited_ns,
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

/// `installing`, `outrun`, or what the shard says.
const fn state(status: &ReplicaStatus) -> &'static str {
    let group = &status.group;
    match (group.is_running, group.is_installing, group.is_outrun) {
        (true, true, _) => "installing",
        (true, _, true) => "outrun",
        _ => status.state,
    }
}

/// Blocks that no replica has.
pub(super) fn lost(reports: &[ShardReport]) -> Vec<LostBlocks> {
    let lost = reports.iter().flat_map(|report| &report.lost);
    let lost = lost.map(|(copyset, blocks)| LostBlocks {
        copyset: copyset.get(),
        volume: blocks.key.volume.get(),
        chunk: blocks.key.chunk.get(),
        first_block: blocks.first.get().into(),
        blocks: blocks.count.into(),
    });
    lost.collect()
}

/// Replicas that were deleted.
pub(super) fn replicas_removed(reports: &[ShardReport]) -> Vec<ReplicaName> {
    // Every shard is asked: only together do they know that none of their stores holds it.
    let mut shards: BTreeMap<(CopysetId, ReplicaId), usize> = BTreeMap::new();
    for name in reports.iter().flat_map(|report| &report.replicas_removed) {
        *shards.entry(*name).or_default() += 1;
    }
    let everywhere = shards
        .into_iter()
        .filter(|(_, count)| *count == reports.len());
    everywhere
        .map(|((copyset, replica), _)| ReplicaName {
            copyset: copyset.get(),
            replica: replica.get(),
        })
        .collect()
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
