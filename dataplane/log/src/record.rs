//! Records: the unit of order in a batch.
//!
//! *Place*: between the queue (typed) and the header area (bytes). *Owner*: plain values.
//! *Invariants*: `decode(encode(record)) == record`; an entry's identity is of the entry alone, its
//! record's checksum covers place and chain as well. *On failure*: `decode` returns `None` and recovery reports the batch.

use crate::entry::{Entry, Vote};
use crate::format::{
    FLAG_LAST, FLAG_PLACED, FLAG_VOTE_COMMITTED, RECORD_HEADER_LEN, RecordHeader, RecordKind,
    identity_of, record_len,
};
use crate::limit::{HEAD_LEN_MAX, PAYLOAD_LEN_MAX};
use crate::placed::{Placed, side_len};
use bytes::Bytes;
use ogee_proto::id::{CopysetId, LogId};
use ogee_proto::limit::BLOCK_SIZE;
use std::rc::Rc;
use zerocopy::{FromBytes, IntoBytes};

/// An entry without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryRecord {
    pub id: LogId,
    pub kind: u8,
    pub head: Bytes,
    pub payload_len: u32,
    pub payload_crc: u32,
    /// Identity of the entry before it in the group's log, 0 if there was none.
    pub chain: u32,
    pub identity: u32,
    /// Where the payload lies, if not in the batch.
    pub placed: Option<Rc<Placed>>,
}

/// A live entry without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named {
    /// The term is 0 if it is not known.
    pub id: LogId,
    pub identity: u32,
    /// Identity of the entry before it, 0 if unknown.
    pub chain: u32,
}

/// What one record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Entry(EntryRecord),
    Moved(EntryRecord),
    Hole(Named),
    Vote(Vote),
    Committed(LogId),
    /// The new last entry and its identity.
    Truncate {
        last: Option<LogId>,
        crc: u32,
    },
    Purge(LogId),
    RemoveGroup,
}

/// A record as found in a header area.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    pub group: CopysetId,
    pub record: Record,
    /// Where the payload begins, in pages of the payload area.
    pub payload_page: u32,
}

impl EntryRecord {
    /// The record of `entry`, whose length has been checked.
    pub(crate) fn new(group: CopysetId, entry: &Entry, chain: u32) -> Self {
        let payload_len = u32::try_from(entry.payload.len())
            .expect("invariant: payload lengths are checked against PAYLOAD_LEN_MAX");
        let mut record = Self {
            id: entry.id,
            kind: entry.kind,
            head: entry.head.clone(),
            payload_len,
            payload_crc: entry.payload_crc,
            chain,
            identity: 0,
            placed: None,
        };
        let header = record.bare_header(RecordKind::Entry, group);
        record.identity = identity_of(&header, &record.head);
        record
    }

    /// An entry whose body is lost.
    pub(crate) const fn lost(named: &Named) -> Self {
        Self {
            id: named.id,
            kind: 0,
            head: Bytes::new(),
            payload_len: 0,
            payload_crc: 0,
            chain: named.chain,
            identity: named.identity,
            placed: None,
        }
    }

    /// The entry without its body.
    pub(crate) const fn named(&self) -> Named {
        Named {
            id: self.id,
            identity: self.identity,
            chain: self.chain,
        }
    }

    /// Bytes of record and payload in the log.
    pub(crate) fn footprint(&self) -> u32 {
        let len = record_len(self.head.len() + self.side_len()) + self.inline_len();
        u32::try_from(len).expect("invariant: heads and payloads are checked against their limits")
    }

    /// Bytes of payload in the batch.
    pub(crate) fn inline_len(&self) -> usize {
        match self.placed {
            Some(_) => 0,
            None => self.payload_len as usize,
        }
    }

    fn side_len(&self) -> usize {
        match self.placed {
            Some(_) => side_len(self.payload_len as usize),
            None => 0,
        }
    }

    fn bare_header(&self, kind: RecordKind, group: CopysetId) -> RecordHeader {
        let head_len = u16::try_from(self.head.len())
            .expect("invariant: head lengths are checked against HEAD_LEN_MAX");
        let mut header = RecordHeader::new(kind, group.get());
        header.head_len = head_len.into();
        header.set_log_id(self.id);
        header.payload_len = self.payload_len.into();
        header.payload_crc = self.payload_crc.into();
        header.chain = self.chain.into();
        header.entry_kind = self.kind;
        header.identity = self.identity.into();
        if self.placed.is_some() {
            header.flags |= flag(FLAG_PLACED);
        }
        header
    }
}

impl Record {
    /// Bytes in the header area.
    pub(crate) fn len(&self) -> usize {
        record_len(self.head().len() + self.entry().map_or(0, EntryRecord::side_len))
    }

    /// Bytes in the payload area.
    pub(crate) fn payload_len(&self) -> usize {
        self.entry().map_or(0, EntryRecord::inline_len)
    }

    /// Bytes of payload to be written beside the batch. Copies of an entry leave it where it is.
    pub(crate) fn placed_len(&self) -> usize {
        match self {
            Self::Entry(entry) => entry.placed.as_ref().map_or(0, |placed| placed.len()),
            _ => 0,
        }
    }

    /// The entry, if it is one with a body.
    pub(crate) const fn entry(&self) -> Option<&EntryRecord> {
        match self {
            Self::Entry(entry) | Self::Moved(entry) => Some(entry),
            _ => None,
        }
    }

    /// Whether losing it would break a promise: a committed id is only a hint.
    pub(crate) const fn is_binding(&self) -> bool {
        !matches!(self, Self::Committed(_))
    }

    /// Writes the record at the start of `area`, which is zero.
    pub(crate) fn encode(&self, group: CopysetId, payload_page: u32, area: &mut [u8]) {
        let mut header = self.header(group);
        header.payload_page = payload_page.into();
        let (fixed, rest) = area.split_at_mut(RECORD_HEADER_LEN);
        let (head, rest) = rest.split_at_mut(self.head().len());
        head.copy_from_slice(self.head());
        let side = self.entry().map_or(0, EntryRecord::side_len);
        let (side, _) = rest.split_at_mut(side);
        if let Some(placed) = self.entry().and_then(|entry| entry.placed.as_ref()) {
            placed.encode(side);
        }
        header.crc = header.checksum(head, side).into();
        fixed.copy_from_slice(header.as_bytes());
    }

    /// Reads the record at the start of `area`.
    pub(crate) fn decode(area: &[u8]) -> Option<Decoded> {
        let (header, rest) = RecordHeader::read_from_prefix(area).ok()?;
        let (head, rest) = rest.split_at_checked(usize::from(header.head_len.get()))?;
        let side = rest.get(..header.side_len())?;
        if header.crc.get() != header.checksum(head, side) || header.index.get() == u64::MAX {
            return None;
        }
        Some(Decoded {
            group: CopysetId::new(header.group.get()),
            record: Self::from_header(&header, head, side)?,
            payload_page: header.payload_page.get(),
        })
    }

    fn head(&self) -> &[u8] {
        match self {
            Self::Entry(entry) | Self::Moved(entry) => &entry.head,
            _ => &[],
        }
    }

    fn header(&self, group: CopysetId) -> RecordHeader {
        match self {
            Self::Entry(entry) => entry.bare_header(RecordKind::Entry, group),
            Self::Moved(entry) => entry.bare_header(RecordKind::Moved, group),
            Self::Hole(named) => {
                let mut header = id_header(RecordKind::Hole, Some(named.id), group);
                header.identity = named.identity.into();
                header.chain = named.chain.into();
                header
            }
            Self::Vote(vote) => vote_header(vote, group),
            Self::Committed(id) => id_header(RecordKind::Committed, Some(*id), group),
            Self::Truncate { last, crc } => {
                let mut header = id_header(RecordKind::Truncate, *last, group);
                header.chain = (*crc).into();
                header
            }
            Self::Purge(id) => id_header(RecordKind::Purge, Some(*id), group),
            Self::RemoveGroup => id_header(RecordKind::RemoveGroup, None, group),
        }
    }

    fn from_header(header: &RecordHeader, head: &[u8], side: &[u8]) -> Option<Self> {
        let id = header.log_id();
        Some(match RecordKind::from_raw(header.kind)? {
            RecordKind::Entry => Self::Entry(entry_of(header, head, side)?),
            RecordKind::Moved => Self::Moved(entry_of(header, head, side)?),
            RecordKind::Vote => Self::Vote(Vote {
                term: header.term.get(),
                voted_for: header.voted_for.get(),
                committed: u32::from(header.flags) & FLAG_VOTE_COMMITTED != 0,
            }),
            RecordKind::Committed => Self::Committed(id?),
            RecordKind::Truncate => Self::Truncate {
                last: id,
                crc: header.chain.get(),
            },
            RecordKind::Purge => Self::Purge(id?),
            RecordKind::RemoveGroup => Self::RemoveGroup,
            RecordKind::Hole => Self::Hole(Named {
                id: id?,
                identity: header.identity.get(),
                chain: header.chain.get(),
            }),
        })
    }
}

impl RecordHeader {
    fn set_log_id(&mut self, id: LogId) {
        self.flags |= flag(FLAG_LAST);
        self.term = id.term.get().into();
        self.index = id.index.get().into();
    }

    fn is_placed(&self) -> bool {
        u32::from(self.flags) & FLAG_PLACED != 0
    }

    /// Bytes behind the head that say where the payload lies.
    fn side_len(&self) -> usize {
        match self.is_placed() {
            true => side_len(self.payload_len.get() as usize),
            false => 0,
        }
    }

    fn log_id(&self) -> Option<LogId> {
        (u32::from(self.flags) & FLAG_LAST != 0)
            .then(|| LogId::new(self.term.get(), self.index.get()))
    }
}

fn flag(bit: u32) -> u8 {
    u8::try_from(bit).expect("invariant: record flags are the low eight bits")
}

fn vote_header(vote: &Vote, group: CopysetId) -> RecordHeader {
    let mut header = RecordHeader::new(RecordKind::Vote, group.get());
    header.term = vote.term.into();
    header.voted_for = vote.voted_for.into();
    header.flags = if vote.committed {
        flag(FLAG_VOTE_COMMITTED)
    } else {
        0
    };
    header
}

fn id_header(kind: RecordKind, id: Option<LogId>, group: CopysetId) -> RecordHeader {
    let mut header = RecordHeader::new(kind, group.get());
    if let Some(id) = id {
        header.set_log_id(id);
    }
    header
}

fn entry_of(header: &RecordHeader, head: &[u8], side: &[u8]) -> Option<EntryRecord> {
    let payload_len = header.payload_len.get();
    let is_itself = header.identity.get() == identity_of(header, head);
    let is_small = payload_len as usize <= PAYLOAD_LEN_MAX && head.len() <= HEAD_LEN_MAX;
    if !is_itself || !is_small || !(payload_len as usize).is_multiple_of(BLOCK_SIZE) {
        return None;
    }
    let placed = match header.is_placed() {
        true => Some(Placed::decode(side, payload_len as usize)?),
        false => None,
    };
    Some(EntryRecord {
        id: header.log_id()?,
        kind: header.entry_kind,
        head: Bytes::copy_from_slice(head),
        payload_len,
        payload_crc: header.payload_crc.get(),
        chain: header.chain.get(),
        identity: header.identity.get(),
        placed,
    })
}

#[cfg(test)]
mod tests {
    use super::{Decoded, EntryRecord, Named, Record};
    use crate::entry::{Entry, Vote};
    use crate::placed::Placed;
    use bytes::Bytes;
    use ogee_proto::id::{CopysetId, LogId};
    use ogee_proto::limit::EXTENT_SIZE;
    use ogee_runtime::Payload;

    const GOLDEN_HEADER: &str = concat!(
        "019004000700000003000000000000000f000000000000000000000000000000",
        "000000000000020062000000d2040000f8e640fed6dc4c150200000000000000",
    );

    /// An entry that fills two extents: addresses and checksums count up.
    fn placed() -> EntryRecord {
        let entry = Entry {
            id: LogId::new(3, 15),
            kind: 2,
            head: Bytes::from_static(b"head"),
            payload: Payload::from(vec![1; 2 * EXTENT_SIZE]),
            payload_crc: 98,
        };
        let mut record = EntryRecord::new(CopysetId::new(7), &entry, 1234);
        let places = [0x10_0000u64, 0x30_0000].into_iter();
        let mut side: Vec<u8> = places.flat_map(u64::to_le_bytes).collect();
        side.extend((1..=32u32).flat_map(u32::to_le_bytes));
        record.placed = Placed::decode(&side, 2 * EXTENT_SIZE);
        assert!(record.placed.is_some());
        record
    }

    fn samples() -> Vec<Record> {
        let entry = Entry {
            id: LogId::new(3, 14),
            kind: 2,
            head: Bytes::from_static(b"thirteen byte"),
            payload: Payload::from(vec![1; 8192]),
            payload_crc: 99,
        };
        let entry = EntryRecord::new(CopysetId::new(7), &entry, 1234);
        vec![
            Record::Entry(entry.clone()),
            Record::Moved(entry),
            Record::Entry(placed()),
            Record::Moved(placed()),
            Record::Hole(Named {
                id: LogId::new(2, 9),
                identity: 55,
                chain: 54,
            }),
            Record::Vote(Vote {
                term: 5,
                voted_for: u64::MAX,
                committed: false,
            }),
            Record::Vote(Vote {
                term: 5,
                voted_for: 1,
                committed: true,
            }),
            Record::Committed(LogId::new(1, 0)),
            Record::Truncate { last: None, crc: 0 },
            Record::Truncate {
                last: Some(LogId::new(0, 0)),
                crc: 71,
            },
            Record::Purge(LogId::new(4, 40)),
            Record::RemoveGroup,
        ]
    }

    /// Bytes that carry meaning.
    fn used(record: &Record) -> usize {
        let side = record.entry().map_or(0, EntryRecord::side_len);
        super::RECORD_HEADER_LEN + record.head().len() + side
    }

    /// Format version 2: a change needs a new one.
    #[test]
    fn todays_bytes_of_a_placed_entry_are_the_golden_ones() {
        let record = Record::Entry(placed());
        let mut area = vec![0; record.len()];
        record.encode(CopysetId::new(7), 0, &mut area);
        let hex: String = area.iter().map(|byte| format!("{byte:02x}")).collect();
        let (header, rest) = hex.split_at(2 * super::RECORD_HEADER_LEN);
        assert_eq!(header, GOLDEN_HEADER);
        let (head, side) = rest.split_at(8);
        assert_eq!(head, "68656164");
        let (places, crcs) = side.split_at(32);
        assert_eq!(places, "00001000000000000000300000000000");
        assert!(crcs.starts_with("010000000200000003000000"));
        assert_eq!(&crcs[31 * 8..], "2000000000000000", "padded to eight bytes");
        assert_eq!(
            (record.payload_len(), record.placed_len()),
            (0, 2 * EXTENT_SIZE)
        );
        let moved = Record::Moved(placed());
        assert_eq!((moved.payload_len(), moved.placed_len()), (0, 0));
    }

    #[test]
    fn every_kind_survives_encoding() {
        let group = CopysetId::new(7);
        for record in samples() {
            let mut area = vec![0; record.len()];
            record.encode(group, 3, &mut area);
            let expected = Decoded {
                group,
                record,
                payload_page: 3,
            };
            assert_eq!(Record::decode(&area), Some(expected));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        for record in samples() {
            let mut area = vec![0; record.len()];
            record.encode(CopysetId::new(7), 0, &mut area);
            for at in 0..used(&record) {
                let mut other = area.clone();
                other[at] ^= 0x40;
                assert_eq!(Record::decode(&other), None, "{record:?} byte {at}");
            }
        }
    }

    #[test]
    fn short_areas_are_refused() {
        for record in samples() {
            let mut area = vec![0; record.len()];
            record.encode(CopysetId::new(7), 0, &mut area);
            for len in 0..used(&record) {
                assert_eq!(Record::decode(&area[..len]), None);
            }
        }
    }
}
