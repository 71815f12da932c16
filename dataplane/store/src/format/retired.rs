//! The page that lists retired extents, and notes what is wanted of the device.

use super::page::Page;
use crate::geometry::{ExtentId, Geometry};
use crate::limit::{PAGE_SIZE, RETIRED_LISTED_MAX};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::StoreId;
use std::collections::BTreeSet;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_mut, transmute_ref,
};

const MAGIC: [u8; 8] = *b"OGEEBADX";
/// Of this page alone.
pub const RETIRED_VERSION: u16 = 1;
const CRC_LEN: usize = 4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRetired {
    crc: U32,
    version: U16,
    count: U16,
    magic: [u8; 8],
    store: [u8; 16],
    sequence: U64,
    extents: [U32; RETIRED_LISTED_MAX],
    notes: U32,
}

/// What is done at leisure is paused.
const PAUSED: u32 = 1;

const _: () = assert!(size_of::<RawRetired>() == PAGE_SIZE);

/// Extents that are never used again, and what is wanted of the device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Retired {
    /// How often the list was written; the newer of two copies counts.
    pub sequence: u64,
    /// The extents.
    pub extents: BTreeSet<ExtentId>,
    /// What is done at leisure is paused.
    pub is_paused: bool,
}

/// What a copy of the page holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RetiredPage {
    /// Nothing was ever written there, or by the store that was here before.
    None,
    /// It was, and cannot be used.
    Damaged,
    /// Intact, and of another version.
    Version(u16),
    /// The list.
    List(Retired),
}

impl Retired {
    /// Writes the page. What is too much for one is left out.
    pub fn encode(&self, store: StoreId, page: &mut Page) {
        page.fill(0);
        let raw: &mut RawRetired = transmute_mut!(&mut *page);
        raw.magic = MAGIC;
        raw.version = U16::new(RETIRED_VERSION);
        raw.store = store.to_bytes();
        raw.sequence = U64::new(self.sequence);
        let mut count = 0;
        for (raw, extent) in raw.extents.iter_mut().zip(&self.extents) {
            *raw = U32::new(extent.raw());
            count += 1;
        }
        raw.count = U16::new(count);
        raw.notes = U32::new(if self.is_paused { PAUSED } else { 0 });
        let crc = crc32c(&page[CRC_LEN..]);
        page[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the page of this store.
    pub fn decode(page: &Page, store: StoreId, geometry: &Geometry) -> RetiredPage {
        if page.iter().all(|byte| *byte == 0) {
            return RetiredPage::None;
        }
        let raw: &RawRetired = transmute_ref!(page);
        if raw.crc.get() != crc32c(&page[CRC_LEN..]) || raw.magic != MAGIC {
            return RetiredPage::Damaged;
        }
        if raw.store != store.to_bytes() {
            return RetiredPage::None;
        }
        if raw.version.get() != RETIRED_VERSION {
            return RetiredPage::Version(raw.version.get());
        }
        let listed = raw.extents.iter().take(usize::from(raw.count.get()));
        let extents: Option<BTreeSet<ExtentId>> = listed
            .map(|raw| ExtentId::from_raw(raw.get()).filter(|it| it.index() < geometry.extents))
            .collect();
        let sequence = raw.sequence.get();
        // An older program may have put an extent there.
        let has_notes = usize::from(raw.count.get()) <= RETIRED_LISTED_MAX;
        let is_paused = has_notes && raw.notes.get() & PAUSED != 0;
        extents.map_or(RetiredPage::Damaged, |extents| {
            RetiredPage::List(Self {
                sequence,
                extents,
                is_paused,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::unit::ByteLen;
    use proptest::prelude::*;

    const STORE: StoreId = StoreId::from_bytes([7; 16]);

    fn geometry() -> Geometry {
        Geometry::plan(ByteLen::new(1 << 30), ByteLen::new(64 << 20))
            .unwrap_or_else(|_| panic!("it fits"))
    }

    fn page_of(extents: &[u32], sequence: u64) -> Page {
        let extents = extents.iter().map(|at| ExtentId::from_index(*at)).collect();
        let mut page = [0; PAGE_SIZE];
        let is_paused = false;
        let list = Retired {
            sequence,
            extents,
            is_paused,
        };
        list.encode(STORE, &mut page);
        page
    }

    #[test]
    fn golden() {
        let page = page_of(&[0, 258], 3);
        let mut golden = vec![1, 0, 2, 0];
        golden.extend(b"OGEEBADX");
        golden.extend([7; 16]);
        golden.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([1, 0, 0, 0, 3, 1, 0, 0]);
        assert_eq!(page[4..4 + golden.len()], golden);
        assert!(page[4 + golden.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(page[..4], crc32c(&page[4..]).to_le_bytes());
    }

    #[test]
    fn a_pause_stands_in_the_last_word_unless_an_extent_does() {
        let list = Retired {
            sequence: 1,
            is_paused: true,
            ..Retired::default()
        };
        let mut page = [0; PAGE_SIZE];
        list.encode(STORE, &mut page);
        assert_eq!(page[PAGE_SIZE - 4..], [1, 0, 0, 0]);
        let read = Retired::decode(&page, STORE, &geometry());
        assert_eq!(read, RetiredPage::List(list));
        // A full list of an older program.
        let all: Vec<u32> = (0..1013).collect();
        let mut page = page_of(&all, 1);
        page[6..8].copy_from_slice(&1014u16.to_le_bytes());
        page[PAGE_SIZE - 4..].copy_from_slice(&1015u32.to_le_bytes());
        let crc = crc32c(&page[CRC_LEN..]);
        page[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
        let RetiredPage::List(read) = Retired::decode(&page, STORE, &geometry()) else {
            panic!("it is a list");
        };
        assert!(!read.is_paused);
        assert_eq!(read.extents.len(), 1013);
    }

    #[test]
    fn what_is_not_this_stores_list_is_told_apart() {
        let geometry = geometry();
        let read = |page: &Page, store| Retired::decode(page, store, &geometry);
        assert_eq!(read(&[0; PAGE_SIZE], STORE), RetiredPage::None);
        let page = page_of(&[4], 1);
        assert_eq!(read(&page, StoreId::from_bytes([8; 16])), RetiredPage::None);
        let past = page_of(&[geometry.extents], 1);
        assert_eq!(read(&past, STORE), RetiredPage::Damaged);
        for version in [0, 2] {
            let mut other = page;
            other[4] = version;
            let crc = crc32c(&other[4..]);
            other[..4].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(read(&other, STORE), RetiredPage::Version(version.into()));
        }
    }

    proptest! {
        #[test]
        fn round_trip(extents in prop::collection::btree_set(0..1000u32, 0..1000), sequence in 1..9u64) {
            let extents: Vec<u32> = extents.into_iter().collect();
            let page = page_of(&extents, sequence);
            let RetiredPage::List(read) = Retired::decode(&page, STORE, &geometry()) else {
                panic!("it is a list");
            };
            let found: Vec<u32> = read.extents.iter().map(|it| it.index()).collect();
            prop_assert_eq!((read.sequence, found), (sequence, extents));
        }

        #[test]
        fn any_flipped_bit_is_found(bit in 0..PAGE_SIZE * 8) {
            let mut page = page_of(&[1, 2, 3], 5);
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Retired::decode(&page, STORE, &geometry()), RetiredPage::Damaged);
        }
    }
}
