//! Group pages: what a group had applied, and its state.

use super::page::{Page, PageFault, PageHeader, PageId, RawHeader, Stamp, seal};
use crate::geometry::Slot;
use crate::limit::{GROUP_PART_LEN, GROUP_STATE_MAX, PAGE_SIZE};
use ogee_proto::id::{CopysetId, LogId};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_mut, transmute_ref,
};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawGroup {
    header: RawHeader,
    applied_term: U64,
    applied_index: U64,
    state_len: U32,
    state_crc: U32,
    reserved: [u8; 8],
    part: [u8; GROUP_PART_LEN],
}

const _: () = assert!(size_of::<RawGroup>() == PAGE_SIZE);

/// What the first page of a group's state says about all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupHead {
    /// The last log entry that the state covers.
    pub applied: LogId,
    /// Bytes of state, over all pages.
    pub state_len: usize,
    /// CRC32C of the state.
    pub state_crc: u32,
}

/// One page of a group's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupPart {
    /// Meaningful in the first page only.
    pub head: GroupHead,
    /// This page's bytes, filled up with zeros.
    pub bytes: Vec<u8>,
}

/// Writes page `part` of a group's state for `slot`; returns its checksum.
///
/// # Panics
/// When `bytes` are more than fit.
pub fn encode_group(
    stamp: Stamp,
    slot: Slot,
    (copyset, part): (CopysetId, u32),
    head: Option<GroupHead>,
    bytes: &[u8],
    page: &mut Page,
) -> u32 {
    page.fill(0);
    let raw: &mut RawGroup = transmute_mut!(&mut *page);
    let id = PageId::Group { copyset, part };
    raw.header = RawHeader::new(
        stamp,
        slot,
        PageHeader {
            id,
            copyset,
            generation: 0,
        },
    );
    if let Some(head) = head {
        raw.applied_term.set(head.applied.term.get());
        raw.applied_index.set(head.applied.index.get());
        raw.state_len
            .set(u32::try_from(head.state_len).expect("invariant: state is limited"));
        raw.state_crc.set(head.state_crc);
    }
    raw.part[..bytes.len()].copy_from_slice(bytes);
    seal(page)
}

/// The contents of a group page whose header was checked.
///
/// # Errors
/// [`PageFault::Content`] for a state longer than any.
pub fn decode_group(page: &Page) -> Result<GroupPart, PageFault> {
    let raw: &RawGroup = transmute_ref!(page);
    let head = GroupHead {
        applied: LogId::new(raw.applied_term.get(), raw.applied_index.get()),
        state_len: raw.state_len.get() as usize,
        state_crc: raw.state_crc.get(),
    };
    if head.state_len > GROUP_STATE_MAX {
        return Err(PageFault::Content);
    }
    Ok(GroupPart {
        head,
        bytes: raw.part.to_vec(),
    })
}
