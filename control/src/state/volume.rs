//! Commands on volumes.

use std::collections::{BTreeMap, BTreeSet};

use ogee_proto::id::{ChunkserverId, ClientId, CopysetId, Epoch, VolumeId};
use ogee_proto::limit::{BLOCK_SIZE, VOLUME_SIZE_MAX, VOLUME_SIZE_MIN};
use ogee_proto::unit::ByteLen;

use super::command::{
    Attach, ConfirmRemoval, CreateVolume, Detach, Outcome, RemoveVolume, Reply, ResizeVolume,
};
use super::label::check_labels;
use super::map;
use super::model::{Attachment, Garbage, MapSegment, Pool, State, Stripe, Users, Volume};
use super::quota::Usage;
use super::refusal::Refusal;
use super::topology::{check_count, check_text};
use crate::limit::{READERS_MAX, SEGMENTS_MAX, VOLUMES_MAX};

impl Volume {
    /// The refusal that names who is in the way.
    fn attached(&self) -> Refusal {
        let host = self.users.all().first();
        Refusal::VolumeAttached {
            name: self.name.clone(),
            host: host.map_or("", |user| user.host.as_str()).into(),
        }
    }
}

impl State {
    pub(super) fn create_volume(&mut self, command: &CreateVolume) -> Outcome {
        self.check_place(&command.name)?;
        let chunks = chunk_count(command.size, command.stripe)?;
        check_text("owner", &command.owner)?;
        check_labels(&command.name, &command.labels)?;
        check_count("volumes", self.volumes.len() + 1, VOLUMES_MAX)?;
        let (pool_id, pool) = self.pool(command.pool.as_str())?;
        if command.replicas != 0 && command.replicas != u32::from(pool.replicas) {
            return Err(Refusal::ReplicasDiffer {
                pool: pool.name.clone(),
                replicas: pool.replicas,
                asked: command.replicas,
            });
        }
        self.check_policy(pool_id, pool, 0, command.size, true)?;
        let (owner, name) = (Some(command.owner.as_str()), &command.name);
        let more = Usage {
            bytes: command.size,
            volumes: 1,
        };
        self.check_quotas(owner, name.ancestors(), more)?;
        let id = VolumeId::new(self.issued.volume + 1);
        let copysets = self.spread(pool, chunks, id, &BTreeSet::new())?;
        self.issued.volume = id.get();
        let segments = vec![MapSegment {
            first_chunk: 0,
            copysets,
        }];
        self.carry(&map::load(&segments, 0, chunks));
        let volume = Volume {
            name: command.name.clone(),
            pool: pool_id,
            size: command.size,
            stripe: command.stripe,
            chunks,
            segments,
            epoch: Epoch::default(),
            users: Users::Nobody,
            owner: command.owner.clone(),
            labels: command.labels.clone(),
            created_unix_ms: command.created_unix_ms,
        };
        self.names.insert(command.name.clone(), id);
        let made = Box::new(volume.clone());
        self.volumes.insert(id, volume);
        Ok(Reply::Volume(id, made))
    }

    /// The copysets that a volume of `chunks` chunks needs beside those that it `has`. Only
    /// copysets that have had a leader count: a client must be able to write at once.
    fn spread(
        &self,
        pool: &Pool,
        chunks: u32,
        volume: VolumeId,
        has: &BTreeSet<CopysetId>,
    ) -> Result<Vec<CopysetId>, Refusal> {
        let needed = map::wanted(u64::from(chunks))
            .min(pool.copysets.len())
            .max(1);
        let formed: Vec<(CopysetId, u64)> = pool
            .copysets
            .iter()
            .filter_map(|id| Some((*id, self.copysets.get(id)?)))
            .filter(|(id, copyset)| copyset.formed && !has.contains(id))
            .map(|(id, copyset)| (id, copyset.chunks))
            .collect();
        if formed.len() + has.len() < needed {
            return Err(Refusal::PoolNotReady {
                pool: pool.name.clone(),
                formed: formed.len() + has.len(),
                needed,
            });
        }
        let more = needed.saturating_sub(has.len());
        if more == 0 {
            return Ok(Vec::new());
        }
        Ok(map::choose(&formed, more, volume.get()))
    }

    fn carry(&mut self, load: &BTreeMap<CopysetId, u64>) {
        for (id, chunks) in load {
            if let Some(copyset) = self.copysets.get_mut(id) {
                copyset.chunks += chunks;
            }
        }
    }

    pub(super) fn resize_volume(&mut self, command: &ResizeVolume) -> Outcome {
        let (id, volume) = self.volume(command.name.as_str())?;
        if command.size < volume.size {
            return Err(Refusal::Shrink {
                name: command.name.clone(),
                from: volume.size,
                to: command.size,
            });
        }
        let chunks = chunk_count(command.size, volume.stripe)?;
        if let Some(pool) = self.pools.get(&volume.pool) {
            self.check_policy(volume.pool, pool, volume.size, command.size, false)?;
        }
        let more = Usage {
            bytes: command.size - volume.size,
            volumes: 0,
        };
        self.check_quotas(Some(&volume.owner), volume.name.ancestors(), more)?;
        let (from, mut segments) = (volume.chunks, volume.segments.clone());
        if chunks > from {
            segments.extend(self.next_segment(id, volume, chunks)?);
        }
        check_count("segments of a volume map", segments.len(), SEGMENTS_MAX)?;
        self.carry(&map::load(&segments, from, chunks));
        let volume = self.volumes.get_mut(&id).expect("invariant: just found");
        volume.size = command.size;
        volume.chunks = chunks;
        volume.segments = segments;
        Ok(Reply::Volume(id, Box::new(volume.clone())))
    }

    /// The segment for chunks past the present end, if more copysets are due. The present
    /// segments stay as they are, so no chunk moves.
    fn next_segment(
        &self,
        id: VolumeId,
        volume: &Volume,
        chunks: u32,
    ) -> Result<Option<MapSegment>, Refusal> {
        let gone = || Refusal::NoPool {
            name: volume.pool.to_string().into(),
        };
        let pool = self.pools.get(&volume.pool).ok_or_else(gone)?;
        let has = volume.copysets();
        let more = self.spread(pool, chunks, id, &has)?;
        let newest = volume.segments.last().map(|s| s.copysets.clone());
        Ok((!more.is_empty()).then(|| MapSegment {
            first_chunk: volume.chunks,
            copysets: more.into_iter().chain(newest.unwrap_or_default()).collect(),
        }))
    }

    pub(super) fn remove_volume(&mut self, command: &RemoveVolume) -> Outcome {
        let (id, volume) = self.volume(command.name.as_str())?;
        if !volume.users.all().is_empty() {
            return Err(volume.attached());
        }
        check_count("volumes being removed", self.garbage.len() + 1, VOLUMES_MAX)?;
        let copysets = volume.copysets();
        let load = map::load(&volume.segments, 0, volume.chunks);
        for (copyset, chunks) in load {
            if let Some(copyset) = self.copysets.get_mut(&copyset) {
                copyset.chunks = copyset.chunks.saturating_sub(chunks);
            }
        }
        let pending = self.hosts(&copysets);
        self.garbage.insert(id, Garbage { copysets, pending });
        self.volumes.remove(&id);
        self.names.remove(&command.name);
        Ok(Reply::Done)
    }

    /// Also those that are about to have a replica: what they copy may hold the chunks.
    pub(super) fn hosts(&self, copysets: &BTreeSet<CopysetId>) -> BTreeSet<ChunkserverId> {
        let copysets = copysets.iter().filter_map(|id| self.copysets.get(id));
        copysets
            .flat_map(|c| c.members().map(|r| r.chunkserver))
            .collect()
    }

    pub(super) fn attach(&mut self, command: &Attach) -> Outcome {
        check_text("host", &command.host)?;
        let (id, volume) = self.volume(command.name.as_str())?;
        check_count(
            "readers of a volume",
            volume.users.all().len() + 1,
            READERS_MAX,
        )?;
        let is_in_the_way = match volume.users {
            Users::Nobody => false,
            Users::Writer(_) => command.read_only,
            Users::Readers(_) => !command.read_only,
        };
        if is_in_the_way {
            return Err(volume.attached());
        }
        self.issued.client += 1;
        let client = ClientId::new(self.issued.client);
        let user = Attachment {
            client,
            host: command.host.clone(),
        };
        let volume = self.volumes.get_mut(&id).expect("invariant: just found");
        if let Users::Readers(readers) = &mut volume.users {
            readers.push(user);
        } else {
            volume.epoch = Epoch::new(volume.epoch.get() + 1);
            volume.users = match command.read_only {
                true => Users::Readers(vec![user]),
                false => Users::Writer(user),
            };
        }
        let attached = Reply::Attached {
            id,
            client,
            epoch: volume.epoch,
            volume: Box::new(volume.clone()),
        };
        self.forget_renamed();
        Ok(attached)
    }

    pub(super) fn detach(&mut self, command: &Detach) -> Outcome {
        let name = command.name.as_str();
        let (id, _) = match command.force {
            true => self.volume(name)?,
            false => self.volume_of(name, command.client)?,
        };
        let volume = self.volumes.get_mut(&id).expect("invariant: just found");
        if command.force {
            volume.epoch = Epoch::new(volume.epoch.get() + 1);
            volume.users = Users::Nobody;
            self.forget_renamed();
            return Ok(Reply::Done);
        }
        let is_others = matches!(&volume.users, Users::Writer(one) if one.client != command.client);
        if is_others || volume.epoch != command.epoch {
            return Err(Refusal::StaleAttachment {
                name: command.name.clone(),
                epoch: volume.epoch.get(),
            });
        }
        // Gone already: the answer to the first try was lost.
        volume.users.remove(command.client);
        self.forget_renamed();
        Ok(Reply::Done)
    }

    pub(super) fn confirm_removal(&mut self, command: &ConfirmRemoval) -> Reply {
        for id in &command.volumes {
            if let Some(garbage) = self.garbage.get_mut(id) {
                garbage.pending.remove(&command.chunkserver);
                if garbage.pending.is_empty() {
                    self.garbage.remove(id);
                }
            }
        }
        Reply::Done
    }
}

fn chunk_count(size: u64, stripe: Stripe) -> Result<u32, Refusal> {
    let in_range = (VOLUME_SIZE_MIN..=VOLUME_SIZE_MAX).contains(&size);
    if !in_range || !size.is_multiple_of(BLOCK_SIZE as u64) {
        return Err(Refusal::BadSize { size });
    }
    let chunks = stripe.layout().chunk_count(ByteLen::new(size));
    u32::try_from(chunks).map_err(|_| Refusal::BadSize { size })
}
