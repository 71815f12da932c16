//! The header that every metadata page begins with.

use super::FORMAT_VERSION;
use crate::geometry::Slot;
use crate::limit::{LEAVES_PER_CHUNK, PAGE_HEADER_SIZE, PAGE_SIZE};
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{ChunkIndex, ChunkKey, CopysetId, StoreId, VolumeId};
use std::fmt;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The bytes of one page.
pub type Page = [u8; PAGE_SIZE];

const PAGE_MAGIC: u32 = u32::from_le_bytes(*b"OGEP");
const CRC_LEN: usize = 4;
const KIND_LEAF: u8 = 1;
const KIND_GROUP: u8 = 2;
const KIND_TABLE: u8 = 3;
const KIND_ROOT: u8 = 4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawHeader {
    crc: U32,
    magic: U32,
    version: U16,
    kind: u8,
    part: u8,
    slot: U32,
    store: [u8; 16],
    sequence: U64,
    owner: U64,
    item: U32,
    copyset: U32,
    generation: U64,
}

const _: () = assert!(size_of::<RawHeader>() == PAGE_HEADER_SIZE);

/// What a metadata page describes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PageId {
    /// A fifth of a chunk's map.
    Leaf {
        /// The chunk.
        key: ChunkKey,
        /// Which fifth.
        part: u8,
    },
    /// A piece of a group's state.
    Group {
        /// The group.
        copyset: CopysetId,
        /// Which piece.
        part: u32,
    },
    /// References to leaf and group pages.
    Table(u32),
    /// References to tables.
    Root(u32),
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf { key, part } => write!(f, "map page {part} of chunk {key}"),
            Self::Group { copyset, part } => write!(f, "state page {part} of group {copyset}"),
            Self::Table(number) => write!(f, "table page {number}"),
            Self::Root(number) => write!(f, "root page {number}"),
        }
    }
}

/// Which check a metadata page failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageFault {
    /// Its bytes do not match their own checksum.
    #[error("the checksum does not match")]
    Crc,
    /// It is not a metadata page.
    #[error("it is not a metadata page")]
    Magic,
    /// It was written by another version.
    #[error("it has format version {0}")]
    Version(u16),
    /// It belongs to another store.
    #[error("it belongs to store {0}")]
    Store(StoreId),
    /// It was meant for another slot: a misdirected write.
    #[error("it belongs in slot {0}: a write was misdirected")]
    Slot(u32),
    /// It is intact, but not the page that was written last: a lost write.
    #[error("it is the page of checkpoint {0}, not the one written last: a write was lost")]
    Stale(u64),
    /// It says that it comes from a checkpoint that has not happened.
    #[error("it is of checkpoint {0}, newer than the superblock")]
    Future(u64),
    /// It is of a kind that this version does not have.
    #[error("it is of the unknown kind {0}")]
    Kind(u8),
    /// It describes something else than its parent says.
    #[error("it is the {0} instead")]
    Identity(PageId),
    /// A field is out of range or contradicts another.
    #[error("its contents contradict each other")]
    Content,
    /// An extent or slot that another page names as well.
    #[error("it names {0}, which is in use elsewhere or out of range")]
    Shared(u32),
    /// A second page describes the same thing.
    #[error("another page describes the same")]
    Twice,
    /// A page of a sequence is missing.
    #[error("it is missing")]
    Missing,
}

/// What all pages of one checkpoint have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The store.
    pub store: StoreId,
    /// The checkpoint.
    pub sequence: u64,
}

/// How a parent names a page: where it is, and the checksum that it has there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRef {
    /// Where the page is.
    pub slot: Slot,
    /// The page's own checksum.
    pub crc: u32,
}

/// The checked header of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageHeader {
    /// What the page describes.
    pub id: PageId,
    /// The copyset that owns it; zero for tables and roots.
    pub copyset: CopysetId,
    /// Generation of a leaf's chunk; zero for others.
    pub generation: u64,
}

/// A page id as it stands on disk. `owner` is a volume, a copyset or zero.
pub(super) struct RawId {
    pub(super) kind: u8,
    pub(super) part: u8,
    pub(super) owner: u64,
    pub(super) item: u32,
}

impl RawId {
    pub(super) fn new(id: PageId) -> Self {
        let (kind, part, owner, item) = match id {
            PageId::Leaf { key, part } => (KIND_LEAF, part, key.volume.get(), key.chunk.get()),
            PageId::Group { copyset, part } => (KIND_GROUP, 0, u64::from(copyset.get()), part),
            PageId::Table(number) => (KIND_TABLE, 0, 0, number),
            PageId::Root(number) => (KIND_ROOT, 0, 0, number),
        };
        Self {
            kind,
            part,
            owner,
            item,
        }
    }

    pub(super) fn decode(&self) -> Result<PageId, PageFault> {
        match self.kind {
            KIND_LEAF if usize::from(self.part) < LEAVES_PER_CHUNK => {
                let volume = VolumeId::new(self.owner);
                let key = ChunkKey {
                    volume,
                    chunk: ChunkIndex::new(self.item),
                };
                Ok(PageId::Leaf {
                    key,
                    part: self.part,
                })
            }
            KIND_LEAF => Err(PageFault::Content),
            KIND_GROUP => {
                let copyset = u32::try_from(self.owner).map_err(|_| PageFault::Content)?;
                Ok(PageId::Group {
                    copyset: CopysetId::new(copyset),
                    part: self.item,
                })
            }
            KIND_TABLE => Ok(PageId::Table(self.item)),
            KIND_ROOT => Ok(PageId::Root(self.item)),
            unknown => Err(PageFault::Kind(unknown)),
        }
    }
}

impl RawHeader {
    pub(super) fn new(stamp: Stamp, slot: Slot, header: PageHeader) -> Self {
        let RawId {
            kind,
            part,
            owner,
            item,
        } = RawId::new(header.id);
        Self {
            crc: U32::ZERO,
            magic: U32::new(PAGE_MAGIC),
            version: U16::new(FORMAT_VERSION),
            kind,
            part,
            slot: U32::new(slot.raw()),
            store: stamp.store.to_bytes(),
            sequence: U64::new(stamp.sequence),
            owner: U64::new(owner),
            item: U32::new(item),
            copyset: U32::new(header.copyset.get()),
            generation: U64::new(header.generation),
        }
    }

    fn id(&self) -> Result<PageId, PageFault> {
        let (kind, part, owner, item) = (self.kind, self.part, self.owner.get(), self.item.get());
        RawId {
            kind,
            part,
            owner,
            item,
        }
        .decode()
    }
}

/// Completes a page with its checksum, and returns that.
pub(super) fn seal(page: &mut Page) -> u32 {
    let crc = crc32c(&page[CRC_LEN..]);
    page[..CRC_LEN].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Checks that `page` is what `at` refers to, in the tree of `stamp`.
///
/// # Errors
/// The first check that failed; the more telling ones come first.
pub fn open_page(page: &Page, stamp: Stamp, at: PageRef) -> Result<PageHeader, PageFault> {
    let (raw, _) = RawHeader::ref_from_prefix(page).map_err(|_| PageFault::Content)?;
    let crc = crc32c(&page[CRC_LEN..]);
    if crc != raw.crc.get() {
        return Err(PageFault::Crc);
    }
    if raw.magic.get() != PAGE_MAGIC {
        return Err(PageFault::Magic);
    }
    if raw.version.get() != FORMAT_VERSION {
        return Err(PageFault::Version(raw.version.get()));
    }
    if raw.store != stamp.store.to_bytes() {
        return Err(PageFault::Store(StoreId::from_bytes(raw.store)));
    }
    if raw.slot.get() != at.slot.raw() {
        return Err(PageFault::Slot(raw.slot.get()));
    }
    if raw.sequence.get() > stamp.sequence {
        return Err(PageFault::Future(raw.sequence.get()));
    }
    if crc != at.crc {
        return Err(PageFault::Stale(raw.sequence.get()));
    }
    Ok(PageHeader {
        id: raw.id()?,
        copyset: CopysetId::new(raw.copyset.get()),
        generation: raw.generation.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{decode_root, encode_root};
    use super::*;
    use proptest::prelude::*;

    const STAMP: Stamp = Stamp {
        store: StoreId::from_bytes([3; 16]),
        sequence: 9,
    };

    fn sealed(slot: u32, sequence: u64) -> (Page, PageRef) {
        let mut page = [0; PAGE_SIZE];
        let slot = Slot::from_raw(slot).unwrap();
        let refs = vec![Some(PageRef { slot, crc: 5 })];
        let crc = encode_root(Stamp { sequence, ..STAMP }, slot, 7, &refs, &mut page);
        (page, PageRef { slot, crc })
    }

    #[test]
    fn an_intact_page_opens() {
        let (page, at) = sealed(4, 9);
        assert_eq!(open_page(&page, STAMP, at).unwrap().id, PageId::Root(7));
        assert_eq!(
            decode_root(&page).unwrap()[0],
            Some(PageRef {
                slot: at.slot,
                crc: 5
            })
        );
    }

    #[test]
    fn every_misplacement_has_its_own_name() {
        let (page, at) = sealed(4, 8);
        let other_slot = PageRef {
            slot: Slot::from_raw(5).unwrap(),
            ..at
        };
        assert_eq!(open_page(&page, STAMP, other_slot), Err(PageFault::Slot(4)));
        let newer = PageRef {
            crc: at.crc ^ 1,
            ..at
        };
        assert_eq!(open_page(&page, STAMP, newer), Err(PageFault::Stale(8)));
        let before = Stamp {
            sequence: 7,
            ..STAMP
        };
        assert_eq!(open_page(&page, before, at), Err(PageFault::Future(8)));
        let store = StoreId::from_bytes([4; 16]);
        let foreign = Stamp { store, ..STAMP };
        assert_eq!(
            open_page(&page, foreign, at),
            Err(PageFault::Store(STAMP.store))
        );
        // A page of zeros has the checksum of zeros only by chance; this format has none.
        assert_eq!(open_page(&[0; PAGE_SIZE], STAMP, at), Err(PageFault::Crc));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(bit in 0..PAGE_SIZE * 8) {
            let (mut page, at) = sealed(4, 9);
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(open_page(&page, STAMP, at), Err(PageFault::Crc));
        }

        #[test]
        fn resealed_garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), PAGE_SIZE)) {
            let mut page: Page = garbage.try_into().unwrap();
            let (mut head, _) = sealed(4, 9);
            head[10] = page[10] % 6;
            page[4..40].copy_from_slice(&head[4..40]);
            let crc = seal(&mut page);
            let at = PageRef { slot: Slot::from_raw(4).unwrap(), crc };
            let _ = open_page(&page, STAMP, at);
            let _ = super::super::decode_leaf(&page, 4);
            let _ = super::super::decode_group(&page);
            let _ = decode_root(&page);
            let _ = super::super::decode_table(&page);
        }
    }
}
