//! One replica in the place of another.
//!
//! The new replica has an id of its own: an empty one under a used id would have forgotten its vote.
//! It counts as one of the copyset's from when its voters are known to be committed; from then on the
//! old one is garbage, and its id stays known until it was deleted, so that it can be told so.

use std::collections::BTreeSet;

use ogee_proto::id::{ChunkserverId, CopysetId, ReplicaId};

use super::command::{ConfirmChanges, Outcome, ReplaceReplica, Reply};
use super::model::{Change, Copyset, Replica, State};
use super::refusal::Refusal;
use super::topology::check_count;
use crate::limit::LEAVING_MAX;

impl State {
    /// An operator's; it takes over from a job on the copyset.
    pub(super) fn replace_replica(&mut self, command: &ReplaceReplica) -> Outcome {
        let replica = self.replace(command)?;
        self.supersede(command.copyset, replica);
        Ok(Reply::Replica(replica))
    }

    pub(super) fn replace(&mut self, command: &ReplaceReplica) -> Result<ReplicaId, Refusal> {
        let id = command.copyset;
        let copyset = self.copysets.get(&id);
        let copyset = copyset.ok_or(Refusal::NoCopyset { copyset: id })?;
        if let Some(change) = &copyset.change {
            let joining = change.joining.id;
            if change.replaces != command.replica {
                return Err(Refusal::ChangeUnderWay {
                    copyset: id,
                    joining,
                });
            }
            if change.joining.store == command.store {
                return Ok(joining);
            }
        }
        self.check_replacement(command, copyset)?;
        let Some(store) = self.stores.get(&command.store) else {
            return Err(Refusal::BadPlacement { at: 0 });
        };
        self.issued.replica += 1;
        let joining = Replica {
            id: ReplicaId::new(self.issued.replica),
            chunkserver: store.chunkserver,
            store: command.store,
            created: false,
        };
        let (new, server) = (joining.id, joining.chunkserver);
        self.hosted.entry(server).or_default().insert(id);
        if let Some(copyset) = self.copysets.get_mut(&id) {
            copyset.conf_epoch += 1;
            let before = copyset.change.take();
            let abandoned = before.map_or_else(Vec::new, |before| {
                let mut abandoned = before.abandoned;
                abandoned.push(before.joining);
                abandoned
            });
            copyset.change = Some(Change {
                joining,
                replaces: command.replica,
                abandoned,
            });
        }
        Ok(new)
    }

    /// The group exists, has that replica, and has no other in the new one's zone or on its store.
    fn check_replacement(
        &self,
        command: &ReplaceReplica,
        copyset: &Copyset,
    ) -> Result<(), Refusal> {
        let id = command.copyset;
        if !copyset.formed {
            return Err(Refusal::NotFormed { copyset: id });
        }
        if copyset.place(command.replica).is_none() {
            return Err(Refusal::NoReplica {
                copyset: id,
                replica: command.replica,
            });
        }
        let abandoned = copyset
            .change
            .as_ref()
            .map_or(0, |it| it.abandoned.len() + 1);
        check_count(
            "replaced replicas of a copyset",
            copyset.leaving.len() + abandoned + 1,
            LEAVING_MAX,
        )?;
        let others = copyset.replicas.iter().filter(|r| r.id != command.replica);
        let mut zones: BTreeSet<_> = others.filter_map(|r| self.zone_of(r.chunkserver)).collect();
        let zone = self.stores.get(&command.store);
        let zone = zone.and_then(|store| self.zone_of(store.chunkserver));
        let mut placed = copyset.placed().filter(|r| r.id != command.replica);
        let is_free = placed.all(|r| r.store != command.store)
            && self.is_of_class(command.store, copyset.pool);
        match zone {
            Some(zone) if zones.insert(zone) && is_free => Ok(()),
            _ => Err(Refusal::BadTarget {
                copyset: id,
                store: command.store,
            }),
        }
    }

    pub(super) fn confirm_changes(&mut self, command: &ConfirmChanges) -> Reply {
        for (id, joined) in &command.changed {
            let joined_at = self
                .copysets
                .get_mut(id)
                .and_then(|copyset| finish(copyset, *joined));
            if let Some((replaced, server)) = joined_at {
                self.ailing.remove(&replaced);
                // It may have copied chunks of volumes that were removed meanwhile.
                let garbage = self.garbage.values_mut();
                for garbage in garbage.filter(|g| g.copysets.contains(id)) {
                    garbage.pending.insert(server);
                }
            }
            self.close_joined(*id, *joined, command.at_ms);
        }
        for (id, replica) in &command.removed {
            self.forget(*id, *replica);
        }
        Reply::Done
    }

    fn forget(&mut self, id: CopysetId, replica: ReplicaId) {
        self.forget_retired(id, replica);
        let Some(copyset) = self.copysets.get_mut(&id) else {
            return;
        };
        let gone: Vec<Replica> = copyset
            .leaving
            .extract_if(.., |r| r.id == replica)
            .collect();
        for gone in gone {
            let is_left = copyset.placed().any(|r| r.chunkserver == gone.chunkserver);
            if let Some(hosted) = self.hosted.get_mut(&gone.chunkserver).filter(|_| !is_left) {
                hosted.remove(&id);
            }
        }
    }
}

/// The replica whose place was taken, and the chunkserver of the one that joined, if that ends the change.
fn finish(copyset: &mut Copyset, joined: ReplicaId) -> Option<(ReplicaId, ChunkserverId)> {
    let change = copyset
        .change
        .take_if(|change| change.joining.id == joined)?;
    let mut joining = change.joining;
    joining.created = true;
    let server = joining.chunkserver;
    let mut replicas = copyset.replicas.iter_mut();
    if let Some(old) = replicas.find(|r| r.id == change.replaces) {
        copyset.leaving.push(std::mem::replace(old, joining));
    } else {
        copyset.vacant.retain(|vacant| vacant.id != change.replaces);
        copyset.replicas.push(joining);
    }
    copyset.leaving.extend(change.abandoned);
    copyset.conf_epoch += 1;
    Some((change.replaces, server))
}
