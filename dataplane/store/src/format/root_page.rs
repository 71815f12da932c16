//! Root pages: references to tables.

use super::page::{Page, PageFault, PageHeader, PageId, PageRef, RawHeader, Stamp, seal};
use crate::geometry::Slot;
use crate::limit::{PAGE_SIZE, REFS_PER_ROOT};
use ogee_proto::id::CopysetId;
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_mut, transmute_ref,
};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawRef {
    slot: U32,
    crc: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRoot {
    header: RawHeader,
    refs: [RawRef; REFS_PER_ROOT],
}

const _: () = assert!(size_of::<RawRoot>() == PAGE_SIZE);

impl RawRef {
    pub(super) const NONE: Self = Self {
        slot: U32::ZERO,
        crc: U32::ZERO,
    };

    pub(super) fn new(reference: Option<PageRef>) -> Self {
        reference.map_or(Self::NONE, |page| Self {
            slot: U32::new(page.slot.raw()),
            crc: U32::new(page.crc),
        })
    }

    /// `None` if it is neither a reference nor all zero.
    pub(super) fn decode(self) -> Option<Option<PageRef>> {
        match Slot::from_raw(self.slot.get()) {
            Some(slot) => Some(Some(PageRef {
                slot,
                crc: self.crc.get(),
            })),
            None => (self.crc.get() == 0).then_some(None),
        }
    }
}

/// Writes root page `number` for `slot`; returns its checksum.
///
/// # Panics
/// When there are more than [`REFS_PER_ROOT`] references.
pub fn encode_root(
    stamp: Stamp,
    slot: Slot,
    number: u32,
    refs: &[Option<PageRef>],
    page: &mut Page,
) -> u32 {
    assert!(
        refs.len() <= REFS_PER_ROOT,
        "too many references for one page"
    );
    let id = PageId::Root(number);
    let header = PageHeader {
        id,
        copyset: CopysetId::new(0),
        generation: 0,
    };
    page.fill(0);
    let raw: &mut RawRoot = transmute_mut!(&mut *page);
    raw.header = RawHeader::new(stamp, slot, header);
    for (raw, reference) in raw.refs.iter_mut().zip(refs) {
        *raw = RawRef::new(*reference);
    }
    seal(page)
}

/// The references of a root page whose header was checked.
///
/// # Errors
/// [`PageFault::Content`] for a checksum without a slot.
pub fn decode_root(page: &Page) -> Result<Vec<Option<PageRef>>, PageFault> {
    let raw: &RawRoot = transmute_ref!(page);
    raw.refs
        .iter()
        .map(|raw| raw.decode().ok_or(PageFault::Content))
        .collect()
}
