//! The superblock: identity, geometry, and the root of the tree.

use super::FORMAT_VERSION;
use super::page::{Page, PageRef};
use super::root_page::RawRef;
use crate::geometry::Geometry;
use crate::limit::{PAGE_SIZE, ROOTS_MAX};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::StoreId;
use ogee_proto::limit::{BLOCK_SIZE, CHUNK_SIZE, EXTENT_SIZE};
use ogee_proto::unit::{ByteLen, ByteOffset};
use uuid::Uuid;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_mut, transmute_ref,
};

/// What a device with a store of ours begins with.
pub const STORE_MAGIC: [u8; 8] = *b"OGEESTOR";
const CRC_AT: usize = PAGE_SIZE - 4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    magic: [u8; 8],
    version: U32,
    reserved0: U32,
    store: [u8; 16],
    cluster: [u8; 16],
    sequence: U64,
    next_generation: U64,
    device_len: U64,
    log_start: U64,
    log_len: U64,
    pages_start: U64,
    extents_start: U64,
    page_slots: U32,
    extents: U32,
    block_size: U32,
    extent_size: U32,
    chunk_size: U32,
    roots_count: U32,
    roots: [RawRef; ROOTS_MAX],
    reserved1: [u8; 60],
    crc: U32,
}

const _: () = assert!(size_of::<RawSuperblock>() == PAGE_SIZE);

/// A decoded superblock: every field in range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Identity of the store.
    pub store: StoreId,
    /// Identity of the cluster that it belongs to.
    pub cluster: Uuid,
    /// Number of the checkpoint that wrote it.
    pub sequence: u64,
    /// Generation of the next chunk that is created.
    pub next_generation: u64,
    /// The regions of the device.
    pub geometry: Geometry,
    /// References to the root pages.
    pub roots: Vec<Option<PageRef>>,
}

/// Why a page is not a superblock that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuperblockFault {
    /// It was never one.
    Foreign,
    /// It is intact, but of another version.
    Version(u32),
    /// It was one, but its bytes do not match their checksum or contradict each other.
    Damaged,
}

impl Superblock {
    /// Writes the superblock.
    ///
    /// # Panics
    /// When there are more than [`ROOTS_MAX`] roots: the geometry's limits exclude that.
    pub fn encode(&self, page: &mut Page) {
        assert!(
            self.roots.len() <= ROOTS_MAX,
            "too many roots for a superblock"
        );
        page.fill(0);
        let raw: &mut RawSuperblock = transmute_mut!(&mut *page);
        raw.magic = STORE_MAGIC;
        raw.version.set(u32::from(FORMAT_VERSION));
        raw.store = self.store.to_bytes();
        raw.cluster = *self.cluster.as_bytes();
        raw.sequence.set(self.sequence);
        raw.next_generation.set(self.next_generation);
        raw.set_geometry(&self.geometry);
        raw.roots_count.set(raw_u32(self.roots.len()));
        for (raw, root) in raw.roots.iter_mut().zip(&self.roots) {
            *raw = RawRef::new(*root);
        }
        let crc = crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a superblock.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(page: &Page) -> Result<Self, SuperblockFault> {
        let raw: &RawSuperblock = transmute_ref!(page);
        if raw.magic != STORE_MAGIC {
            return Err(SuperblockFault::Foreign);
        }
        if raw.crc.get() != crc32c(&page[..CRC_AT]) {
            return Err(SuperblockFault::Damaged);
        }
        if raw.version.get() != u32::from(FORMAT_VERSION) {
            return Err(SuperblockFault::Version(raw.version.get()));
        }
        raw.decode().ok_or(SuperblockFault::Damaged)
    }
}

impl RawSuperblock {
    fn set_geometry(&mut self, geometry: &Geometry) {
        self.device_len.set(geometry.device_len.get());
        self.log_start.set(geometry.log_start.get());
        self.log_len.set(geometry.log_len.get());
        self.pages_start.set(geometry.pages_start.get());
        self.extents_start.set(geometry.extents_start.get());
        self.page_slots.set(geometry.page_slots);
        self.extents.set(geometry.extents);
        self.block_size.set(raw_u32(BLOCK_SIZE));
        self.extent_size.set(raw_u32(EXTENT_SIZE));
        self.chunk_size.set(raw_u32(CHUNK_SIZE));
    }

    fn geometry(&self) -> Geometry {
        Geometry {
            device_len: ByteLen::new(self.device_len.get()),
            log_start: ByteOffset::new(self.log_start.get()),
            log_len: ByteLen::new(self.log_len.get()),
            pages_start: ByteOffset::new(self.pages_start.get()),
            page_slots: self.page_slots.get(),
            extents_start: ByteOffset::new(self.extents_start.get()),
            extents: self.extents.get(),
        }
    }

    /// `None` if a field is out of range.
    fn decode(&self) -> Option<Superblock> {
        let geometry = self.geometry();
        let units_are_ours = self.block_size.get() == raw_u32(BLOCK_SIZE)
            && self.extent_size.get() == raw_u32(EXTENT_SIZE)
            && self.chunk_size.get() == raw_u32(CHUNK_SIZE);
        let used = self.roots.get(..self.roots_count.get() as usize)?;
        let roots = used
            .iter()
            .map(|raw| raw.decode())
            .collect::<Option<Vec<_>>>()?;
        (units_are_ours && geometry.is_sound() && self.sequence.get() > 0).then(|| Superblock {
            store: StoreId::from_bytes(self.store),
            cluster: Uuid::from_bytes(self.cluster),
            sequence: self.sequence.get(),
            next_generation: self.next_generation.get(),
            geometry,
            roots,
        })
    }
}

fn raw_u32(value: usize) -> u32 {
    u32::try_from(value).expect("invariant: a small constant or count")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Slot;
    use proptest::prelude::*;

    fn sample() -> Superblock {
        Superblock {
            store: StoreId::from_bytes([0x11; 16]),
            cluster: Uuid::from_bytes([0x22; 16]),
            sequence: 0x33,
            next_generation: 0x44,
            geometry: Geometry::plan(ByteLen::new(64 << 20), ByteLen::new(8 << 20)).unwrap(),
            roots: vec![
                Some(PageRef {
                    slot: Slot::from_raw(0x55).unwrap(),
                    crc: 0x66,
                }),
                None,
            ],
        }
    }

    fn encoded() -> Page {
        let mut page = [0xff; PAGE_SIZE];
        sample().encode(&mut page);
        page
    }

    fn reseal(page: &mut Page) {
        let crc = crc32c(&page[..CRC_AT]);
        page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }

    #[test]
    fn golden_bytes() {
        let mut golden = Vec::new();
        golden.extend(b"OGEESTOR\x02\x00\x00\x00\x00\x00\x00\x00");
        golden.extend([0x11; 16]);
        golden.extend([0x22; 16]);
        // 1 MiB head, 8 MiB log, twice 4 MiB pages, the rest extents.
        for field in [0x33, 0x44, 64 << 20, 1 << 20, 8 << 20, 9 << 20, 17u64 << 20] {
            golden.extend(field.to_le_bytes());
        }
        for field in [1024, 752, 4096, 65536, 16 << 20, 2, 0x55, 0x66u32] {
            golden.extend(field.to_le_bytes());
        }
        golden.resize(CRC_AT, 0);
        let page = encoded();
        assert_eq!(&page[..CRC_AT], &golden[..]);
        assert_eq!(page[CRC_AT..], crc32c(&golden).to_le_bytes());
    }

    #[test]
    fn round_trip() {
        assert_eq!(Superblock::decode(&encoded()), Ok(sample()));
    }

    #[test]
    fn versions_and_garbage_are_told_apart() {
        let mut newer = encoded();
        newer[8] = 9;
        assert_eq!(Superblock::decode(&newer), Err(SuperblockFault::Damaged));
        reseal(&mut newer);
        assert_eq!(Superblock::decode(&newer), Err(SuperblockFault::Version(9)));
        assert_eq!(
            Superblock::decode(&[0; PAGE_SIZE]),
            Err(SuperblockFault::Foreign)
        );
        let mut other_unit = encoded();
        other_unit[112] = 1;
        reseal(&mut other_unit);
        assert_eq!(
            Superblock::decode(&other_unit),
            Err(SuperblockFault::Damaged)
        );
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(bit in 0..PAGE_SIZE * 8) {
            let mut page = encoded();
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Superblock::decode(&page).is_err());
        }

        #[test]
        fn resealed_garbage_never_panics(at in 12..CRC_AT, bytes in any::<[u8; 8]>()) {
            let mut page = encoded();
            let end = (at + 8).min(CRC_AT);
            page[at..end].copy_from_slice(&bytes[..end - at]);
            reseal(&mut page);
            let _ = Superblock::decode(&page);
        }
    }
}
