//! What one leaf page says about its 52 extents, in RAM.

use crate::geometry::ExtentId;
use crate::limit::{BLOCKS_PER_LEAF, EXTENTS_PER_LEAF};
use ogee_proto::limit::BLOCKS_PER_EXTENT;
use ogee_proto::unit::BlockIndex;

/// Where in a chunk's leaves a block is described.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Leaf within the chunk.
    pub part: u8,
    /// Extent within the leaf.
    pub extent: usize,
    /// Block within the extent.
    pub block: usize,
}

impl Place {
    /// The place of a block of a chunk.
    pub fn of(block: BlockIndex) -> Self {
        let extent = block.as_usize() / BLOCKS_PER_EXTENT;
        let part = u8::try_from(extent / EXTENTS_PER_LEAF).expect("invariant: five leaves");
        Self {
            part,
            extent: extent % EXTENTS_PER_LEAF,
            block: block.as_usize() % BLOCKS_PER_EXTENT,
        }
    }

    /// The place of the first block of an extent.
    pub fn of_extent(part: u8, extent: usize) -> Self {
        Self {
            part,
            extent,
            block: 0,
        }
    }

    /// The block of the chunk that is described here; `None` past the end of the last leaf.
    pub fn block_index(self) -> Option<BlockIndex> {
        let extent = usize::from(self.part) * EXTENTS_PER_LEAF + self.extent;
        BlockIndex::new(extent * BLOCKS_PER_EXTENT + self.block)
    }

    fn crc_at(self) -> usize {
        self.extent * BLOCKS_PER_EXTENT + self.block
    }
}

/// Where a present block is stored, and what its bytes must match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The extent that holds it.
    pub extent: ExtentId,
    /// Its salted checksum.
    pub crc: u32,
}

/// Map, present bits and checksums of 52 extents of a chunk.
///
/// Invariant: an extent has a number exactly when at least one of its blocks is present, and the
/// checksum of an absent block is zero, so equal contents have equal pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    extents: [Option<ExtentId>; EXTENTS_PER_LEAF],
    present: [u16; EXTENTS_PER_LEAF],
    crcs: [u32; BLOCKS_PER_LEAF],
}

impl Leaf {
    /// A leaf without any block.
    pub fn empty() -> Self {
        Self {
            extents: [None; EXTENTS_PER_LEAF],
            present: [0; EXTENTS_PER_LEAF],
            crcs: [0; BLOCKS_PER_LEAF],
        }
    }

    /// Whether no extent is mapped.
    pub fn is_empty(&self) -> bool {
        self.extents.iter().all(Option::is_none)
    }

    /// The extent mapped at a place, whether or not that very block is present.
    pub fn extent(&self, place: Place) -> Option<ExtentId> {
        self.extents[place.extent]
    }

    /// Present bits of the extent at a place.
    pub fn present(&self, place: Place) -> u16 {
        self.present[place.extent]
    }

    /// The block at a place, if it is present.
    pub fn stored(&self, place: Place) -> Option<Stored> {
        let extent = self.extents[place.extent]?;
        let is_present = self.present[place.extent] & (1 << place.block) != 0;
        is_present.then(|| Stored {
            extent,
            crc: self.crcs[place.crc_at()],
        })
    }

    /// Makes a block present.
    ///
    /// # Panics
    /// When the place is mapped to another extent: an extent is replaced only after it was freed.
    pub fn set(&mut self, place: Place, stored: Stored) {
        let mapped = self.extents[place.extent].get_or_insert(stored.extent);
        assert_eq!(
            *mapped, stored.extent,
            "a block was written to an extent that is not its own"
        );
        self.present[place.extent] |= 1 << place.block;
        self.crcs[place.crc_at()] = stored.crc;
    }

    /// Maps another extent at a place, with the blocks that are present: the caller sets them anew.
    /// Returns the extent mapped before.
    pub fn replace(&mut self, place: Place, extent: ExtentId) -> Option<ExtentId> {
        let before = self.extents[place.extent].replace(extent);
        before.filter(|before| *before != extent)
    }

    /// Makes a block absent; returns the extent if that was its last one.
    pub fn clear(&mut self, place: Place) -> Option<ExtentId> {
        self.present[place.extent] &= !(1 << place.block);
        self.crcs[place.crc_at()] = 0;
        if self.present[place.extent] == 0 {
            self.extents[place.extent].take()
        } else {
            None
        }
    }

    /// The mapped extents, in order.
    pub fn extents(&self) -> impl Iterator<Item = ExtentId> + '_ {
        self.extents.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::limit::BLOCKS_PER_CHUNK;

    #[test]
    fn places_cover_a_chunk_one_to_one() {
        for raw in 0..BLOCKS_PER_CHUNK {
            let block = BlockIndex::new(raw).unwrap();
            assert_eq!(Place::of(block).block_index(), Some(block));
        }
        assert_eq!(
            Place::of_extent(4, 47).block_index().unwrap().as_usize(),
            255 * 16
        );
        assert_eq!(Place::of_extent(4, 48).block_index(), None);
    }

    #[test]
    fn an_extent_lives_as_long_as_a_block_of_it() {
        let mut leaf = Leaf::empty();
        let extent = ExtentId::from_index(9);
        let (first, last) = (
            Place {
                part: 0,
                extent: 3,
                block: 0,
            },
            Place {
                part: 0,
                extent: 3,
                block: 15,
            },
        );
        leaf.set(first, Stored { extent, crc: 1 });
        leaf.set(last, Stored { extent, crc: 2 });
        assert_eq!(leaf.stored(last), Some(Stored { extent, crc: 2 }));
        assert_eq!(leaf.clear(first), None);
        assert_eq!(leaf.stored(first), None);
        assert_eq!(leaf.extent(first), Some(extent));
        assert_eq!(leaf.clear(last), Some(extent));
        assert_eq!(leaf, Leaf::empty());
    }

    #[test]
    #[should_panic(expected = "not its own")]
    fn a_mapped_extent_is_not_replaced() {
        let mut leaf = Leaf::empty();
        leaf.set(
            Place::of_extent(0, 0),
            Stored {
                extent: ExtentId::from_index(1),
                crc: 0,
            },
        );
        leaf.set(
            Place::of_extent(0, 0),
            Stored {
                extent: ExtentId::from_index(2),
                crc: 0,
            },
        );
    }
}
