//! One chunk's map in RAM.

use crate::allocated::BlockBitmap;
use crate::geometry::ExtentId;
use crate::leaf::{Leaf, Place, Stored};
use crate::limit::LEAVES_PER_CHUNK;
use ogee_proto::id::CopysetId;
use ogee_proto::limit::BLOCKS_PER_CHUNK;
use ogee_proto::unit::BlockIndex;
use std::rc::Rc;

/// One chunk's map. A leaf exists exactly when it maps something.
pub struct Chunk {
    /// The group that owns the chunk.
    pub copyset: CopysetId,
    /// Salt of this life of the chunk.
    pub generation: u64,
    /// Shared with a running checkpoint, which keeps the state of its cut: a change after the cut
    /// copies the leaf first.
    leaves: [Option<Rc<Leaf>>; LEAVES_PER_CHUNK],
    /// Grows whenever a write-back starts or ends here, so a read can tell that it was overtaken.
    version: u64,
    /// Blocks that a write-back is writing right now.
    writing: Option<BlockBitmap>,
}

impl Chunk {
    /// A chunk without any block.
    pub fn new(copyset: CopysetId, generation: u64) -> Self {
        Self {
            copyset,
            generation,
            leaves: Default::default(),
            version: 0,
            writing: None,
        }
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.leaves.iter().all(Option::is_none)
    }

    /// Whether a write-back is under way.
    pub fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether a write-back is writing this very block.
    pub fn is_writing(&self, block: BlockIndex) -> bool {
        self.writing
            .as_ref()
            .is_some_and(|writing| writing.contains(block))
    }

    /// Grows with every start and end of a write-back.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Notes which blocks a write-back is about to write; `None` when it has ended.
    pub fn set_writing(&mut self, writing: Option<BlockBitmap>) {
        self.writing = writing;
        self.version += 1;
    }

    /// One fifth of the map.
    pub fn leaf(&self, part: u8) -> Option<&Rc<Leaf>> {
        self.leaves[usize::from(part)].as_ref()
    }

    /// The extent mapped at a place.
    pub fn extent(&self, place: Place) -> Option<ExtentId> {
        self.leaf(place.part)?.extent(place)
    }

    /// A block, if it is present.
    pub fn stored(&self, block: BlockIndex) -> Option<Stored> {
        let place = Place::of(block);
        self.leaf(place.part)?.stored(place)
    }

    /// The leaf, to be changed; created if it does not exist, and whether it was.
    pub fn leaf_mut(&mut self, part: u8) -> (&mut Leaf, bool) {
        let slot = &mut self.leaves[usize::from(part)];
        let is_new = slot.is_none();
        (
            Rc::make_mut(slot.get_or_insert_with(|| Rc::new(Leaf::empty()))),
            is_new,
        )
    }

    /// Installs a leaf found on disk; false if there is one already.
    pub fn install(&mut self, part: u8, leaf: Leaf) -> bool {
        self.leaves[usize::from(part)]
            .replace(Rc::new(leaf))
            .is_none()
    }

    /// Drops a leaf if it maps nothing; whether it did.
    pub fn drop_if_empty(&mut self, part: u8) -> bool {
        let slot = &mut self.leaves[usize::from(part)];
        let is_empty = slot.as_ref().is_some_and(|leaf| leaf.is_empty());
        if is_empty {
            *slot = None;
        }
        is_empty
    }

    /// Every leaf that exists.
    pub fn leaves(&self) -> impl Iterator<Item = (u8, &Rc<Leaf>)> {
        (0u8..)
            .zip(&self.leaves)
            .filter_map(|(part, leaf)| Some((part, leaf.as_ref()?)))
    }

    /// How many extents it maps.
    pub fn extents(&self) -> usize {
        self.leaves().map(|(_, leaf)| leaf.extents().count()).sum()
    }

    /// The present blocks.
    pub fn allocated(&self) -> BlockBitmap {
        let mut blocks = BlockBitmap::empty();
        (0..BLOCKS_PER_CHUNK)
            .filter_map(BlockIndex::new)
            .filter(|&block| self.stored(block).is_some())
            .for_each(|block| blocks.insert(block));
        blocks
    }
}
