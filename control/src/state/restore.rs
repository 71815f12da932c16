//! Metadata that comes from a backup, beside chunkservers that have gone on since.
//!
//! What was done after the backup is lost here and not there: replicas were placed, volumes attached,
//! ids issued. So a restored state leaves a gap in everything that only grows, wider than what can have
//! been issued meanwhile; and until an operator accepts it, it only listens: nothing is made, moved or
//! deleted, and the voters that a copyset's leader reports are taken over.

use std::collections::BTreeSet;

use ogee_proto::id::{ChunkserverId, CopysetId, Epoch, ReplicaId, StoreId, VolumeId};
use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::model::{Garbage, Replica, State};
use super::refusal::Refusal;
use super::topology::check_count;
use crate::limit::{REPLICAS_MAX, RESTORE_GAP, RESTORE_GAP_32, VOLUMES_MAX};

/// Where restored metadata comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Tells its group from the one that it was copied from; never 0.
    pub group: u64,
    /// When the backup was made, in milliseconds since 1970.
    pub backup_ms: u64,
    /// When it was restored.
    pub restored_ms: u64,
    /// The log entry that the backup was as of.
    pub applied: u64,
    /// An operator has said that it is as it should be.
    pub accepted: bool,
}

/// See [`super::Command::AdoptMembers`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptMembers {
    /// Which copyset.
    pub copyset: CopysetId,
    /// Its committed voters, and where they are.
    pub voters: Vec<(ReplicaId, StoreId)>,
}

/// See [`super::Command::DiscardVolume`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscardVolume {
    /// Which.
    pub volume: VolumeId,
    /// Where it has chunks, as reported.
    pub copysets: BTreeSet<CopysetId>,
}

impl State {
    /// What is known of the restore that this metadata comes from, if any.
    #[must_use]
    pub const fn restored(&self) -> Option<&Restored> {
        self.restored.as_ref()
    }

    /// Whether it only listens, until an operator accepts it.
    #[must_use]
    pub fn only_listens(&self) -> bool {
        self.restored.as_ref().is_some_and(|it| !it.accepted)
    }

    /// Which group's metadata it is; 0: the first one's.
    #[must_use]
    pub fn group(&self) -> u64 {
        self.restored.as_ref().map_or(0, |it| it.group)
    }

    /// The state of a backup as a new group begins with it.
    #[must_use]
    pub(crate) fn begin_anew(mut self, origin: Restored) -> Self {
        let issued = &mut self.issued;
        for id in [
            &mut issued.replica,
            &mut issued.volume,
            &mut issued.client,
            &mut issued.job,
        ] {
            *id += RESTORE_GAP;
        }
        for id in [
            &mut issued.pool,
            &mut issued.chunkserver,
            &mut issued.copyset,
        ] {
            *id += RESTORE_GAP_32;
        }
        for volume in self.volumes.values_mut() {
            volume.epoch = Epoch::new(volume.epoch.get() + RESTORE_GAP);
        }
        for copyset in self.copysets.values_mut() {
            copyset.conf_epoch += RESTORE_GAP;
        }
        // They are planned anew for what is then; absences and limping count from now on.
        self.jobs.retain(|_, job| !job.state.is_live());
        self.away.clear();
        self.ailing.clear();
        for sick in self.sick.values_mut() {
            sick.since_ms = origin.restored_ms;
        }
        self.events.skip(RESTORE_GAP);
        // What was done since is not known here; clients of then have given up.
        self.requests.clear();
        self.restored = Some(origin);
        self
    }

    pub(super) fn accept_restore(&mut self) -> Outcome {
        let Some(restored) = &mut self.restored else {
            return Err(Refusal::NotRestored);
        };
        restored.accepted = true;
        for copyset in self.copysets.values_mut().filter(|c| c.formed) {
            let joining = copyset.change.iter_mut().map(|change| &mut change.joining);
            // One of a group that has had a leader may have existed, and must not be made again.
            for replica in copyset.replicas.iter_mut().chain(joining) {
                replica.created = true;
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn adopt_members(&mut self, command: &AdoptMembers) -> Outcome {
        if !self.only_listens() {
            return Err(Refusal::NotRestored);
        }
        let id = command.copyset;
        let copyset = self.copysets.get(&id);
        let copyset = copyset.ok_or(Refusal::NoCopyset { copyset: id })?;
        check_count("replicas of a copyset", command.voters.len(), REPLICAS_MAX)?;
        let mut adopted: Vec<Replica> = Vec::new();
        for (replica, store) in &command.voters {
            let known = self.stores.get(store);
            let chunkserver = known.ok_or(Refusal::NoStore { store: *store })?.chunkserver;
            if replica.get() > self.issued.replica {
                let replica = *replica;
                return Err(Refusal::NoReplica {
                    copyset: id,
                    replica,
                });
            }
            adopted.push(Replica {
                id: *replica,
                chunkserver,
                store: *store,
                created: true,
            });
        }
        let ids: BTreeSet<ReplicaId> = adopted.iter().map(|replica| replica.id).collect();
        if ids.len() != adopted.len() || adopted.is_empty() {
            return Err(Refusal::BadPlacement { at: 0 });
        }
        let before: BTreeSet<ChunkserverId> = copyset.placed().map(|r| r.chunkserver).collect();
        // Those that were known keep their order: the first one is the preferred leader.
        let rank = |of: &Replica| copyset.replicas.iter().position(|r| r.id == of.id);
        adopted.sort_by_key(|replica| rank(replica).unwrap_or(usize::MAX));
        let wanted = self.pools.get(&copyset.pool);
        let wanted = wanted.map_or(0, |pool| usize::from(pool.replicas));
        if let Some(copyset) = self.copysets.get_mut(&id) {
            copyset.leaving.retain(|replica| !ids.contains(&replica.id));
            let places = copyset.replicas.iter().chain(&copyset.vacant);
            let gone = places.filter(|replica| !ids.contains(&replica.id));
            copyset.vacant = gone
                .take(wanted.saturating_sub(ids.len()))
                .cloned()
                .collect();
            copyset.reset = None;
            copyset.replicas = adopted;
            copyset.change = None;
            copyset.formed = true;
            copyset.conf_epoch += 1;
        }
        self.rehost(id, &before);
        Ok(Reply::Done)
    }

    /// Puts the index of who hosts a copyset right, and has removed volumes' chunks freed there too.
    fn rehost(&mut self, id: CopysetId, before: &BTreeSet<ChunkserverId>) {
        let Some(copyset) = self.copysets.get(&id) else {
            return;
        };
        let now: BTreeSet<ChunkserverId> = copyset.placed().map(|r| r.chunkserver).collect();
        for server in before.difference(&now) {
            if let Some(hosted) = self.hosted.get_mut(server) {
                hosted.remove(&id);
            }
        }
        for server in &now {
            self.hosted.entry(*server).or_default().insert(id);
        }
        let garbage = self.garbage.values_mut();
        for garbage in garbage.filter(|garbage| garbage.copysets.contains(&id)) {
            garbage.pending.extend(now.difference(before));
        }
    }

    pub(super) fn discard_volume(&mut self, command: &DiscardVolume) -> Outcome {
        let id = command.volume;
        if let Some(volume) = self.volumes.get(&id) {
            let name = volume.name.clone();
            return Err(Refusal::VolumeKnown { name });
        }
        if self.only_listens() {
            return Err(Refusal::NotAccepted);
        }
        check_count("volumes being removed", self.garbage.len() + 1, VOLUMES_MAX)?;
        let copysets = command.copysets.iter().copied();
        let copysets: BTreeSet<CopysetId> = copysets
            .filter(|id| self.copysets.contains_key(id))
            .collect();
        let pending = self.hosts(&copysets);
        if !pending.is_empty() {
            self.garbage.insert(id, Garbage { copysets, pending });
        }
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::{Restored, State};
    use crate::state::{Cause, Command, JobKind, PauseJobs, Sick, SickStage};
    use ogee_proto::id::StoreId;

    const fn origin() -> Restored {
        Restored {
            group: 7,
            backup_ms: 2,
            restored_ms: 900_000,
            applied: 3,
            accepted: false,
        }
    }

    #[test]
    fn a_device_that_limped_still_does_and_has_its_time_anew() {
        let mut state = State::default();
        let (stage, store) = (SickStage::Limping, StoreId::default());
        state.sick.insert(store, Sick { stage, since_ms: 1 });
        let origin = origin();
        let since_ms = origin.restored_ms;
        let restored = state.begin_anew(origin);
        assert_eq!(restored.sick(store), Some(Sick { stage, since_ms }));
    }

    /// An operator's wish is no matter of the moment: only an operator ends it (docs/operations.md, Restore).
    #[test]
    fn a_backup_made_while_jobs_are_paused_restores_them_paused() {
        let mut state = State::default();
        let pause = Command::PauseJobs(PauseJobs { at_ms: 5 });
        state.apply(&pause).expect("paused");
        let mut restored = state.begin_anew(origin());
        assert_eq!(restored.paused_since(), Some(5));
        restored.apply(&Command::AcceptRestore).expect("accepted");
        assert_eq!(restored.paused_since(), Some(5));
        assert!(!restored.may_begin(JobKind::Recover, Cause::Lost));
    }
}
