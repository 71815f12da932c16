//! Batches: records and payloads that become durable together.
//!
//! *Place*: built by the flusher from the queue, parsed by recovery. *Owner*: plain values.
//! *Invariants*: [`BatchHead::parse`] accepts only what [`encode`] wrote, whole. *On failure*:
//! `parse` returns what is wrong; nothing panics on hostile bytes.

use crate::format::{
    BATCH_HEADER_LEN, BATCH_MAGIC, BatchHeader, HeadFault, RECORD_ALIGN, REPEAT_LEN, VERSION,
    check_magic, crc_of,
};
use crate::limit::{HEADER_AREA_MAX, PAGE, SEGMENT_LEN_MAX, SEQUENCE_MAX, page_number, page_up};
use crate::record::{Decoded, Record};
use crate::repeat::Repeat;
use ogee_proto::id::{CopysetId, StoreId};
use ogee_runtime::{Buffer, Gather, Payload};
use zerocopy::{FromBytes, IntoBytes};

/// What places a batch in its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchPlace {
    pub store: StoreId,
    pub segment: u64,
    pub epoch: u64,
    pub sequence: u64,
    pub durable_upto: u64,
    /// Bytes from the segment's start.
    pub offset: usize,
    pub previous_crc: u32,
    /// Where the batch before it begins; 0 for the segment's first.
    pub previous_offset: usize,
}

/// An encoded batch.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub data: Gather,
    pub crc: u32,
    /// Bytes of the header area: where the first payload begins.
    pub header_len: usize,
}

/// A parsed header area.
#[derive(Debug)]
pub(crate) struct BatchHead {
    pub place: BatchPlace,
    pub crc: u32,
    pub header_len: usize,
    pub payload_len: usize,
    records: u32,
    repeats: usize,
    used: usize,
}

/// What a header area says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub records: Vec<Decoded>,
    /// What the batch before it said.
    pub repeats: Vec<Repeat>,
}

/// Bytes of a batch's header area whose records take `records_len` bytes, with `repeats` repeats.
pub(crate) const fn header_area_len(records_len: usize, repeats: usize) -> usize {
    page_up(BATCH_HEADER_LEN + records_len + repeats * REPEAT_LEN)
}

/// Encodes `records` with their payloads, in their order, and what the batch before it said.
pub(crate) fn encode<'a>(
    place: &BatchPlace,
    records: impl Iterator<Item = (CopysetId, &'a Record, &'a Payload)> + Clone,
    repeats: &[Repeat],
) -> Encoded {
    let records_len: usize = records.clone().map(|(_, record, _)| record.len()).sum();
    let payload_len: usize = records
        .clone()
        .map(|(_, record, _)| record.payload_len())
        .sum();
    let header_len = header_area_len(records_len, repeats.len());
    // A placed payload is written beside the batch.
    let payloads = records
        .clone()
        .filter(|(_, record, _)| record.payload_len() > 0)
        .map(|(_, _, payload)| payload);
    let copied = Gather::copied_len(payloads.clone());
    let mut area = Buffer::with_capacity(header_len + copied);
    area.resize(header_len);
    let (mut at, mut count, mut payload_at) = (BATCH_HEADER_LEN, 0u32, 0);
    for (group, record, _) in records {
        let payload_page = page_number(payload_at);
        record.encode(group, payload_page, &mut area[at..at + record.len()]);
        payload_at += record.payload_len();
        at += record.len();
        count += 1;
    }
    for repeat in repeats {
        area[at..at + REPEAT_LEN].copy_from_slice(&repeat.encode());
        at += REPEAT_LEN;
    }
    let mut header = header_of(place, count);
    header.repeats = u32::try_from(repeats.len())
        .expect("invariant: a header area is at most HEADER_AREA_MAX")
        .into();
    header.header_pages = page_number(header_len).into();
    header.payload_pages = page_number(payload_len).into();
    header.header_len = u32::try_from(at)
        .expect("invariant: a header area is at most HEADER_AREA_MAX")
        .into();
    area[..BATCH_HEADER_LEN].copy_from_slice(header.as_bytes());
    let crc = crc_of(&area);
    header.crc = crc.into();
    area[..BATCH_HEADER_LEN].copy_from_slice(header.as_bytes());
    Encoded {
        data: Gather::behind(area, payloads, copied),
        crc,
        header_len,
    }
}

fn header_of(place: &BatchPlace, records: u32) -> BatchHeader {
    BatchHeader {
        magic: BATCH_MAGIC,
        version: VERSION.into(),
        crc: 0.into(),
        store: place.store.to_bytes(),
        segment: place.segment.into(),
        epoch: place.epoch.into(),
        sequence: place.sequence.into(),
        durable_upto: place.durable_upto.into(),
        page: page_number(place.offset).into(),
        header_pages: 0.into(),
        payload_pages: 0.into(),
        records: records.into(),
        previous_crc: place.previous_crc.into(),
        header_len: 0.into(),
        previous_page: page_number(place.previous_offset).into(),
        repeats: 0.into(),
    }
}

impl BatchHead {
    /// Length of the header area that begins with `page`, if `page` looks like one: what to read
    /// before [`BatchHead::parse`].
    pub(crate) fn area_len(page: &[u8]) -> Result<usize, HeadFault> {
        check_magic(page, &BATCH_MAGIC)?;
        let (header, _) = BatchHeader::read_from_prefix(page).map_err(|_| HeadFault::Invalid)?;
        match header.header_pages.get() as usize * PAGE {
            0 => Err(HeadFault::Invalid),
            len if len > HEADER_AREA_MAX => Err(HeadFault::Invalid),
            len => Ok(len),
        }
    }

    /// Parses a whole header area of `store`.
    pub(crate) fn parse(area: &[u8], store: StoreId) -> Result<Self, HeadFault> {
        check_magic(area, &BATCH_MAGIC)?;
        let (header, _) = BatchHeader::read_from_prefix(area).map_err(|_| HeadFault::Invalid)?;
        if header.crc.get() != crc_of(area) {
            return Err(HeadFault::Invalid);
        }
        let found = StoreId::from_bytes(header.store);
        if found != store {
            return Err(HeadFault::Foreign(found));
        }
        let used = header.header_len.get() as usize;
        let repeats = header.repeats.get() as usize;
        let numbers = [header.segment, header.epoch, header.sequence];
        let parts = [header.page, header.header_pages, header.payload_pages];
        let end: u64 = parts.iter().map(|pages| u64::from(pages.get())).sum();
        if header.header_pages.get() as usize * PAGE != area.len()
            || !(BATCH_HEADER_LEN..=area.len()).contains(&used)
            || repeats > (used - BATCH_HEADER_LEN) / REPEAT_LEN
            || numbers.iter().any(|number| number.get() > SEQUENCE_MAX)
            || end > (SEGMENT_LEN_MAX / PAGE) as u64
        {
            return Err(HeadFault::Invalid);
        }
        Ok(Self {
            place: BatchPlace {
                store,
                segment: header.segment.get(),
                epoch: header.epoch.get(),
                sequence: header.sequence.get(),
                durable_upto: header.durable_upto.get(),
                offset: header.page.get() as usize * PAGE,
                previous_crc: header.previous_crc.get(),
                previous_offset: header.previous_page.get() as usize * PAGE,
            },
            crc: header.crc.get(),
            header_len: area.len(),
            payload_len: header.payload_pages.get() as usize * PAGE,
            records: header.records.get(),
            repeats,
            used,
        })
    }

    /// Bytes of the whole batch.
    pub(crate) const fn len(&self) -> usize {
        self.header_len + self.payload_len
    }

    /// Records and repeats in `area`; `None` if they are malformed or payloads leave the batch.
    pub(crate) fn contents(&self, area: &[u8]) -> Option<Contents> {
        let repeats_at = self.used - self.repeats * REPEAT_LEN;
        let mut rest = area.get(BATCH_HEADER_LEN..repeats_at)?;
        let mut records = Vec::new();
        for _ in 0..self.records {
            let decoded = Record::decode(rest)?;
            let end = decoded.payload_page as usize * PAGE + decoded.record.payload_len();
            if end > self.payload_len {
                return None;
            }
            rest = rest.get(decoded.record.len()..)?;
            records.push(decoded);
        }
        let repeats = area.get(repeats_at..self.used)?.chunks_exact(REPEAT_LEN);
        let repeats = repeats.map(Repeat::decode).collect::<Option<_>>()?;
        rest.is_empty().then_some(Contents { records, repeats })
    }
}

const _: () = assert!(BATCH_HEADER_LEN.is_multiple_of(RECORD_ALIGN));

#[cfg(test)]
mod tests {
    use super::{BatchHead, BatchPlace, encode};
    use crate::entry::{Entry, Vote};
    use crate::format::HeadFault;
    use crate::limit::PAGE;
    use crate::record::{EntryRecord, Record};
    use crate::repeat::Repeat;
    use bytes::Bytes;
    use ogee_proto::id::{CopysetId, LogId, StoreId};
    use ogee_runtime::{Buffer, Payload};

    const STORE: StoreId = StoreId::from_bytes([7; 16]);

    fn place() -> BatchPlace {
        BatchPlace {
            store: STORE,
            segment: 4,
            epoch: 2,
            sequence: 77,
            durable_upto: 76,
            offset: 5 * PAGE,
            previous_crc: 0xabcd,
            previous_offset: 3 * PAGE,
        }
    }

    fn repeats() -> Vec<Repeat> {
        let group = CopysetId::new(6);
        let purge = Record::Purge(LogId::new(1, 2));
        vec![
            Repeat::of(group, &purge),
            Repeat::of(group, &Record::RemoveGroup),
        ]
    }

    fn items() -> Vec<(CopysetId, Record, Payload)> {
        let group = CopysetId::new(1);
        let entry = |index, payload: Payload| {
            let entry = Entry {
                id: LogId::new(1, index),
                kind: 0,
                head: Bytes::from(vec![3; 2048]),
                payload,
                payload_crc: 5,
            };
            (
                group,
                Record::Entry(EntryRecord::new(group, &entry, 0)),
                entry.payload,
            )
        };
        let vote = Vote {
            term: 1,
            voted_for: 2,
            committed: true,
        };
        vec![
            (group, Record::Vote(vote), Payload::empty()),
            entry(1, Payload::from(vec![0xa1; PAGE])),
            entry(2, Payload::empty()),
            entry(3, Payload::from(vec![0xa3; 2 * PAGE])),
        ]
    }

    fn flat(encoded: &super::Encoded) -> Vec<u8> {
        encoded.data.pieces().flatten().copied().collect()
    }

    fn encoded() -> super::Encoded {
        let items = items();
        encode(
            &place(),
            items
                .iter()
                .map(|(group, record, payload)| (*group, record, payload)),
            &repeats(),
        )
    }

    #[test]
    fn parses_what_it_encoded() {
        let encoded = encoded();
        assert_eq!(encoded.header_len, 2 * PAGE);
        assert_eq!(encoded.data.len(), 5 * PAGE);
        assert_eq!(BatchHead::area_len(&flat(&encoded)), Ok(2 * PAGE));
        let bytes = flat(&encoded);
        let area = &bytes[..2 * PAGE];
        let head = BatchHead::parse(area, STORE).unwrap();
        assert_eq!(
            (head.place, head.crc, head.len()),
            (place(), encoded.crc, 5 * PAGE)
        );
        let contents = head.contents(area).unwrap();
        assert_eq!(contents.repeats, repeats());
        let records = contents.records;
        let pages: Vec<u32> = records.iter().map(|decoded| decoded.payload_page).collect();
        assert_eq!(pages, [0, 0, 1, 1]);
        assert_eq!(bytes[2 * PAGE], 0xa1);
        assert_eq!(bytes[3 * PAGE], 0xa3);
        for (decoded, (group, record, _)) in records.iter().zip(items()) {
            assert_eq!((decoded.group, &decoded.record), (group, &record));
        }
    }

    /// Whatever memory its payloads lie in, a batch has the same bytes; those that a device can take are not copied.
    #[test]
    fn payloads_that_a_device_can_take_stay_where_they_are() {
        let items = items();
        let bytes = flat(&encoded());
        for taken in 0..4_u32 {
            let mut payloads: Vec<Payload> = Vec::new();
            for (at, (_, _, payload)) in items.iter().enumerate() {
                let is_taken = match at {
                    1 => taken & 1 != 0,
                    _ => taken & 2 != 0,
                };
                // An odd place in memory, or a page's.
                let mut odd = vec![0; payload.len() + 1];
                let start = usize::from(odd.as_ptr().addr().is_multiple_of(2));
                odd[start..start + payload.len()].copy_from_slice(payload);
                payloads.push(match is_taken {
                    true => Payload::from(Buffer::copy_from(payload)),
                    false => Payload::from(odd).slice(start..start + payload.len()),
                });
            }
            let records = items.iter().zip(&payloads);
            let records = records.map(|((group, record, _), payload)| (*group, record, payload));
            let encoded = encode(&place(), records, &repeats());
            assert_eq!(flat(&encoded), bytes, "taken: {taken:b}");
            let starts: Vec<*const u8> = encoded.data.pieces().map(<[u8]>::as_ptr).collect();
            for (bit, at) in [(1, 1), (2, 3)] {
                let stays = starts.contains(&payloads[at].as_ptr());
                assert_eq!(stays, taken & bit != 0, "payload {at}, taken: {taken:b}");
            }
            let shared = [0, 1, 2, 3][taken as usize] * PAGE;
            assert_eq!(encoded.data.shared_len(), shared);
        }
    }

    #[test]
    fn every_byte_of_the_header_area_is_covered() {
        let encoded = encoded();
        for at in 0..2 * PAGE {
            let mut area = flat(&encoded)[..2 * PAGE].to_vec();
            area[at] ^= 1;
            assert!(BatchHead::parse(&area, STORE).is_err(), "byte {at}");
        }
    }

    /// Checksums cannot be relied on alone: numbers that nothing ever counts to are refused, so that
    /// those who add to them need not care.
    #[test]
    fn absurd_numbers_are_refused_whatever_the_checksum_says() {
        // Segment, epoch, sequence; then page, and pages of the payload area.
        for (at, width) in [(32, 8), (40, 8), (48, 8), (64, 4), (72, 4)] {
            let mut area = flat(&encoded())[..2 * PAGE].to_vec();
            area[at..at + width].fill(0xff);
            let crc = crate::format::crc_of(&area);
            area[12..16].copy_from_slice(&crc.to_le_bytes());
            let parsed = BatchHead::parse(&area, STORE);
            assert_eq!(parsed.err(), Some(HeadFault::Invalid), "field at {at}");
        }
    }

    #[test]
    fn another_store_is_foreign() {
        let encoded = encoded();
        let other = StoreId::from_bytes([8; 16]);
        let fault = BatchHead::parse(&flat(&encoded)[..2 * PAGE], other).unwrap_err();
        assert_eq!(fault, HeadFault::Foreign(STORE));
    }
}
