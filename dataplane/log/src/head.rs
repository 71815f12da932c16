//! Segment headers: where a segment stands in the log, and the state of all groups before it.
//!
//! *Place*: written when a segment is begun, read at open. *Owner*: plain values. *Invariants*:
//! [`SegmentHead::parse`] accepts only what [`SegmentHead::encode`] wrote, from either copy.
//! *On failure*: `parse` returns what is wrong; nothing panics on hostile bytes.

use crate::entry::Vote;
use crate::facts::Facts;
use crate::format::{
    FLAG_COMMITTED, FLAG_END_LOST, FLAG_LAST, FLAG_PURGED, FLAG_VOTE, FLAG_VOTE_COMMITTED,
    FLAG_VOTE_LOST, HeadFault, SEGMENT_HEADER_LEN, SEGMENT_MAGIC, SegmentHeader, TABLE_RECORD_LEN,
    TableRecord, VERSION, check_magic, crc_of,
};
use crate::limit::{GROUPS_MAX, PAGE, SCAN_WINDOW, SEQUENCE_MAX, page_up};
use crate::options::Geometry;
use ogee_proto::checksum::crc32c;
use ogee_proto::id::{CopysetId, LogId, StoreId};
use ogee_runtime::Buffer;
use std::cmp::Reverse;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Recovery parses a header from the first window of a slot.
const _: () = assert!(Geometry::head_len(GROUPS_MAX) <= SCAN_WINDOW);

/// A segment header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub store: StoreId,
    pub slot: usize,
    pub sequence: u64,
    pub epoch: u64,
    pub first_batch: u64,
    /// Sequence and length of the segment before this one.
    pub previous: Option<(u64, u64)>,
    pub oldest_live: u64,
    pub region_len: u64,
    pub segment_len: u64,
    pub groups: Vec<(CopysetId, Facts)>,
    /// Checksum of the head page; the first batch repeats it.
    pub crc: u32,
}

impl SegmentHead {
    /// Bytes on the medium: where the first batch begins.
    pub(crate) const fn len(&self) -> usize {
        Geometry::head_len(self.groups.len())
    }

    /// Both copies of head page and table; sets `crc`.
    pub(crate) fn encode(&mut self) -> Buffer {
        let table_len = page_up(self.groups.len() * TABLE_RECORD_LEN);
        let mut buffer = Buffer::zeroed(self.len());
        let (heads, tables) = buffer.split_at_mut(2 * PAGE);
        let (table, copy) = tables.split_at_mut(table_len);
        for (place, (group, facts)) in table.chunks_exact_mut(TABLE_RECORD_LEN).zip(&self.groups) {
            place.copy_from_slice(table_record(*group, facts).as_bytes());
        }
        copy.copy_from_slice(table);
        let mut header = self.header(crc32c(table));
        let (page, copy) = heads.split_at_mut(PAGE);
        page[..SEGMENT_HEADER_LEN].copy_from_slice(header.as_bytes());
        self.crc = crc_of(page);
        header.crc = self.crc.into();
        page[..SEGMENT_HEADER_LEN].copy_from_slice(header.as_bytes());
        copy.copy_from_slice(page);
        buffer
    }

    fn header(&self, table_crc: u32) -> SegmentHeader {
        let small =
            |value| u32::try_from(value).expect("invariant: slots and groups are below 2^32");
        let (previous, previous_len) = self.previous.unwrap_or((0, 0));
        SegmentHeader {
            magic: SEGMENT_MAGIC,
            version: VERSION.into(),
            crc: 0.into(),
            store: self.store.to_bytes(),
            segment: self.sequence.into(),
            epoch: self.epoch.into(),
            first_batch: self.first_batch.into(),
            previous: previous.into(),
            previous_len: previous_len.into(),
            oldest_live: self.oldest_live.into(),
            region_len: self.region_len.into(),
            segment_len: self.segment_len.into(),
            slot: small(self.slot).into(),
            groups: small(self.groups.len()).into(),
            table_crc: table_crc.into(),
            reserved: 0.into(),
        }
    }

    /// Parses the start of slot `slot`: the newer of the valid copies of the head page (a copy whose
    /// write got lost is still of the segment before), and the first valid one of its table.
    pub(crate) fn parse(area: &[u8], slot: usize, store: StoreId) -> Result<Self, HeadFault> {
        let (mut fault, mut headers) = (HeadFault::Absent, Vec::new());
        for page in area.chunks_exact(PAGE).take(2) {
            match Self::parse_page(page, slot, store) {
                Ok(header) => headers.push(header),
                Err(found) => fault = worse(fault, found),
            }
        }
        headers.sort_by_key(|header| Reverse((header.segment.get(), header.epoch.get())));
        for header in &headers {
            match Self::with_table(header, area) {
                Ok(head) => return Ok(head),
                Err(found) => fault = worse(fault, found),
            }
        }
        Err(fault)
    }

    fn parse_page(page: &[u8], slot: usize, store: StoreId) -> Result<SegmentHeader, HeadFault> {
        check_magic(page, &SEGMENT_MAGIC)?;
        let (header, _) = SegmentHeader::read_from_prefix(page).map_err(|_| HeadFault::Invalid)?;
        if header.crc.get() != crc_of(page) {
            return Err(HeadFault::Invalid);
        }
        let found = StoreId::from_bytes(header.store);
        if found != store {
            return Err(HeadFault::Foreign(found));
        }
        let numbers = [header.segment, header.epoch, header.first_batch];
        let in_bounds = header.slot.get() as usize == slot
            && header.segment.get() > 0
            && header.first_batch.get() > 0
            && numbers.iter().all(|number| number.get() <= SEQUENCE_MAX)
            // What is live lies in a segment before this one, or there is nothing.
            && header.oldest_live.get() <= header.segment.get()
            && header.groups.get() as usize <= GROUPS_MAX;
        if in_bounds {
            Ok(header)
        } else {
            Err(HeadFault::Invalid)
        }
    }

    fn with_table(header: &SegmentHeader, area: &[u8]) -> Result<Self, HeadFault> {
        let count = header.groups.get() as usize;
        let table_len = page_up(count * TABLE_RECORD_LEN);
        let tables = area
            .get(2 * PAGE..2 * PAGE + 2 * table_len)
            .ok_or(HeadFault::Invalid)?;
        let (table, copy) = tables.split_at(table_len);
        let table = [table, copy]
            .into_iter()
            .find(|table| crc32c(table) == header.table_crc.get())
            .ok_or(HeadFault::Invalid)?;
        let mut groups = Vec::with_capacity(count);
        for record in table.chunks_exact(TABLE_RECORD_LEN).take(count) {
            let record = TableRecord::read_from_bytes(record).map_err(|_| HeadFault::Invalid)?;
            groups.push(facts_of(&record).ok_or(HeadFault::Invalid)?);
        }
        let previous = header.previous.get();
        Ok(Self {
            store: StoreId::from_bytes(header.store),
            slot: header.slot.get() as usize,
            sequence: header.segment.get(),
            epoch: header.epoch.get(),
            first_batch: header.first_batch.get(),
            previous: (previous > 0).then_some((previous, header.previous_len.get())),
            oldest_live: header.oldest_live.get(),
            region_len: header.region_len.get(),
            segment_len: header.segment_len.get(),
            groups,
            crc: header.crc.get(),
        })
    }
}

/// The fault that tells more about a slot whose copies both failed.
fn worse(a: HeadFault, b: HeadFault) -> HeadFault {
    let weight = |fault: &HeadFault| match fault {
        HeadFault::Absent => 0,
        HeadFault::Foreign(_) => 1,
        HeadFault::Invalid => 2,
        HeadFault::Version(_) => 3,
    };
    if weight(&b) > weight(&a) { b } else { a }
}

fn table_record(group: CopysetId, facts: &Facts) -> TableRecord {
    let mut record = TableRecord::new_zeroed();
    let mut flags = 0;
    record.group = group.get().into();
    record.first = facts.first.into();
    record.last_crc = facts.last_crc.into();
    if let Some(vote) = facts.vote {
        flags |= FLAG_VOTE
            | if vote.committed {
                FLAG_VOTE_COMMITTED
            } else {
                0
            };
        record.vote_term = vote.term.into();
        record.voted_for = vote.voted_for.into();
    }
    if let Some(id) = facts.committed {
        flags |= FLAG_COMMITTED;
        record.committed_term = id.term.get().into();
        record.committed_index = id.index.get().into();
    }
    if let Some(id) = facts.purged {
        flags |= FLAG_PURGED;
        record.purged_term = id.term.get().into();
        record.purged_index = id.index.get().into();
    }
    if let Some(id) = facts.last {
        flags |= FLAG_LAST;
        record.last_term = id.term.get().into();
        record.last_index = id.index.get().into();
    }
    if facts.vote_lost {
        flags |= FLAG_VOTE_LOST;
    }
    if facts.end_lost {
        flags |= FLAG_END_LOST;
    }
    record.flags = flags.into();
    record
}

fn facts_of(record: &TableRecord) -> Option<(CopysetId, Facts)> {
    let flags = record.flags.get();
    let id = |bit, term: u64, index: u64| (flags & bit != 0).then(|| LogId::new(term, index));
    let facts = Facts {
        vote: (flags & FLAG_VOTE != 0).then(|| Vote {
            term: record.vote_term.get(),
            voted_for: record.voted_for.get(),
            committed: flags & FLAG_VOTE_COMMITTED != 0,
        }),
        committed: id(
            FLAG_COMMITTED,
            record.committed_term.get(),
            record.committed_index.get(),
        ),
        purged: id(
            FLAG_PURGED,
            record.purged_term.get(),
            record.purged_index.get(),
        ),
        last: id(FLAG_LAST, record.last_term.get(), record.last_index.get()),
        first: record.first.get(),
        last_crc: record.last_crc.get(),
        vote_lost: flags & FLAG_VOTE_LOST != 0,
        end_lost: flags & FLAG_END_LOST != 0,
    };
    let last = facts.last.map_or(0, |last| last.index.get());
    let mut ids = [facts.last, facts.committed, facts.purged].into_iter();
    // There is always a next index.
    let sane = ids.all(|id| id.is_none_or(|id| id.index.get() < u64::MAX))
        && facts.first <= last.saturating_add(1);
    sane.then_some((CopysetId::new(record.group.get()), facts))
}

#[cfg(test)]
mod tests {
    use super::SegmentHead;
    use crate::entry::Vote;
    use crate::facts::Facts;
    use crate::format::{HeadFault, VERSION};
    use crate::limit::PAGE;
    use ogee_proto::id::{CopysetId, LogId, StoreId};

    const STORE: StoreId = StoreId::from_bytes([7; 16]);

    fn head(groups: u32) -> SegmentHead {
        let facts = |group: u32| Facts {
            vote: (group != 1).then_some(Vote {
                term: 9,
                voted_for: 4,
                committed: group == 2,
            }),
            committed: (group == 2).then(|| LogId::new(1, 5)),
            purged: (group == 2).then(|| LogId::new(1, 2)),
            last: (group == 2).then(|| LogId::new(3, 8)),
            first: if group == 2 { 3 } else { 0 },
            last_crc: group * 3,
            vote_lost: group == 5,
            end_lost: group == 6,
        };
        SegmentHead {
            store: STORE,
            slot: 3,
            sequence: 12,
            epoch: 4,
            first_batch: 100,
            previous: Some((11, 65_536)),
            oldest_live: 9,
            region_len: 1 << 20,
            segment_len: 1 << 16,
            groups: (0..groups)
                .map(|group| (CopysetId::new(group), facts(group)))
                .collect(),
            crc: 0,
        }
    }

    #[test]
    fn survives_encoding_with_any_number_of_groups() {
        for groups in [0, 1, 3, 46, 47, 200, 1024] {
            let mut head = head(groups);
            let area = head.encode();
            assert_eq!(area.len(), head.len());
            assert_eq!(SegmentHead::parse(&area, 3, STORE), Ok(head));
        }
    }

    #[test]
    fn any_single_bad_page_is_survived() {
        let mut head = head(60);
        let area = head.encode();
        assert_eq!(area.len(), 6 * PAGE);
        for bad in 0..6 {
            let mut area = area.to_vec();
            area[bad * PAGE..(bad + 1) * PAGE].fill(0xff);
            assert_eq!(
                SegmentHead::parse(&area, 3, STORE).as_ref(),
                Ok(&head),
                "page {bad}"
            );
        }
    }

    /// The write of one copy got lost, so the segment before in that slot is still told by it; their
    /// tables may be the same or not.
    #[test]
    fn a_copy_of_before_does_not_hide_the_header() {
        for groups in [3, 4] {
            let (mut before, mut now) = (head(3), head(groups));
            (before.sequence, before.epoch, before.oldest_live) = (4, 2, 4);
            let (before, area) = (before.encode(), now.encode());
            for copy in 0..2 {
                let lost = copy * PAGE..(copy + 1) * PAGE;
                let mut area = area.to_vec();
                area[lost.clone()].copy_from_slice(&before[lost]);
                let found = SegmentHead::parse(&area, 3, STORE);
                assert_eq!(found.as_ref(), Ok(&now), "copy {copy}, {groups} groups");
            }
        }
    }

    /// A header that was begun and not finished: the one before it in that slot is as good as before.
    #[test]
    fn a_header_without_its_table_does_not_hide_the_one_before() {
        let (mut before, mut now) = (head(3), head(4));
        (before.sequence, before.epoch, before.oldest_live) = (4, 2, 4);
        let (area, now) = (before.encode(), now.encode());
        for copy in 0..2 {
            let written = copy * PAGE..(copy + 1) * PAGE;
            let mut area = area.to_vec();
            area[written.clone()].copy_from_slice(&now[written]);
            let found = SegmentHead::parse(&area, 3, STORE);
            assert_eq!(found.as_ref(), Ok(&before), "copy {copy}");
        }
    }

    #[test]
    fn both_copies_bad_is_invalid() {
        let mut head = head(3);
        let area = head.encode();
        for pages in [[0, 1], [2, 3]] {
            let mut area = area.to_vec();
            pages.iter().for_each(|page| area[page * PAGE + 20] ^= 1);
            assert_eq!(SegmentHead::parse(&area, 3, STORE), Err(HeadFault::Invalid));
        }
    }

    /// As for batches: numbers that nothing ever counts to.
    #[test]
    fn absurd_numbers_are_refused_whatever_the_checksums_say() {
        let numbers = |change: fn(&mut SegmentHead)| {
            let mut head = head(3);
            change(&mut head);
            SegmentHead::parse(&head.encode(), 3, STORE)
        };
        let absurd: [fn(&mut SegmentHead); 8] = [
            |head| head.sequence = u64::MAX,
            |head| head.epoch = u64::MAX,
            |head| head.first_batch = u64::MAX,
            |head| head.oldest_live = u64::MAX,
            |head| head.oldest_live = head.sequence + 1,
            |head| head.groups[2].1.last = Some(LogId::new(1, u64::MAX)),
            |head| head.groups[2].1.committed = Some(LogId::new(1, u64::MAX)),
            |head| head.groups[2].1.purged = Some(LogId::new(1, u64::MAX)),
        ];
        for (number, change) in absurd.into_iter().enumerate() {
            assert_eq!(numbers(change), Err(HeadFault::Invalid), "number {number}");
        }
        assert!(numbers(|_| ()).is_ok());
        assert!(numbers(|head| head.oldest_live = head.sequence).is_ok());
    }

    #[test]
    fn other_slots_stores_and_versions_are_refused() {
        let mut head = head(3);
        let mut area = head.encode().to_vec();
        assert_eq!(SegmentHead::parse(&area, 4, STORE), Err(HeadFault::Invalid));
        let other = StoreId::from_bytes([1; 16]);
        assert_eq!(
            SegmentHead::parse(&area, 3, other),
            Err(HeadFault::Foreign(STORE))
        );
        for page in [0, 1] {
            area[page * PAGE + 8..page * PAGE + 12].copy_from_slice(&9u32.to_le_bytes());
        }
        assert_eq!(
            SegmentHead::parse(&area, 3, STORE),
            Err(HeadFault::Version(9))
        );
        assert_ne!(VERSION, 9);
        assert_eq!(
            SegmentHead::parse(&[0; 8192], 3, STORE),
            Err(HeadFault::Absent)
        );
    }
}
