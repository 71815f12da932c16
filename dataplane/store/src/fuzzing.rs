//! The page codecs by themselves, for fuzzing: without the checksums that guard them.
//!
//! *Place*: beside `format`, under the fuzz targets and this crate's tests. *Owner*: pure functions.
//! *Invariants*: what is decoded encodes to a page that is decoded to the same.
//! *On failure*: a panic: that is what is looked for.

use crate::format::{
    LeafOwner, Page, PageRef, Stamp, Superblock, decode_group, decode_leaf, decode_root,
    decode_table, encode_group, encode_leaf, encode_root, encode_table, open_page,
};
use crate::geometry::Slot;
use crate::limit::{LEAVES_PER_CHUNK, PAGE_SIZE};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, StoreId, VolumeId};

const STAMP: Stamp = Stamp {
    store: StoreId::from_bytes([7; 16]),
    sequence: 9,
};

/// Takes `bytes` for a page of the kind that `kind` says.
///
/// # Panics
/// When a decoder accepts what it does not encode to the same contents.
pub fn pages(kind: u8, bytes: &[u8]) {
    let page = page_of(bytes);
    let slot = Slot::from_index(3);
    let mut again = [0xff; PAGE_SIZE];
    match kind % 6 {
        0 => superblock(page),
        1 => {
            if let Ok(refs) = decode_root(&page) {
                encode_root(STAMP, slot, 1, &refs, &mut again);
                assert_eq!(decode_root(&again), Ok(refs));
            }
        }
        2 => {
            if let Ok(entries) = decode_table(&page) {
                encode_table(STAMP, slot, 1, &entries, &mut again);
                assert_eq!(decode_table(&again), Ok(entries));
            }
        }
        3 => leaf(&page, slot),
        4 => {
            if let Ok(part) = decode_group(&page) {
                let id = (CopysetId::new(1), 0);
                encode_group(STAMP, slot, id, Some(part.head), &part.bytes, &mut again);
                assert_eq!(decode_group(&again), Ok(part));
            }
        }
        _ => header(page, slot),
    }
}

/// The bytes, cut or filled up with zeros.
fn page_of(bytes: &[u8]) -> Page {
    let mut page = [0; PAGE_SIZE];
    let len = bytes.len().min(PAGE_SIZE);
    page[..len].copy_from_slice(&bytes[..len]);
    page
}

/// With a checksum that matches, so that the fields are looked at.
fn superblock(mut page: Page) {
    let (fields, crc) = page.split_at_mut(PAGE_SIZE - 4);
    crc.copy_from_slice(&crc32c(fields).to_le_bytes());
    if let Ok(found) = Superblock::decode(&page) {
        let mut again = [0xff; PAGE_SIZE];
        found.encode(&mut again);
        assert_eq!(Superblock::decode(&again), Ok(found.clone()));
        let geometry = found.geometry;
        // What opening computes before it reads anything else.
        let last = Slot::from_index(geometry.page_slots - 1);
        assert!(geometry.slot_offset(last, 1) < geometry.extents_start);
        assert!(geometry.leaves_max() < geometry.page_slots);
    }
}

fn leaf(page: &Page, slot: Slot) {
    for part in 0..LEAVES_PER_CHUNK {
        let part = u8::try_from(part).expect("invariant: a small constant");
        let Ok(leaf) = decode_leaf(page, part) else {
            continue;
        };
        let owner = LeafOwner {
            key: ChunkKey {
                volume: VolumeId::new(1),
                chunk: ChunkIndex::new(2),
            },
            part,
            copyset: CopysetId::new(3),
            generation: 4,
        };
        let (mut first, mut second) = ([0xff; PAGE_SIZE], [0xff; PAGE_SIZE]);
        encode_leaf(STAMP, slot, owner, &leaf, &mut first);
        let again = decode_leaf(&first, part).expect("what was encoded is decoded");
        encode_leaf(STAMP, slot, owner, &again, &mut second);
        assert!(first == second, "a leaf changes when it is written again");
    }
}

/// The header, with a checksum that matches and the parent's.
fn header(mut page: Page, slot: Slot) {
    let crc = crc32c(&page[4..]);
    page[..4].copy_from_slice(&crc.to_le_bytes());
    let at = PageRef { slot, crc };
    // Whatever comes of it: it is a value, and it can be told.
    if let Err(fault) = open_page(&page, STAMP, at) {
        assert!(!fault.to_string().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::pages;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn any_bytes_are_a_page_or_are_refused(
            kind in any::<u8>(), bytes in vec(any::<u8>(), 0..300),
        ) {
            pages(kind, &bytes);
        }
    }
}
