//! Heartbeat answers → shards' orders.

use crate::order::ShardOrder;
use ogee_group::ReplicaNode;
use ogee_proto::id::{CopysetId, ReplicaId, StoreId, VolumeId};
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
            Some(What::RemoveReplica(remove)) => {
                tracing::warn!(
                    copyset = remove.copyset,
                    replica = remove.replica,
                    "the MDS asks to remove a replica, which this version cannot do"
                );
            }
            None => tracing::warn!(
                order = order.id,
                "an order of a newer MDS is not understood"
            ),
        }
    }
    orders
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
    let members: BTreeMap<_, _> = copyset
        .replicas
        .iter()
        .map(|replica| {
            let node = ReplicaNode {
                chunkserver: replica.chunkserver,
                endpoint: replica.endpoint.clone(),
            };
            (ReplicaId::new(replica.id), node)
        })
        .collect();
    let order = ShardOrder::CreateReplica {
        copyset: CopysetId::new(copyset.id),
        replica: ReplicaId::new(create.replica),
        store,
        bootstrap: create.bootstrap.then_some(members),
    };
    Some((Some(shard), order))
}
