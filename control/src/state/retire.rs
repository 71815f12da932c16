//! Pools that are given up, with the copysets of which nobody has anything.
//!
//! A pool goes only with copysets that carry no chunk, not even of a volume that was removed and is not freed everywhere. Their
//! replicas are deleted like those that were replaced: each is named to its chunkserver until that says that it is done. *Invariant*:
//! what is retired is no copyset any more, so nothing is placed, healed or balanced there; its ids are never used again.

use std::collections::BTreeSet;

use ogee_proto::id::{ChunkserverId, CopysetId, JobId, PoolId, ReplicaId};
use ogee_proto::name::Name;
use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::job::Ending;
use super::model::{Pool, Replica, State};
use super::refusal::Refusal;

/// See [`super::Command::RemovePool`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovePool {
    /// Which.
    pub name: Name,
    /// Where volumes go that name no pool, while none has a weight.
    pub otherwise: Name,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl State {
    /// Replicas of removed pools that a chunkserver is to delete.
    pub fn retired_on(
        &self,
        chunkserver: ChunkserverId,
    ) -> impl Iterator<Item = (CopysetId, ReplicaId)> + '_ {
        let all = self.retired.iter();
        all.flat_map(move |(id, replicas)| {
            let here = replicas
                .iter()
                .filter(move |r| r.chunkserver == chunkserver);
            here.map(|r| (*id, r.id))
        })
    }

    /// Whether that one is to be deleted there.
    #[must_use]
    pub fn is_retired(&self, server: ChunkserverId, copyset: CopysetId, id: ReplicaId) -> bool {
        let mut replicas = self.retired.get(&copyset).into_iter().flatten();
        replicas.any(|r| r.id == id && r.chunkserver == server)
    }

    pub(super) fn remove_pool(&mut self, command: &RemovePool) -> Outcome {
        let (id, pool) = self.pool(command.name.as_str())?;
        self.check_removal(id, pool, &command.otherwise)?;
        let copysets = pool.copysets.clone();
        let is_theirs = |job: JobId| {
            let job = self.jobs.get(&job);
            job.is_some_and(|job| job.state.is_live() && copysets.contains(&job.copyset))
        };
        let jobs: Vec<JobId> = self
            .jobs
            .keys()
            .copied()
            .filter(|id| is_theirs(*id))
            .collect();
        for job in jobs {
            self.close(job, Ending::NotNeeded, command.at_ms);
        }
        for copyset in copysets {
            self.retire(copyset);
        }
        self.pools.remove(&id);
        Ok(Reply::Done)
    }

    fn check_removal(&self, id: PoolId, pool: &Pool, otherwise: &Name) -> Result<(), Refusal> {
        let name = || pool.name.clone();
        let volumes = self.volumes.values().filter(|volume| volume.pool == id);
        let count = volumes.clone().count();
        if let Some(first) = volumes.map(|volume| volume.name.clone()).min() {
            return Err(Refusal::PoolInUse {
                pool: name(),
                first,
                count,
            });
        }
        let is_removed_from = |copyset: &CopysetId| {
            let mut garbage = self.garbage.values();
            garbage.any(|garbage| garbage.copysets.contains(copyset))
        };
        let is_busy = |copyset: &CopysetId| {
            let known = self.copysets.get(copyset);
            known.is_some_and(|it| it.chunks > 0 || it.change.is_some() || it.reset.is_some())
        };
        let mut copysets = pool.copysets.iter();
        if let Some(copyset) = copysets.find(|it| is_busy(it) || is_removed_from(it)) {
            return Err(Refusal::PoolBusy {
                pool: name(),
                copyset: *copyset,
            });
        }
        let mut others = self.pools.iter().filter(|(other, _)| **other != id);
        let is_default = pool.name == *otherwise;
        if others.clone().next().is_none()
            || (is_default && !others.any(|(_, other)| other.weight > 0))
        {
            return Err(Refusal::PoolNeeded { pool: name() });
        }
        Ok(())
    }

    fn retire(&mut self, id: CopysetId) {
        let Some(copyset) = self.copysets.remove(&id) else {
            return;
        };
        for replica in &copyset.replicas {
            self.ailing.remove(&replica.id);
        }
        let placed: Vec<Replica> = copyset.placed().cloned().collect();
        let at: BTreeSet<ChunkserverId> = placed.iter().map(|r| r.chunkserver).collect();
        for server in at {
            if let Some(hosted) = self.hosted.get_mut(&server) {
                hosted.remove(&id);
            }
        }
        if !placed.is_empty() {
            self.retired.insert(id, placed);
        }
    }

    /// One was deleted.
    pub(super) fn forget_retired(&mut self, copyset: CopysetId, replica: ReplicaId) {
        if let Some(replicas) = self.retired.get_mut(&copyset) {
            replicas.retain(|r| r.id != replica);
            if replicas.is_empty() {
                self.retired.remove(&copyset);
            }
        }
    }

    /// A chunkserver is forgotten, with what it was to delete.
    pub(super) fn forget_retired_on(&mut self, server: ChunkserverId) {
        for replicas in self.retired.values_mut() {
            replicas.retain(|r| r.chunkserver != server);
        }
        self.retired.retain(|_, replicas| !replicas.is_empty());
    }
}
