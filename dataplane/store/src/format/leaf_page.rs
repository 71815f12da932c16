//! Leaf pages: map, present bits and checksums of 52 extents of a chunk.

use super::page::{Page, PageFault, PageHeader, PageId, RawHeader, Stamp, seal};
use crate::geometry::{ExtentId, Slot};
use crate::leaf::{Leaf, Place, Stored};
use crate::limit::{BLOCKS_PER_LEAF, EXTENTS_PER_LEAF, PAGE_HEADER_SIZE, PAGE_SIZE};
use ogee_proto::id::{ChunkKey, CopysetId};
use ogee_proto::limit::BLOCKS_PER_EXTENT;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_mut, transmute_ref,
};

const BODY_LEN: usize = EXTENTS_PER_LEAF * 6 + BLOCKS_PER_LEAF * 4;
const RESERVED_LEN: usize = PAGE_SIZE - PAGE_HEADER_SIZE - BODY_LEN;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLeaf {
    header: RawHeader,
    extents: [U32; EXTENTS_PER_LEAF],
    present: [U16; EXTENTS_PER_LEAF],
    crcs: [U32; BLOCKS_PER_LEAF],
    reserved: [u8; RESERVED_LEN],
}

const _: () = assert!(size_of::<RawLeaf>() == PAGE_SIZE);

/// Whose extents a leaf describes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeafOwner {
    /// The chunk.
    pub key: ChunkKey,
    /// Which fifth of it.
    pub part: u8,
    /// The chunk's copyset.
    pub copyset: CopysetId,
    /// The chunk's generation.
    pub generation: u64,
}

/// Writes a leaf page for `slot`; returns its checksum.
pub fn encode_leaf(
    stamp: Stamp,
    slot: Slot,
    owner: LeafOwner,
    leaf: &Leaf,
    page: &mut Page,
) -> u32 {
    let id = PageId::Leaf {
        key: owner.key,
        part: owner.part,
    };
    let header = PageHeader {
        id,
        copyset: owner.copyset,
        generation: owner.generation,
    };
    page.fill(0);
    let raw: &mut RawLeaf = transmute_mut!(&mut *page);
    raw.header = RawHeader::new(stamp, slot, header);
    for extent in 0..EXTENTS_PER_LEAF {
        let place = Place::of_extent(owner.part, extent);
        raw.extents[extent].set(leaf.extent(place).map_or(0, ExtentId::raw));
        raw.present[extent].set(leaf.present(place));
        for block in 0..BLOCKS_PER_EXTENT {
            let stored = leaf.stored(Place { block, ..place });
            raw.crcs[extent * BLOCKS_PER_EXTENT + block].set(stored.map_or(0, |block| block.crc));
        }
    }
    seal(page)
}

/// The contents of a leaf page whose header was checked.
///
/// # Errors
/// [`PageFault::Content`] when map and present bits contradict each other, or when the last leaf
/// of a chunk speaks of extents past the chunk's end.
pub fn decode_leaf(page: &Page, part: u8) -> Result<Leaf, PageFault> {
    let raw: &RawLeaf = transmute_ref!(page);
    let mut leaf = Leaf::empty();
    for extent in 0..EXTENTS_PER_LEAF {
        let place = Place::of_extent(part, extent);
        let present = raw.present[extent].get();
        match ExtentId::from_raw(raw.extents[extent].get()) {
            None if present == 0 => {}
            Some(id) if present != 0 && place.block_index().is_some() => {
                let crcs = &raw.crcs[extent * BLOCKS_PER_EXTENT..][..BLOCKS_PER_EXTENT];
                for block in (0..BLOCKS_PER_EXTENT).filter(|block| present & (1 << block) != 0) {
                    let stored = Stored {
                        extent: id,
                        crc: crcs[block].get(),
                    };
                    leaf.set(Place { block, ..place }, stored);
                }
            }
            _ => return Err(PageFault::Content),
        }
    }
    Ok(leaf)
}

#[cfg(test)]
mod tests {
    use super::super::page::{PageRef, open_page};
    use super::*;
    use ogee_proto::checksum::crc32c;
    use ogee_proto::id::{ChunkIndex, StoreId, VolumeId};
    use proptest::prelude::*;

    const STAMP: Stamp = Stamp {
        store: StoreId::from_bytes([0xa5; 16]),
        sequence: 0x0102_0304,
    };

    fn owner(part: u8) -> LeafOwner {
        let key = ChunkKey {
            volume: VolumeId::new(0x1122),
            chunk: ChunkIndex::new(0x33),
        };
        LeafOwner {
            key,
            part,
            copyset: CopysetId::new(0x44),
            generation: 0x55,
        }
    }

    #[test]
    fn golden_bytes() {
        let mut leaf = Leaf::empty();
        let place = Place {
            part: 1,
            extent: 2,
            block: 3,
        };
        leaf.set(
            place,
            Stored {
                extent: ExtentId::from_raw(0x0a0b).unwrap(),
                crc: 0xdead_beef,
            },
        );
        let mut page = [0xff; PAGE_SIZE];
        encode_leaf(
            STAMP,
            Slot::from_raw(0x66).unwrap(),
            owner(1),
            &leaf,
            &mut page,
        );

        let mut golden = Vec::new();
        golden.extend(b"OGEP\x02\x00\x01\x01\x66\x00\x00\x00");
        golden.extend([0xa5; 16]);
        golden.extend(b"\x04\x03\x02\x01\x00\x00\x00\x00\x22\x11\x00\x00\x00\x00\x00\x00");
        golden.extend(b"\x33\x00\x00\x00\x44\x00\x00\x00\x55\x00\x00\x00\x00\x00\x00\x00");
        golden.resize(PAGE_SIZE - 4, 0);
        golden[60 + 8..60 + 12].copy_from_slice(b"\x0b\x0a\x00\x00");
        golden[60 + 208 + 4..60 + 208 + 6].copy_from_slice(b"\x08\x00");
        golden[60 + 312 + 35 * 4..60 + 312 + 36 * 4].copy_from_slice(b"\xef\xbe\xad\xde");
        assert_eq!(&page[4..], &golden[..]);
        assert_eq!(page[..4], crc32c(&golden).to_le_bytes());
    }

    #[test]
    fn contradictions_are_refused() {
        let extent_at = PAGE_HEADER_SIZE;
        let present_at = extent_at + EXTENTS_PER_LEAF * 4;
        let mut extent_without_block = [0; PAGE_SIZE];
        extent_without_block[extent_at] = 1;
        let mut block_without_extent = [0; PAGE_SIZE];
        block_without_extent[present_at] = 1;
        let mut past_the_end = [0; PAGE_SIZE];
        past_the_end[extent_at + 48 * 4] = 1;
        past_the_end[present_at + 48 * 2] = 1;
        assert!(decode_leaf(&past_the_end, 3).is_ok());
        for page in [extent_without_block, block_without_extent, past_the_end] {
            assert_eq!(decode_leaf(&page, 4), Err(PageFault::Content));
        }
    }

    proptest! {
        #[test]
        fn round_trip(
            part in 0..5u8,
            blocks in prop::collection::vec((0..48usize, 0..16usize, any::<u32>()), 0..200),
        ) {
            let mut leaf = Leaf::empty();
            for (extent, block, crc) in blocks {
                let id = ExtentId::from_index(u32::try_from(extent).unwrap() * 7);
                leaf.set(Place { part, extent, block }, Stored { extent: id, crc });
            }
            let slot = Slot::from_raw(12).unwrap();
            let mut page = [0; PAGE_SIZE];
            let crc = encode_leaf(STAMP, slot, owner(part), &leaf, &mut page);
            let header = open_page(&page, STAMP, PageRef { slot, crc }).unwrap();
            prop_assert_eq!(header.id, PageId::Leaf { key: owner(part).key, part });
            prop_assert_eq!((header.copyset, header.generation), (CopysetId::new(0x44), 0x55));
            prop_assert_eq!(decode_leaf(&page, part).unwrap(), leaf);
        }
    }
}
