//! The groups that a shard hosts: opening, creating, finding them.

use super::Shard;
use super::stores::OpenStore;
use crate::error::ShardError;
use ogee_group::{Group, GroupError, GroupParams, Mender, ReplicaNode};
use ogee_proto::id::{CopysetId, ReplicaId, StoreId};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A group and the store it lives on.
#[derive(Clone)]
pub(super) struct Hosted {
    pub(super) group: Group,
    pub(super) store: StoreId,
    /// Bytes that it takes of the store; measured now and then (`report`).
    pub(super) held: Rc<Cell<Option<u64>>>,
}

/// A replica whose log is damaged, and the store it lives on.
pub(super) struct Damaged {
    pub(super) mender: Rc<Mender>,
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

    /// A damaged replica of a copyset.
    pub(super) fn damaged(&self, copyset: CopysetId) -> Option<Rc<Mender>> {
        let damaged = self.damaged.borrow();
        damaged.get(&copyset).map(|damaged| damaged.mender.clone())
    }

    /// Opens every group that the stores know of. A group that cannot be opened is reported and
    /// left out, one whose log is damaged opened when it is whole again: the others serve.
    /// Those that are `fenced` wait to be deleted: an old majority must not come together again.
    pub(super) async fn open_groups(self: &Rc<Self>, fenced: &BTreeSet<(CopysetId, ReplicaId)>) {
        for open in &self.stores {
            for copyset in open.store.groups().iter().map(|group| group.copyset) {
                let found = Group::find(&open.store, copyset).ok().flatten();
                if let Some(replica) = found.filter(|it| fenced.contains(&(copyset, *it))) {
                    tracing::info!(%copyset, %replica, "no member any more: it is not opened");
                    continue;
                }
                if let Err(error) = self.open_or_mend(open, copyset).await {
                    tracing::error!(%copyset, %error, "the replica is out of service");
                    self.note_broken(copyset, open, "damaged");
                }
            }
        }
    }

    async fn open_or_mend(
        self: &Rc<Self>,
        open: &OpenStore,
        copyset: CopysetId,
    ) -> Result<(), ShardError> {
        let Some(mender) = Mender::find(&self.params(open, copyset))? else {
            return self.open_group(open, copyset).await.map(drop);
        };
        let (mender, store) = (Rc::new(mender), open.id());
        let damaged = Damaged {
            mender: mender.clone(),
            store,
        };
        self.damaged.borrow_mut().insert(copyset, damaged);
        let shard = self.clone();
        drop(ogee_runtime::spawn(async move {
            // It says itself why it could not be repaired; the report goes on saying so.
            if mender.run().await.is_ok() {
                shard.open_mended(store, copyset).await;
            }
        }));
        Ok(())
    }

    async fn open_mended(&self, store: StoreId, copyset: CopysetId) {
        self.damaged.borrow_mut().remove(&copyset);
        let Some(open) = self.store(store).filter(|open| !open.has_failed()) else {
            return;
        };
        if let Err(error) = self.open_group(open, copyset).await {
            tracing::error!(%copyset, %error, "the replica is out of service");
            self.note_broken(copyset, open, "damaged");
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

    fn params(&self, open: &OpenStore, copyset: CopysetId) -> GroupParams {
        GroupParams {
            copyset,
            log: open.log.clone(),
            store: open.store.clone(),
            peers: self.peers.clone(),
            watch: self.watch.clone(),
            config: self.config,
            metrics: self.metrics.clone(),
            copies: self.copies.clone(),
        }
    }

    pub(super) async fn open_group(
        &self,
        open: &OpenStore,
        copyset: CopysetId,
    ) -> Result<Group, ShardError> {
        let group = Group::open(self.params(open, copyset)).await?;
        open.keeper.add(group.clone());
        let hosted = Hosted {
            group: group.clone(),
            store: open.id(),
            held: Rc::default(),
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
            None if self
                .damaged(copyset)
                .is_some_and(|m| m.replica_id() == replica) =>
            {
                return Ok(());
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
