//! Orders that change who belongs to a group.
//!
//! *Place*: from the MDS by way of the control thread; the work is the group's.
//! *Owner*: one shard; each copyset has at most one of these under way.
//! *Invariants*: an order of an earlier configuration than one that was seen, or of an earlier term than
//! the group's, does nothing.
//! *On failure*: it is logged, and the order comes again.

use super::Shard;
use super::hosted::Damaged;
use super::stores::OpenStore;
use crate::order::{ChangeMembers, ResetReplica};
use ogee_group::Group;
use ogee_proto::id::{CopysetId, ReplicaId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What is done about such orders.
#[derive(Default)]
pub(super) struct Changes {
    under_way: RefCell<BTreeSet<CopysetId>>,
    /// The newest configuration that was ordered.
    newest: RefCell<BTreeMap<CopysetId, u64>>,
    removed: RefCell<BTreeSet<(CopysetId, ReplicaId)>>,
}

impl Changes {
    /// Replicas deleted since the last call. Told once: if that is lost, the order comes again.
    pub(super) fn take_removed(&self) -> Vec<(CopysetId, ReplicaId)> {
        self.removed.take().into_iter().collect()
    }

    fn begin(&self, copyset: CopysetId) -> bool {
        self.under_way.borrow_mut().insert(copyset)
    }

    fn end(&self, copyset: CopysetId) {
        self.under_way.borrow_mut().remove(&copyset);
    }

    fn is_newest(&self, copyset: CopysetId, conf_epoch: u64) -> bool {
        let mut newest = self.newest.borrow_mut();
        let newest = newest.entry(copyset).or_default();
        *newest = (*newest).max(conf_epoch);
        *newest == conf_epoch
    }
}

impl Shard {
    /// Has the group change its voters, if it leads here.
    pub(super) fn change_members(self: &Rc<Self>, change: ChangeMembers) {
        let copyset = change.copyset;
        let Some(group) = self.group(copyset) else {
            return;
        };
        let report = group.report();
        let is_newest = self.changes.is_newest(copyset, change.conf_epoch);
        if !is_newest || !report.is_leader || change.term < report.term {
            return;
        }
        if !self.changes.begin(copyset) {
            return;
        }
        let shard = self.clone();
        drop(ogee_runtime::spawn(async move {
            let done = group.change_members(change.members).await;
            tracing::debug!(%copyset, ?done, "asked to change its voters");
            shard.changes.end(copyset);
        }));
    }

    /// Deletes a replica, whichever store holds it, running or not.
    pub(super) fn remove_replica(self: &Rc<Self>, copyset: CopysetId, replica: ReplicaId) {
        if !self.changes.begin(copyset) {
            return;
        }
        let hosted = self.groups.borrow().get(&copyset).cloned();
        let hosted = hosted.filter(|hosted| hosted.group.replica_id() == replica);
        if let Some(hosted) = &hosted {
            self.groups.borrow_mut().remove(&copyset);
            if let Some(open) = self.store(hosted.store) {
                open.keeper.remove(copyset);
            }
        }
        self.stop_repair(copyset, replica);
        let shard = self.clone();
        drop(ogee_runtime::spawn(async move {
            let running = hosted.map(|hosted| hosted.group);
            if shard.delete(copyset, replica, running).await {
                shard
                    .changes
                    .removed
                    .borrow_mut()
                    .insert((copyset, replica));
            }
            shard.changes.end(copyset);
        }));
    }

    /// Has a replica go on alone, and opens it again; also if that fails, as what it was.
    pub(super) fn reset_replica(self: &Rc<Self>, reset: ResetReplica) {
        let copyset = reset.copyset;
        let hosted = self.groups.borrow().get(&copyset).cloned();
        let hosted = hosted.filter(|it| it.group.replica_id() == reset.from);
        // One that is damaged, or gone on already, has nothing to do.
        let Some(hosted) = hosted.filter(|it| it.store == reset.store) else {
            return;
        };
        if !self.changes.begin(copyset) {
            return;
        }
        self.groups.borrow_mut().remove(&copyset);
        if let Some(open) = self.store(hosted.store) {
            open.keeper.remove(copyset);
        }
        let shard = self.clone();
        drop(ogee_runtime::spawn(async move {
            shard.go_on_alone(hosted.group, reset).await;
            shard.changes.end(copyset);
        }));
    }

    async fn go_on_alone(self: &Rc<Self>, group: Group, reset: ResetReplica) {
        let ResetReplica {
            copyset,
            from,
            to,
            store,
            node,
        } = reset;
        match group.reset(to, node).await {
            Ok(()) => tracing::warn!(%copyset, %from, %to,
                "the replica goes on alone: what only the others of its group had is lost"),
            Err(error) => {
                tracing::error!(%copyset, %from, %error, "the replica cannot go on alone");
            }
        }
        drop(group);
        let Some(open) = self.store(store).filter(|open| !open.has_failed()) else {
            return;
        };
        if let Err(error) = self.open_group(open, copyset).await {
            tracing::error!(%copyset, %error, "the replica is out of service");
            self.note_broken(copyset, open, "damaged");
        }
    }

    fn stop_repair(&self, copyset: CopysetId, replica: ReplicaId) {
        let mut damaged = self.damaged.borrow_mut();
        let is_it = |damaged: &Damaged| damaged.mender.replica_id() == replica;
        if damaged.get(&copyset).is_some_and(is_it)
            && let Some(damaged) = damaged.remove(&copyset)
        {
            damaged.mender.stop();
        }
    }

    async fn delete(&self, copyset: CopysetId, replica: ReplicaId, running: Option<Group>) -> bool {
        if self.stores.iter().any(OpenStore::has_failed) {
            // It may hold the replica, which would be there again after a restart.
            return false;
        }
        for open in &self.stores {
            let found = Group::find(&open.store, copyset).ok().flatten();
            let running = running.clone().filter(|_| found == Some(replica));
            let id = (copyset, replica);
            if let Err(error) = Group::remove(&open.store, &open.log, id, running).await {
                tracing::error!(%copyset, %replica, %error, "cannot delete the replica");
                return false;
            }
            if found == Some(replica) {
                tracing::info!(%copyset, %replica, store = %open.id(), "the replica is deleted");
            }
        }
        let mut broken = self.broken.borrow_mut();
        if broken.get(&copyset).is_some_and(|it| it.replica == replica) {
            broken.remove(&copyset);
        }
        true
    }
}
