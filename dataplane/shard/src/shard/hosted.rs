//! The groups that a shard hosts: opening, creating, finding them.

use super::Shard;
use super::stores::OpenStore;
use crate::error::ShardError;
use ogee_group::{Group, GroupError, GroupParams, ReplicaNode};
use ogee_proto::id::{CopysetId, ReplicaId, StoreId};
use std::collections::BTreeMap;

/// A group and the store it lives on.
#[derive(Clone)]
pub(super) struct Hosted {
    pub(super) group: Group,
    pub(super) store: StoreId,
}

/// A replica that a store holds and that is not served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken {
    pub(super) replica: ReplicaId,
    pub(super) store: StoreId,
    /// `damaged` or `failed`.
    pub(super) state: &'static str,
}

impl Shard {
    /// The group of a copyset, if it is hosted here.
    pub(super) fn group(&self, copyset: CopysetId) -> Option<Group> {
        self.groups
            .borrow()
            .get(&copyset)
            .map(|hosted| hosted.group.clone())
    }

    /// Every group hosted here.
    pub(super) fn hosted(&self) -> Vec<Hosted> {
        self.groups.borrow().values().cloned().collect()
    }

    /// The keeper and device of a store.
    pub(super) fn store(&self, id: StoreId) -> Option<&OpenStore> {
        self.stores.iter().find(|open| open.id() == id)
    }

    /// Opens every group that the stores know of. A group that cannot be opened is reported and
    /// left out: the others serve.
    pub(super) async fn open_groups(&self) {
        for open in &self.stores {
            for copyset in open.store.groups().iter().map(|group| group.copyset) {
                if let Err(error) = self.open_group(open, copyset).await {
                    tracing::error!(%copyset, %error, "the replica is out of service");
                    self.note_broken(copyset, open, "damaged");
                }
            }
        }
    }

    /// Takes note of a replica that cannot be served, so that the MDS hears of it.
    pub(super) fn note_broken(&self, copyset: CopysetId, open: &OpenStore, state: &'static str) {
        // One whose id cannot be read is not known by it: the MDS misses it.
        if let Ok(Some(replica)) = Group::find(&open.store, copyset) {
            let broken = Broken {
                replica,
                store: open.id(),
                state,
            };
            self.broken.borrow_mut().insert(copyset, broken);
        }
    }

    async fn open_group(&self, open: &OpenStore, copyset: CopysetId) -> Result<Group, ShardError> {
        let params = GroupParams {
            copyset,
            log: open.log.clone(),
            store: open.store.clone(),
            peers: self.peers.clone(),
            config: self.config,
            metrics: self.metrics.clone(),
            copies: self.copies.clone(),
        };
        let group = Group::open(params).await?;
        open.keeper.add(group.clone());
        let hosted = Hosted {
            group: group.clone(),
            store: open.id(),
        };
        self.groups.borrow_mut().insert(copyset, hosted);
        Ok(group)
    }

    /// Makes a replica if it is not there yet, and the group if this one is to make it.
    pub(super) async fn create_replica(
        &self,
        copyset: CopysetId,
        replica: ReplicaId,
        store: StoreId,
        bootstrap: Option<BTreeMap<ReplicaId, ReplicaNode>>,
        replaces: Option<ReplicaId>,
    ) -> Result<(), ShardError> {
        let group = match self.group(copyset) {
            Some(group) if group.replica_id() == replica => group,
            Some(group) => {
                let found = group.replica_id();
                return Err(GroupError::OtherReplica {
                    copyset,
                    found,
                    wanted: replica,
                }
                .into());
            }
            None => {
                let Some(open) = self.store(store) else {
                    tracing::warn!(%copyset, %store, "asked for a replica on an unknown store");
                    return Ok(());
                };
                tracing::info!(%copyset, %replica, %store, "creating a replica");
                if let Some(old) = replaces {
                    Group::remove(&open.store, &open.log, (copyset, old), None).await?;
                    self.broken.borrow_mut().remove(&copyset);
                }
                Group::create(&open.store, copyset, replica).await?;
                self.open_group(open, copyset).await?
            }
        };
        if let Some(members) = bootstrap {
            group.bootstrap(members).await?;
        }
        Ok(())
    }
}
