//! Table pages: references to leaf and group pages, with what each describes.

use super::page::{Page, PageFault, PageHeader, PageId, PageRef, RawHeader, RawId, Stamp, seal};
use super::root_page::RawRef;
use crate::geometry::Slot;
use crate::limit::{PAGE_SIZE, REFS_PER_TABLE};
use ogee_proto::id::CopysetId;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_mut, transmute_ref,
};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawEntry {
    page: RawRef,
    owner: U64,
    item: U32,
    kind: u8,
    part: u8,
    reserved: U16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTable {
    header: RawHeader,
    entries: [RawEntry; REFS_PER_TABLE],
}

const _: () = assert!(size_of::<RawTable>() == PAGE_SIZE);

/// One line of a table: a page and what it describes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableEntry {
    /// What the page describes.
    pub id: PageId,
    /// The page.
    pub page: PageRef,
}

impl RawEntry {
    fn new(entry: &TableEntry) -> Self {
        let RawId {
            kind,
            part,
            owner,
            item,
        } = RawId::new(entry.id);
        Self {
            page: RawRef::new(Some(entry.page)),
            owner: U64::new(owner),
            item: U32::new(item),
            kind,
            part,
            reserved: U16::ZERO,
        }
    }

    fn decode(&self) -> Result<Option<TableEntry>, PageFault> {
        let Some(page) = self.page.decode().ok_or(PageFault::Content)? else {
            return Ok(None);
        };
        let (kind, part, owner, item) = (self.kind, self.part, self.owner.get(), self.item.get());
        match (RawId {
            kind,
            part,
            owner,
            item,
        })
        .decode()?
        {
            PageId::Table(_) | PageId::Root(_) => Err(PageFault::Content),
            id => Ok(Some(TableEntry { id, page })),
        }
    }
}

/// Writes table page `number` for `slot`; returns its checksum.
///
/// # Panics
/// When there are more than [`REFS_PER_TABLE`] entries.
pub fn encode_table(
    stamp: Stamp,
    slot: Slot,
    number: u32,
    entries: &[Option<TableEntry>],
    page: &mut Page,
) -> u32 {
    assert!(
        entries.len() <= REFS_PER_TABLE,
        "too many entries for one page"
    );
    let id = PageId::Table(number);
    let header = PageHeader {
        id,
        copyset: CopysetId::new(0),
        generation: 0,
    };
    page.fill(0);
    let raw: &mut RawTable = transmute_mut!(&mut *page);
    raw.header = RawHeader::new(stamp, slot, header);
    for (raw, entry) in raw.entries.iter_mut().zip(entries) {
        if let Some(entry) = entry {
            *raw = RawEntry::new(entry);
        }
    }
    seal(page)
}

/// The entries of a table page whose header was checked.
///
/// # Errors
/// Which field is out of range.
pub fn decode_table(page: &Page) -> Result<Vec<Option<TableEntry>>, PageFault> {
    let raw: &RawTable = transmute_ref!(page);
    raw.entries.iter().map(RawEntry::decode).collect()
}

#[cfg(test)]
mod tests {
    use super::super::page::open_page;
    use super::*;
    use ogee_proto::id::{ChunkIndex, ChunkKey, StoreId, VolumeId};

    #[test]
    fn round_trip() {
        let stamp = Stamp {
            store: StoreId::from_bytes([1; 16]),
            sequence: 2,
        };
        let key = ChunkKey {
            volume: VolumeId::new(u64::MAX),
            chunk: ChunkIndex::new(u32::MAX),
        };
        let page = |raw| PageRef {
            slot: Slot::from_raw(raw).unwrap(),
            crc: raw,
        };
        let mut entries = vec![
            Some(TableEntry {
                id: PageId::Leaf { key, part: 4 },
                page: page(7),
            }),
            None,
            Some(TableEntry {
                id: PageId::Group {
                    copyset: CopysetId::new(u32::MAX),
                    part: 9,
                },
                page: page(8),
            }),
        ];
        let mut bytes = [0xff; PAGE_SIZE];
        let slot = Slot::from_raw(3).unwrap();
        let crc = encode_table(stamp, slot, 5, &entries, &mut bytes);
        let header = open_page(&bytes, stamp, PageRef { slot, crc }).unwrap();
        assert_eq!(header.id, PageId::Table(5));
        entries.resize(REFS_PER_TABLE, None);
        assert_eq!(decode_table(&bytes).unwrap(), entries);
    }
}
