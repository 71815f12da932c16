//! A set of blocks of one chunk.

use ogee_proto::limit::BLOCKS_PER_CHUNK;
use ogee_proto::unit::BlockIndex;

const WORDS: usize = BLOCKS_PER_CHUNK / 64;

/// A set of blocks of one chunk: 4096 bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockBitmap(Box<[u64; WORDS]>);

impl BlockBitmap {
    /// No block.
    #[must_use]
    pub fn empty() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// Whether the set holds `block`.
    #[must_use]
    pub fn contains(&self, block: BlockIndex) -> bool {
        self.0[block.as_usize() / 64] & (1 << (block.as_usize() % 64)) != 0
    }

    /// Adds `block`.
    pub fn insert(&mut self, block: BlockIndex) {
        self.0[block.as_usize() / 64] |= 1 << (block.as_usize() % 64);
    }

    /// How many blocks the set holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// The blocks, ascending.
    pub fn iter(&self) -> impl Iterator<Item = BlockIndex> + '_ {
        (0..BLOCKS_PER_CHUNK)
            .filter_map(BlockIndex::new)
            .filter(|&block| self.contains(block))
    }
}
