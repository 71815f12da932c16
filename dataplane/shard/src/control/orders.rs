//! Heartbeat answers → shards' orders.

use crate::order::{ChangeMembers, ResetReplica, ShardOrder};
use ogee_group::ReplicaNode;
use ogee_proto::id::{CopysetId, ReplicaId, StoreId, Term, VolumeId};
use ogee_proto::service as proto;
use ogee_proto::service::order::What;
use ogee_proto::service::{CopysetInfo, CreateReplica, HeartbeatResponse};
use ogee_transport::Endpoint;
use std::collections::BTreeMap;

/// An order and the shard it is for; `None`: for every shard.
pub(super) type Addressed = (Option<u16>, ShardOrder);

/// What a heartbeat's answer asks of the shards. `shard_of` says where a store lives here.
pub(super) fn orders(
    answer: HeartbeatResponse,
    shard_of: impl Fn(StoreId) -> Option<u16>,
) -> Vec<Addressed> {
    let places: Vec<_> = answer.copysets.iter().flat_map(places).collect();
    let mut orders: Vec<Addressed> = vec![(None, ShardOrder::Learn(places))];
    orders.extend(probes(&answer.probe, &shard_of));
    if answer.report_volumes {
        let after = VolumeId::new(answer.volumes_after);
        orders.push((None, ShardOrder::ListVolumes { after }));
    }
    for order in answer.orders {
        match order.what {
            Some(What::CreateReplica(create)) => orders.extend(create_replica(create, &shard_of)),
            Some(What::Transfer(transfer)) => {
                let copyset = CopysetId::new(transfer.copyset);
                let to = ReplicaId::new(transfer.to_replica);
                orders.push((None, ShardOrder::Transfer { copyset, to }));
            }
            Some(What::RemoveChunks(remove)) => {
                let volume = VolumeId::new(remove.volume);
                let copysets = remove.copysets.into_iter().map(CopysetId::new).collect();
                orders.push((None, ShardOrder::RemoveVolume { volume, copysets }));
            }
            Some(What::ChangeMembers(change)) => {
                orders.extend(change_members(change).map(|order| (None, order)));
            }
            Some(What::ResetReplica(reset)) => orders.extend(reset_replica(reset, &shard_of)),
            Some(What::RemoveReplica(remove)) => {
                let copyset = CopysetId::new(remove.copyset);
                let replica = ReplicaId::new(remove.replica);
                orders.push((None, ShardOrder::RemoveReplica { copyset, replica }));
            }
            None => tracing::warn!(
                order = order.id,
                "an order of a newer MDS is not understood"
            ),
        }
    }
    orders
}

/// Stores that are to be tried, by the shards that own them.
fn probes(
    stores: &[String],
    shard_of: &impl Fn(StoreId) -> Option<u16>,
) -> impl Iterator<Item = Addressed> {
    let mut shards: BTreeMap<u16, Vec<StoreId>> = BTreeMap::new();
    let known = stores.iter().filter_map(|store| store.parse().ok());
    for store in known.map(StoreId::new) {
        if let Some(shard) = shard_of(store) {
            shards.entry(shard).or_default().push(store);
        }
    }
    let orders = shards.into_iter();
    orders.map(|(shard, stores)| (Some(shard), ShardOrder::Probe(stores)))
}

fn places(copyset: &CopysetInfo) -> Vec<(ReplicaId, Endpoint)> {
    let known = copyset
        .replicas
        .iter()
        .filter_map(|replica| Some((ReplicaId::new(replica.id), replica.endpoint.parse().ok()?)));
    known.collect()
}

fn create_replica(
    create: CreateReplica,
    shard_of: &impl Fn(StoreId) -> Option<u16>,
) -> Option<Addressed> {
    let copyset = create.copyset?;
    let store = StoreId::new(create.store.parse().ok()?);
    let shard = shard_of(store)?;
    let members = members(&copyset);
    let order = ShardOrder::CreateReplica {
        copyset: CopysetId::new(copyset.id),
        replica: ReplicaId::new(create.replica),
        store,
        bootstrap: create.bootstrap.then_some(members),
        replaces: Some(ReplicaId::new(create.replaces)).filter(|id| id.get() != 0),
    };
    Some((Some(shard), order))
}

fn reset_replica(
    reset: proto::ResetReplica,
    shard_of: &impl Fn(StoreId) -> Option<u16>,
) -> Option<Addressed> {
    let copyset = reset.copyset?;
    let store = StoreId::new(reset.store.parse().ok()?);
    let to = ReplicaId::new(reset.to);
    let order = ResetReplica {
        copyset: CopysetId::new(copyset.id),
        from: ReplicaId::new(reset.from),
        to,
        store,
        node: members(&copyset).remove(&to)?,
    };
    Some((shard_of(store), ShardOrder::ResetReplica(order)))
}

fn members(copyset: &CopysetInfo) -> BTreeMap<ReplicaId, ReplicaNode> {
    let replicas = copyset.replicas.iter();
    replicas
        .map(|replica| {
            let node = ReplicaNode {
                chunkserver: replica.chunkserver,
                endpoint: replica.endpoint.as_str().into(),
            };
            (ReplicaId::new(replica.id), node)
        })
        .collect()
}

/// None if it names a voter that it does not describe.
fn change_members(change: proto::ChangeMembers) -> Option<ShardOrder> {
    let copyset = change.copyset?;
    let mut members = members(&copyset);
    members.retain(|id, _| change.voters.contains(&id.get()));
    (members.len() == change.voters.len() && !members.is_empty()).then_some(
        ShardOrder::ChangeMembers(ChangeMembers {
            copyset: CopysetId::new(copyset.id),
            members,
            term: Term::new(change.term),
            conf_epoch: change.conf_epoch,
        }),
    )
}
