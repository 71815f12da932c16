//! Blocks whose newest contents are in the log only: `group/overlay` without zeros.

use ogee_proto::id::ChunkKey;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::BlockIndex;
use std::collections::BTreeMap;
use std::ops::Range;

/// Where the newest contents of a block are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    /// The entry.
    pub(crate) index: u64,
    /// The block within its payload.
    page: u32,
}

/// One block to write back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dirty {
    pub(crate) key: ChunkKey,
    pub(crate) block: BlockIndex,
    pub(crate) slot: Slot,
}

/// The index of one group.
#[derive(Default)]
pub(crate) struct Index {
    chunks: BTreeMap<ChunkKey, BTreeMap<BlockIndex, Slot>>,
}

impl Slot {
    /// Its bytes within the entry's payload.
    pub(crate) const fn bytes(self) -> Range<usize> {
        let start = self.page as usize * BLOCK_SIZE;
        start..start + BLOCK_SIZE
    }
}

impl Index {
    /// Entry `index` wrote `count` blocks from `first` on.
    pub(crate) fn insert(&mut self, key: ChunkKey, first: BlockIndex, count: usize, index: u64) {
        let chunk = self.chunks.entry(key).or_default();
        for (block, page) in (first.as_usize()..first.as_usize() + count).zip(0..) {
            let block = BlockIndex::new(block).expect("invariant: checked when it was taken");
            chunk.insert(block, Slot { index, page });
        }
    }

    pub(crate) fn get(&self, key: ChunkKey, block: BlockIndex) -> Option<Slot> {
        self.chunks.get(&key)?.get(&block).copied()
    }

    /// Every block, in the order of the device.
    pub(crate) fn dirty(&self) -> Vec<Dirty> {
        let all = self.chunks.iter().flat_map(|(key, blocks)| {
            blocks.iter().map(|(block, slot)| Dirty {
                key: *key,
                block: *block,
                slot: *slot,
            })
        });
        all.collect()
    }

    /// Whether this version of the block is the newest.
    pub(crate) fn holds(&self, dirty: &Dirty) -> bool {
        self.get(dirty.key, dirty.block) == Some(dirty.slot)
    }

    /// Removes what has been written back, unless it was overwritten meanwhile.
    pub(crate) fn written_back(&mut self, dirty: &Dirty) {
        if !self.holds(dirty) {
            return;
        }
        if let Some(chunk) = self.chunks.get_mut(&dirty.key) {
            chunk.remove(&dirty.block);
            if chunk.is_empty() {
                self.chunks.remove(&dirty.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::id::{ChunkIndex, VolumeId};

    #[test]
    fn only_the_version_written_back_is_removed() {
        let key = ChunkKey {
            volume: VolumeId::new(1),
            chunk: ChunkIndex::new(0),
        };
        let block = |raw| BlockIndex::new(raw).unwrap();
        let mut index = Index::default();
        index.insert(key, block(4), 2, 10);
        let dirty = index.dirty();
        assert_eq!(dirty[1].slot.bytes(), BLOCK_SIZE..2 * BLOCK_SIZE);
        index.insert(key, block(5), 1, 11);
        dirty.iter().for_each(|dirty| index.written_back(dirty));
        assert_eq!(index.get(key, block(4)), None);
        assert_eq!(index.get(key, block(5)).unwrap().index, 11);
    }
}
