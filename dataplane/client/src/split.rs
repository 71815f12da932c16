//! Request → parts, each within one chunk and one frame.
//!
//! *Place*: first step of every user request in `volume`.
//! *Owner*: none; pure functions over the volume's stripe layout.
//! *Invariants*: the parts cover the request exactly, without overlap; a part of
//! [`payload_parts`] holds at most `REQUEST_PAYLOAD_MAX` bytes.
//! *On failure*: the caller has checked the request against the volume's size, so there is none.

use ogee_proto::id::ChunkIndex;
use ogee_proto::layout::{ChunkSpan, StripeLayout};
use ogee_proto::limit::{CHUNK_SIZE, REQUEST_PAYLOAD_MAX};
use ogee_proto::unit::{ByteLen, ByteOffset};

/// Part of a user request: one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Part {
    /// The chunk.
    pub(crate) chunk: ChunkIndex,
    /// Where it starts within the chunk, in bytes.
    pub(crate) offset: u32,
    /// Its bytes.
    pub(crate) len: u32,
    /// Where it starts within the request (payload parts), in bytes.
    pub(crate) at: usize,
}

const CHUNK: u64 = CHUNK_SIZE as u64;

/// Parts of a request that carries data, in address order.
pub(crate) fn payload_parts(
    layout: StripeLayout,
    offset: ByteOffset,
    len: ByteLen,
) -> impl Iterator<Item = Part> {
    layout.spans(offset, len).flat_map(|span| {
        let total = span.len.as_usize();
        (0..total).step_by(REQUEST_PAYLOAD_MAX).map(move |into| {
            let len = REQUEST_PAYLOAD_MAX.min(total - into);
            piece(span, into, len)
        })
    })
}

/// Parts of a request that asks about addresses, in address order: as long as a chunk allows.
pub(crate) fn status_parts(
    layout: StripeLayout,
    offset: ByteOffset,
    len: ByteLen,
) -> impl Iterator<Item = Part> {
    layout
        .spans(offset, len)
        .map(|span| piece(span, 0, span.len.as_usize()))
}

/// Parts of a request without data (discard, write zeroes): one for each chunk touched.
///
/// Stripe units of one chunk that follow each other in the volume's order also follow each other
/// within the chunk, so they go as one frame.
pub(crate) fn range_parts(
    layout: StripeLayout,
    offset: ByteOffset,
    len: ByteLen,
) -> impl Iterator<Item = Part> {
    let set_size = CHUNK * u64::from(layout.count());
    let (start, end) = (offset.get(), offset.get() + len.get());
    (start / set_size..end.div_ceil(set_size)).flat_map(move |set| {
        let base = set * set_size;
        let within = start.max(base) - base..end.min(base + set_size) - base;
        let first = set * u64::from(layout.count());
        (0..layout.count()).filter_map(move |column| {
            let (offset, len) = column_range(layout, column, &within)?;
            let chunk = narrow(first + u64::from(column));
            Some(Part {
                chunk: ChunkIndex::new(chunk),
                offset,
                len,
                at: 0,
            })
        })
    })
}

/// The bytes of chunk `column` of a stripe set that lie in `within` (bytes of the set).
fn column_range(
    layout: StripeLayout,
    column: u32,
    within: &std::ops::Range<u64>,
) -> Option<(u32, u32)> {
    let start = bytes_below(layout, column, within.start);
    let end = bytes_below(layout, column, within.end);
    (start < end).then(|| (narrow(start), narrow(end - start)))
}

/// How many bytes of chunk `column` lie before byte `limit` of its stripe set.
fn bytes_below(layout: StripeLayout, column: u32, limit: u64) -> u64 {
    let (unit, count) = (u64::from(layout.unit()), u64::from(layout.count()));
    if count == 1 {
        return limit;
    }
    let (row, into) = (limit / (unit * count), limit % (unit * count));
    row * unit + into.saturating_sub(u64::from(column) * unit).min(unit)
}

fn piece(span: ChunkSpan, into: usize, len: usize) -> Part {
    let into_u64 = into as u64;
    Part {
        chunk: span.chunk,
        offset: narrow(span.chunk_offset.get() + into_u64),
        len: narrow(len as u64),
        at: span.request_offset.as_usize() + into,
    }
}

/// A position within a chunk or a chunk number: both fit by `VOLUME_SIZE_MAX`.
fn narrow(value: u64) -> u32 {
    u32::try_from(value).expect("invariant: addresses were checked against the volume's size")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogee_proto::limit::BLOCK_SIZE;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const BLOCK: u64 = BLOCK_SIZE as u64;

    fn layouts() -> impl Strategy<Value = StripeLayout> {
        let units = prop::sample::select(vec![4096u64, 65_536, 1 << 20, 16 << 20]);
        (units, 1u64..9).prop_map(|(unit, count)| StripeLayout::new(unit, count).unwrap())
    }

    fn requests() -> impl Strategy<Value = (ByteOffset, ByteLen)> {
        (0u64..80_000, 1u64..20_000)
            .prop_map(|(at, len)| (ByteOffset::new(at * BLOCK), ByteLen::new(len * BLOCK)))
    }

    /// The place of each block of the request, block by block: too simple to be wrong.
    fn places(layout: StripeLayout, offset: ByteOffset, len: ByteLen) -> Vec<(u32, u64)> {
        (0..len.get() / BLOCK)
            .map(|block| {
                let at = ByteOffset::new(offset.get() + block * BLOCK);
                let span = layout.locate(at, ByteLen::new(BLOCK)).unwrap();
                (span.chunk.get(), span.chunk_offset.get())
            })
            .collect()
    }

    fn blocks(part: &Part) -> impl Iterator<Item = (u32, u64)> {
        let (chunk, offset) = (part.chunk.get(), u64::from(part.offset));
        (0..u64::from(part.len) / BLOCK).map(move |block| (chunk, offset + block * BLOCK))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn payload_parts_cover_the_request_in_order(
            layout in layouts(), (offset, len) in requests(),
        ) {
            let parts: Vec<Part> = payload_parts(layout, offset, len).collect();
            let mut at = 0;
            for part in &parts {
                prop_assert_eq!(part.at, at);
                prop_assert!((1..=REQUEST_PAYLOAD_MAX).contains(&(part.len as usize)));
                prop_assert!(u64::from(part.offset) + u64::from(part.len) <= CHUNK);
                at += part.len as usize;
            }
            let covered: Vec<_> = parts.iter().flat_map(blocks).collect();
            prop_assert_eq!(covered, places(layout, offset, len));
        }

        #[test]
        fn status_parts_cover_the_request_in_order(
            layout in layouts(), (offset, len) in requests(),
        ) {
            let covered: Vec<_> =
                status_parts(layout, offset, len).flat_map(|part| blocks(&part).collect::<Vec<_>>()).collect();
            prop_assert_eq!(covered, places(layout, offset, len));
        }

        #[test]
        fn range_parts_name_each_chunk_once_and_cover_the_same_blocks(
            layout in layouts(), (offset, len) in requests(),
        ) {
            let mut expected: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
            for (chunk, at) in places(layout, offset, len) {
                expected.entry(chunk).or_default().push(at);
            }
            expected.values_mut().for_each(|blocks| blocks.sort_unstable());
            let parts: Vec<Part> = range_parts(layout, offset, len).collect();
            prop_assert_eq!(parts.len(), expected.len());
            for part in parts {
                let found: Vec<u64> = blocks(&part).map(|(_, at)| at).collect();
                prop_assert_eq!(Some(&found), expected.get(&part.chunk.get()));
            }
        }
    }
}
