//! Questions to the metadata.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{
    ChunkIndex, ChunkserverId, CopysetId, JobId, PoolId, ReplicaId, StoreId, VolumeId,
};

use ogee_proto::name::Name;

use super::job::{Job, Mark};
use super::map;
use super::model::{Chunkserver, Cluster, Copyset, Garbage, Pool, Replica, State, Store, Volume};
use super::refusal::Refusal;

impl State {
    /// The cluster, once it is named.
    #[must_use]
    pub const fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// All pools.
    #[must_use]
    pub const fn pools(&self) -> &BTreeMap<PoolId, Pool> {
        &self.pools
    }

    /// All chunkservers.
    #[must_use]
    pub const fn chunkservers(&self) -> &BTreeMap<ChunkserverId, Chunkserver> {
        &self.chunkservers
    }

    /// All stores.
    #[must_use]
    pub const fn stores(&self) -> &BTreeMap<StoreId, Store> {
        &self.stores
    }

    /// All copysets.
    #[must_use]
    pub const fn copysets(&self) -> &BTreeMap<CopysetId, Copyset> {
        &self.copysets
    }

    /// All volumes.
    #[must_use]
    pub const fn volumes(&self) -> &BTreeMap<VolumeId, Volume> {
        &self.volumes
    }

    /// Removed volumes whose chunks some chunkserver still holds.
    #[must_use]
    pub const fn garbage(&self) -> &BTreeMap<VolumeId, Garbage> {
        &self.garbage
    }

    /// All jobs that are live, and the newest that have ended.
    #[must_use]
    pub const fn jobs(&self) -> &BTreeMap<JobId, Job> {
        &self.jobs
    }

    /// What an operator wants of a device.
    #[must_use]
    pub fn mark(&self, store: StoreId) -> Option<Mark> {
        self.marks.get(&store).copied()
    }

    /// Since when a device is away, in milliseconds since 1970.
    #[must_use]
    pub fn away_since(&self, store: StoreId) -> Option<u64> {
        self.away.get(&store).copied()
    }

    /// Since when a replica does not take part although its device is there.
    #[must_use]
    pub fn ailing_since(&self, replica: ReplicaId) -> Option<u64> {
        self.ailing.get(&replica).copied()
    }

    /// All of those.
    #[must_use]
    pub const fn ailing(&self) -> &BTreeMap<ReplicaId, u64> {
        &self.ailing
    }

    /// Copysets with a replica on `chunkserver`.
    pub fn hosted(&self, chunkserver: ChunkserverId) -> impl Iterator<Item = CopysetId> + '_ {
        self.hosted.get(&chunkserver).into_iter().flatten().copied()
    }

    /// Copysets of which the chunkserver of a device hosts a replica.
    pub(crate) fn hosted_beside(
        &self,
        store: StoreId,
    ) -> impl Iterator<Item = (CopysetId, &Copyset)> {
        let owner = self.stores.get(&store).map(|owned| owned.chunkserver);
        let hosted = owner.into_iter().flat_map(|server| self.hosted(server));
        hosted.filter_map(|id| Some((id, self.copysets.get(&id)?)))
    }

    /// Voters on a device, and their copysets.
    pub(crate) fn voters_on(
        &self,
        store: StoreId,
    ) -> impl Iterator<Item = (CopysetId, &Copyset, &Replica)> {
        self.hosted_beside(store).filter_map(move |(id, copyset)| {
            let voter = copyset.replicas.iter().find(|r| r.store == store)?;
            Some((id, copyset, voter))
        })
    }

    pub(crate) fn zone_of(&self, chunkserver: ChunkserverId) -> Option<&Name> {
        Some(&self.chunkservers.get(&chunkserver)?.zone)
    }

    /// Volumes in name order, after the name `after`.
    pub fn volumes_after(&self, after: &str) -> impl Iterator<Item = (VolumeId, &Volume)> {
        use std::ops::Bound;
        self.names
            .range::<str, _>((Bound::Excluded(after), Bound::Unbounded))
            .filter_map(|(_, id)| Some((*id, self.volumes.get(id)?)))
    }

    /// Volumes in name order whose names begin with `prefix`, after the name `after`.
    pub fn volumes_named<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = (VolumeId, &'a Volume)> {
        use std::ops::Bound;
        let from = match after < prefix {
            true => Bound::Included(prefix),
            false => Bound::Excluded(after),
        };
        let rest = self.names.range::<str, _>((from, Bound::Unbounded));
        rest.take_while(move |(name, _)| name.as_str().starts_with(prefix))
            .filter_map(|(_, id)| Some((*id, self.volumes.get(id)?)))
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// [`Refusal::NoVolume`].
    pub fn volume(&self, name: &str) -> Result<(VolumeId, &Volume), Refusal> {
        let id = self.names.get(name).copied();
        id.and_then(|id| Some((id, self.volumes.get(&id)?)))
            .ok_or_else(|| Refusal::NoVolume { name: name.into() })
    }

    /// The pool of that name.
    ///
    /// # Errors
    /// [`Refusal::NoPool`].
    pub fn pool(&self, name: &str) -> Result<(PoolId, &Pool), Refusal> {
        let found = self.pools.iter().find(|(_, p)| p.name.as_str() == name);
        found
            .map(|(id, pool)| (*id, pool))
            .ok_or_else(|| Refusal::NoPool { name: name.into() })
    }

    /// Copysets of a pool that have had a leader.
    #[must_use]
    pub fn formed(&self, pool: &Pool) -> usize {
        let formed = |id: &&CopysetId| self.copysets.get(id).is_some_and(|c| c.formed);
        pool.copysets.iter().filter(formed).count()
    }
}

impl Volume {
    /// The copyset that carries a chunk; `None` past the volume's end.
    #[must_use]
    pub fn copyset_of(&self, chunk: ChunkIndex) -> Option<CopysetId> {
        (chunk.get() < self.chunks).then(|| map::copyset_of(&self.segments, chunk.get()))?
    }

    /// Every copyset that the map names.
    #[must_use]
    pub fn copysets(&self) -> BTreeSet<CopysetId> {
        let all = self.segments.iter().flat_map(|s| s.copysets.iter());
        all.copied().collect()
    }
}
