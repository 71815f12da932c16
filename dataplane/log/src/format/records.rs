//! Records and repeats on the medium.
//!
//! *Place*: part of `format`, which documents them. *Owner*: plain structs. *Invariants*: sizes are
//! asserted; reserved bytes are zero. *On failure*: an unknown kind is `None`.

use super::RECORD_ALIGN;
use ogee_proto::checksum::{crc32c, crc32c_append};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const RECORD_HEADER_LEN: usize = size_of::<RecordHeader>();
pub(crate) const REPEAT_LEN: usize = size_of::<RepeatRecord>();

/// Head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct RecordHeader {
    /// [`RecordKind`].
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Length of the head that follows.
    pub head_len: U16,
    /// The group.
    pub group: U32,
    /// Term of the log id, or of the vote.
    pub term: U64,
    /// Index of the log id.
    pub index: U64,
    /// Vote: the candidate.
    pub voted_for: U64,
    /// Entry: where its payload begins, in pages of the payload area.
    pub payload_page: U32,
    /// Entry: length of its payload.
    pub payload_len: U32,
    /// Entry: CRC32C of its payload.
    pub payload_crc: U32,
    /// Entry: identity of the entry before it. Truncation: of the new last entry. 0 if unknown.
    pub chain: U32,
    /// Entry: its identity.
    pub identity: U32,
    /// CRC32C of this header, with this field zero, the head and the side area.
    pub crc: U32,
    /// Entry: kind, opaque to the log.
    pub entry_kind: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// What a record of the batch before said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct RepeatRecord {
    /// [`RecordKind`].
    pub kind: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Zero.
    pub reserved: U16,
    /// The group.
    pub group: U32,
    /// Term of the log id, or of the vote.
    pub term: U64,
    /// Index of the log id; vote: the candidate.
    pub index: U64,
    /// As in the record.
    pub identity: U32,
    /// As in the record.
    pub chain: U32,
}

const _: () = assert!(RECORD_HEADER_LEN == 64);
const _: () = assert!(REPEAT_LEN == 32);
const _: () = assert!(RECORD_HEADER_LEN.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(REPEAT_LEN.is_multiple_of(RECORD_ALIGN));

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// An appended entry.
    Entry = 1,
    /// A vote.
    Vote = 2,
    /// A committed log id.
    Committed = 3,
    /// Entries after the log id are gone; the log id is the new last (none: all are gone).
    Truncate = 4,
    /// Entries up to the log id are gone.
    Purge = 5,
    /// The group is gone.
    RemoveGroup = 6,
    /// A live entry, copied forward or put back.
    Moved = 7,
    /// A live entry whose body is lost, by its identity.
    Hole = 8,
}

impl RecordKind {
    pub(crate) const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Committed,
            4 => Self::Truncate,
            5 => Self::Purge,
            6 => Self::RemoveGroup,
            7 => Self::Moved,
            8 => Self::Hole,
            _ => return None,
        })
    }

    pub(crate) const fn raw(self) -> u8 {
        self as u8
    }
}

impl RecordHeader {
    /// A header with only kind and group set.
    pub(crate) fn new(kind: RecordKind, group: u32) -> Self {
        let mut header = Self::new_zeroed_header();
        header.kind = kind.raw();
        header.group = group.into();
        header
    }

    fn new_zeroed_header() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }

    /// CRC32C of header, head and side area, without the field that holds it.
    pub(crate) fn checksum(&self, head: &[u8], side: &[u8]) -> u32 {
        let mut bare = *self;
        bare.crc = 0.into();
        crc32c_append(crc32c_append(crc32c(bare.as_bytes()), head), side)
    }
}

/// What an entry is, as its identity covers it.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct IdentityFields {
    group: U32,
    payload_len: U32,
    term: U64,
    index: U64,
    payload_crc: U32,
    head_len: U16,
    entry_kind: u8,
    zero: u8,
}

/// Identity of an entry: the same on every replica, never 0.
pub(crate) fn identity_of(header: &RecordHeader, head: &[u8]) -> u32 {
    let fields = IdentityFields {
        group: header.group,
        payload_len: header.payload_len,
        term: header.term,
        index: header.index,
        payload_crc: header.payload_crc,
        head_len: header.head_len,
        entry_kind: header.entry_kind,
        zero: 0,
    };
    crc32c_append(crc32c(fields.as_bytes()), head).max(1)
}

/// Bytes of a record in a header area, with a head of `head_len` bytes.
pub(crate) const fn record_len(head_len: usize) -> usize {
    (RECORD_HEADER_LEN + head_len).next_multiple_of(RECORD_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::{RecordHeader, RecordKind, identity_of};

    #[test]
    fn an_identity_is_of_the_entry_not_of_its_copy() {
        let mut entry = RecordHeader::new(RecordKind::Entry, 3);
        entry.index = 17.into();
        let identity = identity_of(&entry, b"head");
        let mut moved = entry;
        moved.kind = RecordKind::Moved.raw();
        moved.payload_page = 5.into();
        moved.chain = 77.into();
        assert_eq!(identity_of(&moved, b"head"), identity);
        assert_ne!(identity_of(&moved, b"hEad"), identity);
        assert_ne!(moved.checksum(b"head", b""), entry.checksum(b"head", b""));
        assert_ne!(
            entry.checksum(b"head", b"side"),
            entry.checksum(b"head", b"")
        );
    }

    #[test]
    fn kinds_survive_the_medium() {
        for raw in 0..=u8::MAX {
            if let Some(kind) = RecordKind::from_raw(raw) {
                assert_eq!(kind.raw(), raw);
            }
        }
        assert_eq!(RecordKind::from_raw(0), None);
        assert_eq!(RecordKind::from_raw(9), None);
    }
}
