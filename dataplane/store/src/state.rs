//! Maps, allocators and pending changes in RAM.
//!
//! *Place*: between the public operations and the tree on disk. *Owner*: the store's shard, behind
//! a `RefCell` that is never borrowed across an await; every function here runs to completion.
//! *Invariants*: an extent is exactly one of free, reserved by a write-back, mapped by one chunk,
//! freed and waiting for a checkpoint, or held by the log alone; those mapped or freed may be pinned
//! by the log as well (`pins`), and are not free before that ends, too; a leaf that differs from the durable tree is in `dirty`.
//! *On failure*: functions that can refuse do so before they change anything.

use crate::chunk::Chunk;
use crate::error::{Space, StoreError};
use crate::free_map::FreeMap;
use crate::geometry::{ExtentId, Geometry};
use crate::group_state::GroupCheckpoint;
use crate::pins::Pins;
use ogee_proto::id::{ChunkKey, CopysetId, StoreId, VolumeId};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// One fifth of a chunk's map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LeafId {
    /// The chunk.
    pub key: ChunkKey,
    /// Which fifth.
    pub part: u8,
}

/// Everything that the store knows, in RAM.
pub struct State {
    pub(crate) store: StoreId,
    pub(crate) chunks: FxHashMap<ChunkKey, Chunk>,
    /// Chunks of each copyset, empty ones under construction included.
    pub(crate) by_copyset: BTreeMap<CopysetId, BTreeSet<ChunkKey>>,
    /// Groups as of the last durable checkpoint.
    pub(crate) groups: BTreeMap<CopysetId, GroupCheckpoint>,
    /// Groups removed since the last cut, with the pages that they have on disk.
    pub(crate) removed_groups: Vec<(CopysetId, u32)>,
    /// Pages of groups' states of which no good copy is left on disk: written with the next cut.
    pub(crate) lost_parts: BTreeSet<(CopysetId, u32)>,
    pub(crate) dirty: BTreeSet<LeafId>,
    pub(crate) extents: FreeMap,
    /// Extents that records of the log name.
    pub(crate) pins: Pins,
    /// Freed since the last cut: the durable tree may still name them.
    pub(crate) freed: Vec<ExtentId>,
    /// Freed before the cut of a checkpoint that is under way.
    pub(crate) freed_in_cut: u32,
    /// Leaves that exist, and those that a write-back may still create.
    pub(crate) leaves: u32,
    pub(crate) leaves_reserved: u32,
    pub(crate) leaves_max: u32,
    pub(crate) group_pages_max: u32,
    pub(crate) next_generation: u64,
}

impl State {
    /// An empty store.
    pub fn new(store: StoreId, geometry: &Geometry, next_generation: u64) -> Self {
        Self {
            store,
            chunks: FxHashMap::default(),
            by_copyset: BTreeMap::new(),
            groups: BTreeMap::new(),
            removed_groups: Vec::new(),
            lost_parts: BTreeSet::new(),
            dirty: BTreeSet::new(),
            extents: FreeMap::new(geometry.extents),
            pins: Pins::default(),
            freed: Vec::new(),
            freed_in_cut: 0,
            leaves: 0,
            leaves_reserved: 0,
            leaves_max: geometry.leaves_max(),
            group_pages_max: geometry.group_pages_max(),
            next_generation,
        }
    }

    /// The chunk, if it holds anything and belongs to `copyset`.
    ///
    /// # Errors
    /// [`StoreError::WrongCopyset`] when it belongs to another.
    pub fn chunk(&self, copyset: CopysetId, key: ChunkKey) -> Result<Option<&Chunk>, StoreError> {
        match self.chunks.get(&key) {
            Some(chunk) if chunk.copyset != copyset => Err(StoreError::WrongCopyset {
                key,
                owner: chunk.copyset,
                asked: copyset,
            }),
            found => Ok(found),
        }
    }

    /// The chunk, created empty if it does not exist. The caller has checked the copyset.
    pub fn chunk_or_new(&mut self, copyset: CopysetId, key: ChunkKey) -> &mut Chunk {
        let next_generation = &mut self.next_generation;
        let chunk = self.chunks.entry(key).or_insert_with(|| {
            *next_generation += 1;
            Chunk::new(copyset, *next_generation - 1)
        });
        assert_eq!(chunk.copyset, copyset, "a chunk changed its copyset");
        self.by_copyset.entry(copyset).or_default().insert(key);
        chunk
    }

    /// Forgets a chunk that holds nothing.
    pub fn drop_chunk_if_empty(&mut self, key: ChunkKey) {
        let is_gone = |chunk: &Chunk| chunk.is_empty() && !chunk.is_busy();
        if self.chunks.get(&key).is_some_and(is_gone) {
            self.forget(key);
        }
    }

    /// Removes a chunk; its extents become reusable after the next checkpoint.
    ///
    /// # Errors
    /// [`StoreError::WrongCopyset`] when it belongs to another.
    pub fn remove_chunk(&mut self, copyset: CopysetId, key: ChunkKey) -> Result<(), StoreError> {
        let Some(chunk) = self.chunk(copyset, key)? else {
            return Ok(());
        };
        assert!(
            !chunk.is_busy(),
            "removal takes its turn after write-backs of the group"
        );
        let parts: Vec<u8> = chunk.leaves().map(|(part, _)| part).collect();
        let extents: Vec<ExtentId> = chunk
            .leaves()
            .flat_map(|(_, leaf)| leaf.extents())
            .collect();
        self.leaves -= u32::try_from(parts.len()).expect("invariant: five leaves");
        self.dirty
            .extend(parts.into_iter().map(|part| LeafId { key, part }));
        self.freed.extend(extents);
        self.forget(key);
        Ok(())
    }

    /// Removes every chunk of a group, and its checkpointed state.
    pub fn remove_group(&mut self, copyset: CopysetId) -> Result<(), StoreError> {
        for key in self.chunks_of(copyset) {
            self.remove_chunk(copyset, key)?;
        }
        if let Some(group) = self.groups.remove(&copyset) {
            self.removed_groups.push((copyset, group.pages()));
        }
        Ok(())
    }

    /// Chunks of a copyset that hold anything, ascending.
    pub fn chunks_of(&self, copyset: CopysetId) -> Vec<ChunkKey> {
        let keys = self.by_copyset.get(&copyset).into_iter().flatten();
        keys.filter(|key| !self.chunks[key].is_empty())
            .copied()
            .collect()
    }

    /// The first chunk of a copyset behind `after` that holds anything.
    pub fn chunk_after(&self, copyset: CopysetId, after: ChunkKey) -> Option<ChunkKey> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let mut keys = self.by_copyset.get(&copyset)?.range(behind);
        keys.find(|key| !self.chunks[*key].is_empty()).copied()
    }

    /// Chunks of one volume in a copyset, ascending.
    pub fn chunks_of_volume(&self, copyset: CopysetId, volume: VolumeId) -> Vec<ChunkKey> {
        let keys = self.chunks_of(copyset).into_iter();
        keys.filter(|key| key.volume == volume).collect()
    }

    /// Extents that become free with the next checkpoint, or with one that is under way.
    pub fn pending(&self) -> u32 {
        let freed = u32::try_from(self.freed.len()).expect("invariant: extents count in u32");
        freed + self.freed_in_cut
    }

    /// Refuses when fewer extents or map pages are left than needed.
    pub fn check_space(&self, extents: u32, leaves: u32) -> Result<(), StoreError> {
        let (free, pending) = (self.extents.free(), self.pending());
        if extents > free {
            let (space, needed) = (Space::Extents, extents);
            return Err(StoreError::NoSpace {
                space,
                needed,
                free,
                pending,
            });
        }
        let free = self.leaves_max - self.leaves - self.leaves_reserved;
        if leaves > free {
            let (space, needed) = (Space::MapPages, leaves);
            return Err(StoreError::NoSpace {
                space,
                needed,
                free,
                pending: 0,
            });
        }
        Ok(())
    }

    fn forget(&mut self, key: ChunkKey) {
        let Some(chunk) = self.chunks.remove(&key) else {
            return;
        };
        if let Some(keys) = self.by_copyset.get_mut(&chunk.copyset) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_copyset.remove(&chunk.copyset);
            }
        }
    }
}
