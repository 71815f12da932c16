//! What write-back hands to the store.

use ogee_proto::id::ChunkKey;
use ogee_proto::limit::BLOCKS_PER_EXTENT;
use ogee_proto::unit::BlockIndex;
use ogee_runtime::Payload;

/// New content of one block.
#[derive(Clone)]
pub enum BlockChange {
    /// Exactly one block of data.
    Data(Payload),
    /// The same, and the CRC32C that came with it: it goes on into the store's, so that a byte that changed in
    /// memory meanwhile is found when the block is read.
    Summed(Payload, u32),
    /// The block becomes absent and reads as zeros.
    Zero,
}

impl BlockChange {
    /// The data, unless it is zeros.
    #[must_use]
    pub const fn data(&self) -> Option<&Payload> {
        match self {
            Self::Data(data) | Self::Summed(data, _) => Some(data),
            Self::Zero => None,
        }
    }
}

/// The extent that a block lies in.
#[must_use]
pub const fn extent_of(key: ChunkKey, block: BlockIndex) -> (ChunkKey, usize) {
    (key, block.as_usize() / BLOCKS_PER_EXTENT)
}

/// Cuts blocks to write back, which are sorted, into bursts of `most`, or more: none ends within an extent.
pub fn bursts<T>(
    dirty: &[T],
    most: usize,
    extent_of: impl Fn(&T) -> (ChunkKey, usize),
) -> impl Iterator<Item = &[T]> {
    let mut rest = dirty;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut len = most.min(rest.len());
        while len < rest.len() && extent_of(&rest[len]) == extent_of(&rest[len - 1]) {
            len += 1;
        }
        let (burst, after) = rest.split_at(len);
        rest = after;
        Some(burst)
    })
}

/// One block to write back.
#[derive(Clone)]
pub struct WriteBack {
    /// The chunk.
    pub key: ChunkKey,
    /// The block within it.
    pub block: BlockIndex,
    /// Its new content.
    pub what: BlockChange,
}

/// Sorts by place and keeps the last of several changes to one block.
pub fn sort(mut changes: Vec<WriteBack>) -> Vec<WriteBack> {
    changes.sort_by_key(|change| (change.key, change.block));
    // `dedup_by` drops the first argument, which is the later one: swap to keep the newest.
    changes.dedup_by(|later, earlier| {
        let is_same = (later.key, later.block) == (earlier.key, earlier.block);
        if is_same {
            std::mem::swap(later, earlier);
        }
        is_same
    });
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::id::{ChunkIndex, VolumeId};

    #[test]
    fn the_last_change_of_a_block_wins() {
        let change = |chunk, block, byte: u8| WriteBack {
            key: ChunkKey {
                volume: VolumeId::new(1),
                chunk: ChunkIndex::new(chunk),
            },
            block: BlockIndex::new(block).unwrap(),
            what: BlockChange::Data(Payload::from(vec![byte])),
        };
        let list = vec![
            change(1, 5, 1),
            change(0, 9, 2),
            change(1, 5, 3),
            change(1, 5, 4),
        ];
        let sorted: Vec<_> = sort(list)
            .into_iter()
            .map(|change| match change.what {
                BlockChange::Data(data) => (change.key.chunk.get(), data[0]),
                BlockChange::Summed(..) | BlockChange::Zero => panic!("only data was given"),
            })
            .collect();
        assert_eq!(sorted, [(0, 2), (1, 4)]);
    }
}
