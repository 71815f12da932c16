//! Committed blocks that still live in the log: the index of the write-back cache.
//!
//! *Place*: between apply, which inserts, and the write-back task, which removes.
//! *Owner*: one group; single-threaded, never borrowed across an await.
//! *Invariants*: for each block the entry with the highest log index wins; an entry is removed only
//! by the write-back of that same entry.
//! *On failure*: none; payloads are read elsewhere.

use ogee_proto::id::{ChunkKey, VolumeId};
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::BlockIndex;
use ogee_runtime::seeded_bug;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Where the newest contents of a block are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverlaySlot {
    /// Log index of the entry that wrote the block.
    pub index: u64,
    /// What it wrote.
    pub what: OverlayWhat,
}

/// What an entry made of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OverlayWhat {
    /// The payload's page of this number.
    Page(u32),
    /// Zeros.
    Zero,
}

impl OverlayWhat {
    /// Byte offset of the page within the entry's payload.
    #[must_use]
    pub const fn payload_offset(self) -> Option<usize> {
        match self {
            Self::Page(page) => Some(page as usize * BLOCK_SIZE),
            Self::Zero => None,
        }
    }
}

/// One block to write back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirtyBlock {
    /// Its chunk.
    pub key: ChunkKey,
    /// Its place in the chunk.
    pub block: BlockIndex,
    /// Its contents.
    pub slot: OverlaySlot,
}

/// The overlay of one group.
#[derive(Clone, Default)]
pub struct Overlay {
    chunks: BTreeMap<ChunkKey, BTreeMap<BlockIndex, OverlaySlot>>,
    blocks: usize,
}

impl Overlay {
    /// Records that entry `index` wrote `count` blocks from `first` on: payload pages in order, or
    /// zeros.
    pub fn insert(&mut self, key: ChunkKey, first: usize, count: usize, index: u64, zero: bool) {
        let chunk = self.chunks.entry(key).or_default();
        for page in 0..count {
            let block = BlockIndex::new(first + page).expect("range was checked at admission");
            let what = match u32::try_from(page) {
                Ok(page) if !zero => OverlayWhat::Page(page),
                _ => OverlayWhat::Zero,
            };
            let old = chunk.insert(block, OverlaySlot { index, what });
            assert!(
                old.is_none_or(|old| old.index < index),
                "entries apply in log order"
            );
            self.blocks += usize::from(old.is_none());
        }
    }

    /// The newest contents of a block, if they are still in the log.
    #[must_use]
    pub fn get(&self, key: ChunkKey, block: BlockIndex) -> Option<OverlaySlot> {
        self.chunks.get(&key)?.get(&block).copied()
    }

    /// The slots of blocks `first..first + count`, in order.
    pub fn range(
        &self,
        key: ChunkKey,
        first: BlockIndex,
        count: usize,
    ) -> impl Iterator<Item = (BlockIndex, OverlaySlot)> {
        let end = first.as_usize() + count;
        self.chunks
            .get(&key)
            .into_iter()
            .flat_map(move |chunk| chunk.range(first..))
            .map(|(block, slot)| (*block, *slot))
            .take_while(move |(block, _)| block.as_usize() < end)
    }

    /// Whether any block of the chunk is here.
    #[must_use]
    pub fn touches(&self, key: ChunkKey) -> bool {
        self.chunks.contains_key(&key)
    }

    /// Chunks with a block here.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkKey> {
        self.chunks.keys().copied()
    }

    /// The first chunk behind this one with a block here.
    pub fn chunk_after(&self, after: ChunkKey) -> Option<ChunkKey> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        self.chunks.range(behind).next().map(|(key, _)| *key)
    }

    /// Blocks that hold data, each with the entry that wrote it.
    pub fn data_blocks(&self) -> impl Iterator<Item = (ChunkKey, BlockIndex, u64)> {
        let all = self.chunks.iter();
        all.flat_map(|(key, blocks)| {
            let data = blocks
                .iter()
                .filter(|(_, slot)| slot.what != OverlayWhat::Zero);
            data.map(|(block, slot)| (*key, *block, slot.index))
        })
    }

    /// Every block written at or before `upto`, in device-friendly order.
    #[must_use]
    pub fn dirty(&self, upto: u64) -> Vec<DirtyBlock> {
        let all = self.chunks.iter().flat_map(|(key, blocks)| {
            blocks.iter().map(|(block, slot)| DirtyBlock {
                key: *key,
                block: *block,
                slot: *slot,
            })
        });
        all.filter(|dirty| dirty.slot.index <= upto).collect()
    }

    /// Whether this very version of the block is still the newest.
    #[must_use]
    pub fn holds(&self, dirty: &DirtyBlock) -> bool {
        self.get(dirty.key, dirty.block) == Some(dirty.slot)
    }

    /// Removes a block that has been written back, unless it was overwritten meanwhile.
    pub fn written_back(&mut self, dirty: &DirtyBlock) {
        let Some(chunk) = self.chunks.get_mut(&dirty.key) else {
            return;
        };
        let is_any = seeded_bug!("write-back-drops-newer") && chunk.contains_key(&dirty.block);
        if is_any || chunk.get(&dirty.block) == Some(&dirty.slot) {
            chunk.remove(&dirty.block);
            self.blocks -= 1;
        }
        if chunk.is_empty() {
            self.chunks.remove(&dirty.key);
        }
    }

    /// Forgets a removed volume's blocks.
    pub fn remove_volume(&mut self, volume: VolumeId) {
        self.chunks.retain(|key, _| key.volume != volume);
        self.blocks = self.chunks.values().map(BTreeMap::len).sum();
    }

    /// Forgets everything: a snapshot replaced the contents.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Blocks indexed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::id::ChunkIndex;

    fn key(chunk: u32) -> ChunkKey {
        ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(chunk),
        }
    }

    fn block(raw: usize) -> BlockIndex {
        BlockIndex::new(raw).unwrap()
    }

    #[test]
    fn the_newest_entry_wins() {
        let mut overlay = Overlay::default();
        overlay.insert(key(0), 0, 4, 10, false);
        overlay.insert(key(0), 1, 2, 11, true);
        assert_eq!(overlay.len(), 4);
        let at = |b| {
            overlay
                .get(key(0), block(b))
                .map(|slot| (slot.index, slot.what))
        };
        assert_eq!(at(0), Some((10, OverlayWhat::Page(0))));
        assert_eq!(at(1), Some((11, OverlayWhat::Zero)));
        assert_eq!(at(3), Some((10, OverlayWhat::Page(3))));
        assert_eq!(at(4), None);
    }

    #[test]
    fn only_the_version_written_back_is_removed() {
        let mut overlay = Overlay::default();
        overlay.insert(key(0), 0, 2, 10, false);
        let dirty = overlay.dirty(10);
        overlay.insert(key(0), 1, 1, 12, false);
        for block in &dirty {
            overlay.written_back(block);
        }
        assert_eq!(overlay.get(key(0), block(0)), None);
        assert_eq!(overlay.get(key(0), block(1)).unwrap().index, 12);
        assert_eq!(overlay.len(), 1);
    }

    #[test]
    fn dirty_stops_at_the_cut_and_range_at_its_end() {
        let mut overlay = Overlay::default();
        overlay.insert(key(0), 0, 1, 1, false);
        overlay.insert(key(2), 5, 3, 2, false);
        overlay.insert(key(1), 7, 1, 3, false);
        let blocks: Vec<_> = overlay
            .dirty(2)
            .iter()
            .map(|d| (d.key.chunk.get(), d.block))
            .collect();
        assert_eq!(
            blocks,
            [(0, block(0)), (2, block(5)), (2, block(6)), (2, block(7))]
        );
        let range: Vec<_> = overlay.range(key(2), block(6), 1).map(|(b, _)| b).collect();
        assert_eq!(range, [block(6)]);
        overlay.remove_volume(VolumeId::new(1));
        assert_eq!(overlay.len(), 0);
    }
}
