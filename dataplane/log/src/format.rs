//! The log on the medium, version 2.
//!
//! *Place*: the layout that `segment`, `batch` and `recovery` read and write. *Owner*: plain
//! structs. *Invariants*: sizes are asserted; all integers are little-endian; reserved bytes are
//! zero. *On failure*: a page that does not parse is reported as `HeadFault`, never guessed at.
//!
//! # Region
//!
//! The region is cut in *slots* of one segment length; a rest at its end is unused. A slot holds
//! one segment. A segment is written from its first byte to its last, never twice, and is known by
//! its *sequence*, which grows by one with every segment begun, whatever slot it takes.
//!
//! | page of a segment | holds |
//! |---|---|
//! | 0 | `SegmentHeader`, rest zero |
//! | 1 | the same page again |
//! | 2 .. 2+t | state table: `TableRecord` per group, `t = ceil(groups * 88 / 4096)` pages |
//! | 2+t .. 2+2t | the same table again |
//! | 2+2t .. | batches, back to back |
//!
//! A header is valid when one head page and one table match their checksums: no single bad sector
//! loses it. If the write of one copy got lost, that page may be a valid head of an earlier life of the
//! slot: the newer one counts. The table states, for every group, what all segments before this one amount to (vote,
//! committed, purged, first, last). So a segment without live entries is free, whatever votes,
//! purges and truncations it holds, and **any** free slot may be overwritten: the chain may have
//! gaps. Recovery proves that a gap lost nothing by finding every entry in `first..=last` of every
//! group, each chained to the one before it.
//!
//! # Batch
//!
//! | part | holds |
//! |---|---|
//! | header area, 1 to 16 pages | `BatchHeader` (96 bytes); per record a `RecordHeader` (64 bytes) and its head, padded to 8; per record of the batch before it a `RepeatRecord` (32 bytes); zero to the page's end |
//! | payload area | the payloads of its entries, whole pages, in the order of the records |
//!
//! One batch is one contiguous durable write, and one write is in flight at a time: batch `n + 1`
//! is not begun before batch `n` is durable, so nothing valid may follow a batch that is torn.
//! `durable_upto` says so explicitly (it is the newest batch known durable when the header was
//! built), which leaves room for several writes in flight in a later version.
//!
//! The *repeats* of batch `n + 1` say what batch `n` held: of an entry its log id, its identity and
//! the identity of the entry before it; of every other record all there is to know (a vote, a log
//! id). So whatever a batch says stands in two places as soon as the next one is written, the
//! closing one at the latest, and the loss of one batch loses nothing but bodies of entries, which
//! peers have. The first batch of a segment repeats the last one of the segment before it, also when an
//! open writes it, if that one is found. One that repeats nothing says nothing of what is not there.
//!
//! # Record
//!
//! | bytes | field | of |
//! |---|---|---|
//! | 0, 1, 2..4 | `kind`, `flags`, `head_len` | all |
//! | 4..8 | `group` | all |
//! | 8..16, 16..24 | `term`, `index` | log ids; `term` of votes |
//! | 24..32 | `voted_for` | votes |
//! | 32..36, 36..40, 40..44 | `payload_page`, `payload_len`, `payload_crc` | entries |
//! | 44..48 | `chain`: identity of the entry before it (of the new last entry) | entries and holes (truncations) |
//! | 48..52 | `identity` | entries and holes |
//! | 52..56 | `crc` of header and head | all |
//! | 56 | `entry_kind` | entries |
//! | 57..64 | zero | all |
//! | 64.. | head, then the side area of a placed payload | entries |
//!
//! An entry's *identity* is the CRC32C of group, term, index, kind, head, payload length and payload
//! CRC32C: of what the entry is, not of where or how a replica keeps it. It is the same on every
//! replica, and never 0, which stands for *unknown*. The record's `crc` covers the rest as well.
//!
//! A payload that fills whole extents may be *placed*: in extents of the store, on the device of the
//! data, instead of in the batch. `FLAG_PLACED` says so, and a *side area* follows the head: per 64 KiB
//! of payload the address of its extent (u64), then per block its CRC32C (u32). The record's `crc`
//! covers it; the identity does not, since every replica has its own extents. Such a record takes
//! nothing of the payload area, and `payload_page` means nothing.
//!
//! # Torn writes
//!
//! A power cut may keep any subset of the sectors of the one write in flight.
//! * *A batch.* The checksum covers its header area, its header area carries the checksum of every
//!   payload, and recovery verifies the payloads of each batch that nothing later proves durable
//!   (only the last one). Half a batch is therefore no batch. It was never acknowledged: dropped.
//! * *A placed payload.* It is written beside the batch with its record, durably, and the batch counts
//!   as durable only when both are; so a batch that a later one proves has its placed payloads, too.
//!   For the one that nothing proves they are verified like the others, block by block: a record
//!   without its data is a torn batch. An open flushes the device of the data as well before it builds
//!   on what it found. The extents of a torn batch are free, and nobody takes one before the torn
//!   header area is overwritten.
//! * *A segment header.* Written before any batch of its segment, into a free slot. If half of it
//!   is there, either it is valid (then it says what the previous segment says) or the slot counts
//!   as unused and the previous segment is still the newest. The slot's earlier content was free:
//!   the records that freed it were durable before the slot was chosen. The older header may still
//!   be whole while its table or its first batches are overwritten; see *Damage*.
//! * *Stale bytes.* Batches carry store, segment sequence, segment epoch, page number and the
//!   checksum of their predecessor (the first one: of the segment header). The epoch grows at every
//!   open, and an open appends nothing to an old segment but one empty batch, over the torn one if
//!   there is one, and then begins a new segment. So bytes of an earlier life of the slot, of a
//!   torn batch, or of a write that was misdirected, never parse as the next batch. The empty batch
//!   is needed because the only other mark of the end, `previous_len` of the next segment, is gone
//!   once that segment is free and its slot taken: the torn batch might have a whole header area.
//!
//! A bad batch is a *torn tail* when it lies in the newest segment, no valid batch of the same
//! segment and epoch follows (scanned in steps of a page), and its sequence is above the highest
//! `durable_upto` seen. Everything else is damage and is reported, never truncated.
//!
//! # Damage
//!
//! Damage is of groups, not of the log. Recovery passes over what is unreadable, page by page, to
//! the next batch of the segment and its epoch, and says per group what is lost:
//!
//! * *One batch, its successor is there*: the successor repeats it. Votes, truncations, purges and
//!   ids are known; entries are *missing*, with their identities.
//! * *Several batches in a sealed segment*: the table of the next segment states what all groups
//!   amount to. Live entries without a record are missing; the identity of the last of a run is
//!   known from the entry after it, or from the table.
//! * *Several batches in the newest segment*: the last of them is repeated, the others could have
//!   held a record of any group. So every group's vote and end count as lost until a later record
//!   of the group states them again. What stays lost is written down in the next table (`FLAG_VOTE_LOST`,
//!   `FLAG_END_LOST`): a vote that was lost is never guessed at.
//! * *A purge among them*: what it dropped is there again, or counts as missing. Who opens a group purges
//!   it again, up to its checkpoint.
//! * *A group's removal among them, and the group was made again since*: what is stated later tells
//!   only if it cannot follow what is known from before: an entry, a cut or a purge below what was
//!   purged. Then all from before is forgotten. Otherwise what the table says was purged is of the life
//!   before, and what the new life wrote up to there is neither found nor said to be lost. So who opens
//!   a group compares: its purge follows a durable checkpoint, hence a log that is purged beyond the
//!   checkpoint is not to be used. While the end is lost, so may be a removal: entries that are there
//!   were there once, and only their identity tells whether they still count.
//! * *Both copies of a segment's header*: its batches name the segment. What its table said follows
//!   from the segment before it, or is stated by the one after it.
//!   Copies of entries in it count as soon as either says that they are live.
//! * *Both copies of every segment's header*: the whole log is lost, and is said to be. A region counts
//!   as unformatted only if no page that recovery looks at bears the store's id where headers of
//!   segments and batches have it. Formatting blanks these pages, then writes one header, whose bytes
//!   but zeros are of one sector; so cut short it leaves no log, or an empty one.
//!
//! Entries are chained by their identities and the state names the last one, so an older copy of an
//! index never passes for the lost one. A missing entry is put back by a `Moved` record, and only
//! with the identity that the medium names; until then it is a live entry of the segment that names
//! it, and is copied forward as a `Hole`: identity and chain without a body.
//!
//! Nothing is written while damage is looked for, and what is written afterwards (below) repeats
//! what was found; so recovery that is cut short finds the same again.
//!
//! # What stays open
//!
//! *The window left*: if the last batch was acknowledged and the medium then loses it, it looks
//! like a torn tail. 10 ms after the last write an empty *closing* batch raises `durable_upto` and
//! repeats the last batch, so the window is open for 10 ms after a burst ends, and again at a crash
//! within it. Within a burst each batch is proven by the next. After that, only the loss of both
//! the last batch and the closing one, two places of the medium, looks like a torn tail.
//!
//! # Order
//!
//! Records of one group stand in the order in which they were queued, whatever their kind. A
//! `RecordKind::Moved` entry is a copy of a live entry, made so that its old segment becomes free;
//! it replaces the place of that entry and changes nothing else. A `RecordKind::Hole` does the same
//! for an entry whose body is lost.
//!
//! # Version
//!
//! `magic` and `version` keep their place in every version. A program refuses a version that it
//! does not know and names both. Any change of layout or meaning is a new version; there is no
//! minor version and no feature bit.

mod records;

pub(crate) use records::{
    RECORD_HEADER_LEN, REPEAT_LEN, RecordHeader, RecordKind, RepeatRecord, identity_of, record_len,
};

use ogee_proto::checksum::{crc32c, crc32c_append};
use ogee_proto::id::StoreId;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of a segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"OGEESEGM";
/// First eight bytes of a batch.
pub const BATCH_MAGIC: [u8; 8] = *b"OGEEBTCH";
/// The version that this program writes and reads.
pub const VERSION: u32 = 2;

pub(crate) const SEGMENT_HEADER_LEN: usize = size_of::<SegmentHeader>();
pub(crate) const TABLE_RECORD_LEN: usize = size_of::<TableRecord>();
pub(crate) const BATCH_HEADER_LEN: usize = size_of::<BatchHeader>();
/// Record headers begin at multiples of this.
pub(crate) const RECORD_ALIGN: usize = 8;

/// Head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct SegmentHeader {
    /// [`SEGMENT_MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: U32,
    /// CRC32C of the head page with this field zero.
    pub crc: U32,
    /// The store.
    pub store: [u8; 16],
    /// Sequence of the segment, from 1.
    pub segment: U64,
    /// Grows by one at every open, from 1.
    pub epoch: U64,
    /// Sequence of the segment's first batch; every batch before it is durable.
    pub first_batch: U64,
    /// Sequence of the segment written before this one, 0 if none.
    pub previous: U64,
    /// Length of that segment: header and batches.
    pub previous_len: U64,
    /// Lowest segment with live entries when this one was begun (itself if none).
    pub oldest_live: U64,
    /// Length of the region.
    pub region_len: U64,
    /// Length of a segment.
    pub segment_len: U64,
    /// Slot of the region that the segment stands in.
    pub slot: U32,
    /// Records in the state table.
    pub groups: U32,
    /// CRC32C of the state table's pages.
    pub table_crc: U32,
    /// Zero.
    pub reserved: U32,
}

/// State of one group, as of the beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct TableRecord {
    /// The group.
    pub group: U32,
    /// `FLAG_*`: which of the fields below are there.
    pub flags: U32,
    /// Vote.
    pub vote_term: U64,
    /// Vote.
    pub voted_for: U64,
    /// Committed.
    pub committed_term: U64,
    /// Committed.
    pub committed_index: U64,
    /// Purged.
    pub purged_term: U64,
    /// Purged.
    pub purged_index: U64,
    /// Last.
    pub last_term: U64,
    /// Last.
    pub last_index: U64,
    /// Index of the first live entry; one past `last` when none is live.
    pub first: U64,
    /// Identity of the last entry, 0 if unknown.
    pub last_crc: U32,
    /// Zero.
    pub reserved: U32,
}

/// There is a vote.
pub(crate) const FLAG_VOTE: u32 = 1;
/// The vote is committed.
pub(crate) const FLAG_VOTE_COMMITTED: u32 = 2;
/// There is a committed log id.
pub(crate) const FLAG_COMMITTED: u32 = 4;
/// There is a purged log id.
pub(crate) const FLAG_PURGED: u32 = 8;
/// There is a last log id (in a table), or a log id (in a record).
pub(crate) const FLAG_LAST: u32 = 16;
/// In a record: the payload lies in extents of the store, and a side area follows the head.
pub(crate) const FLAG_PLACED: u32 = 128;
/// In a table: a newer vote than this one may be lost.
pub(crate) const FLAG_VOTE_LOST: u32 = 32;
/// In a table: what came after the last entry may be lost.
pub(crate) const FLAG_END_LOST: u32 = 64;

/// Head of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct BatchHeader {
    /// [`BATCH_MAGIC`].
    pub magic: [u8; 8],
    /// [`VERSION`].
    pub version: U32,
    /// CRC32C of the header area with this field zero.
    pub crc: U32,
    /// The store.
    pub store: [u8; 16],
    /// The segment.
    pub segment: U64,
    /// The segment's epoch.
    pub epoch: U64,
    /// Sequence of the batch within the log, from 1.
    pub sequence: U64,
    /// Newest batch known durable when this one was built.
    pub durable_upto: U64,
    /// Where the batch begins, in pages of its segment.
    pub page: U32,
    /// Pages of the header area.
    pub header_pages: U32,
    /// Pages of the payload area.
    pub payload_pages: U32,
    /// Records.
    pub records: U32,
    /// `crc` of the batch before it, of the segment header for the first.
    pub previous_crc: U32,
    /// Used bytes of the header area.
    pub header_len: U32,
    /// Where the batch before it begins, in pages of the segment; 0 for the segment's first.
    pub previous_page: U32,
    /// Repeats: records of the batch before it.
    pub repeats: U32,
}

const _: () = assert!(SEGMENT_HEADER_LEN == 112);
const _: () = assert!(TABLE_RECORD_LEN == 88);
const _: () = assert!(BATCH_HEADER_LEN == 96);
const _: () = assert!(BATCH_HEADER_LEN.is_multiple_of(RECORD_ALIGN));
/// Offset of `crc` in segment and batch headers.
const CRC_OFFSET: usize = 12;
const _: () = assert!(std::mem::offset_of!(SegmentHeader, crc) == CRC_OFFSET);
const _: () = assert!(std::mem::offset_of!(BatchHeader, crc) == CRC_OFFSET);
const _: () = assert!(std::mem::offset_of!(SegmentHeader, version) == 8);
const _: () = assert!(std::mem::offset_of!(BatchHeader, version) == 8);
/// Offset of `store` in segment and batch headers.
const STORE_OFFSET: usize = 16;
const _: () = assert!(std::mem::offset_of!(SegmentHeader, store) == STORE_OFFSET);
const _: () = assert!(std::mem::offset_of!(BatchHeader, store) == STORE_OFFSET);

/// Why a page is no head of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadFault {
    /// It does not begin with the magic: never written, or something else.
    Absent,
    /// Written by a version that this program does not know.
    Version(u32),
    /// The checksum or a length is wrong.
    Invalid,
    /// Valid, but of another store.
    Foreign(StoreId),
}

/// CRC32C of a page or area whose `crc` field counts as zero.
pub(crate) fn crc_of(area: &[u8]) -> u32 {
    let (before, rest) = area.split_at_checked(CRC_OFFSET).unwrap_or((area, &[]));
    let after = rest.get(size_of::<U32>()..).unwrap_or(&[]);
    crc32c_append(crc32c_append(crc32c(before), &[0; size_of::<U32>()]), after)
}

/// Whether `page` begins with what is left of a segment or batch header of `store`, whatever else of it
/// is damaged: nothing but a log of that store ever wrote its id there.
pub(crate) fn is_trace(page: &[u8], store: StoreId) -> bool {
    let rest = page.get(STORE_OFFSET..).unwrap_or(&[]);
    rest.starts_with(&store.to_bytes())
}

/// Magic and version, which keep their place in every version.
pub(crate) fn check_magic(page: &[u8], magic: &[u8; 8]) -> Result<(), HeadFault> {
    let Some(rest) = page.strip_prefix(magic.as_slice()) else {
        return Err(HeadFault::Absent);
    };
    match U32::read_from_prefix(rest) {
        Ok((version, _)) if version.get() == VERSION => Ok(()),
        Ok((version, _)) => Err(HeadFault::Version(version.get())),
        Err(_) => Err(HeadFault::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCH_MAGIC, HeadFault, SEGMENT_MAGIC, VERSION, check_magic, crc_of};

    #[test]
    fn crc_ignores_its_own_field_only() {
        let mut page = vec![7u8; 4096];
        let crc = crc_of(&page);
        page[12..16].fill(9);
        assert_eq!(crc_of(&page), crc);
        for at in [0, 11, 16, 4095] {
            let mut other = page.clone();
            other[at] ^= 1;
            assert_ne!(crc_of(&other), crc, "byte {at}");
        }
    }

    #[test]
    fn magic_and_version_are_told_apart() {
        let mut page = [0u8; 64];
        assert_eq!(check_magic(&page, &SEGMENT_MAGIC), Err(HeadFault::Absent));
        page[..8].copy_from_slice(&SEGMENT_MAGIC);
        page[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
        assert_eq!(
            check_magic(&page, &SEGMENT_MAGIC),
            Err(HeadFault::Version(VERSION + 1))
        );
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        assert_eq!(check_magic(&page, &SEGMENT_MAGIC), Ok(()));
        assert_eq!(check_magic(&page, &BATCH_MAGIC), Err(HeadFault::Absent));
        assert_eq!(
            check_magic(&page[..9], &SEGMENT_MAGIC),
            Err(HeadFault::Invalid)
        );
    }
}
