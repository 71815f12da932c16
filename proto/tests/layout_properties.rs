//! What holds for every stripe layout: each volume byte has one place, and requests are cut exactly.

use ogee_proto::layout::{ChunkSpan, LayoutError, STRIPE_COUNT_MAX, StripeLayout};
use ogee_proto::limit::{BLOCK_SIZE, CHUNK_SIZE, VOLUME_SIZE_MAX};
use ogee_proto::unit::{ByteLen, ByteOffset};
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use std::collections::HashSet;

const CHUNK: u64 = CHUNK_SIZE as u64;

fn any_layout() -> impl Strategy<Value = StripeLayout> {
    (12u32..=24, 1u64..=u64::from(STRIPE_COUNT_MAX))
        .prop_map(|(shift, count)| StripeLayout::new(1 << shift, count).expect("in range"))
}

fn cut(layout: StripeLayout, offset: u64, len: u64) -> Vec<ChunkSpan> {
    layout
        .spans(ByteOffset::new(offset), ByteLen::new(len))
        .collect()
}

proptest! {
    #[test]
    fn spans_cover_the_request_once_and_in_order(
        layout in any_layout(), offset in 0..VOLUME_SIZE_MAX, len in 0u64..64 << 20,
    ) {
        let len = len.min(VOLUME_SIZE_MAX - offset);
        let mut covered = 0;
        for span in cut(layout, offset, len) {
            prop_assert_eq!(span.request_offset.get(), covered);
            prop_assert!(span.len.get() > 0);
            prop_assert!(span.chunk_offset.get() + span.len.get() <= CHUNK);
            covered += span.len.get();
        }
        prop_assert_eq!(covered, len);
    }

    #[test]
    fn spans_stay_within_the_volume_s_chunks(
        layout in any_layout(), size in 1..=VOLUME_SIZE_MAX, from_end in 1u64..4 << 20,
    ) {
        let offset = size.saturating_sub(from_end);
        let chunks = layout.chunk_count(ByteLen::new(size));
        prop_assert!(chunks.is_multiple_of(u64::from(layout.count())), "whole stripe sets");
        prop_assert!(chunks * CHUNK >= size);
        prop_assert!(chunks * CHUNK < size + CHUNK * u64::from(layout.count()));
        for span in cut(layout, offset, size - offset) {
            prop_assert!(u64::from(span.chunk.get()) < chunks);
        }
    }

    #[test]
    fn a_place_in_a_chunk_leads_back_to_its_address(layout in any_layout(), offset in 0..VOLUME_SIZE_MAX) {
        let span = layout.locate(ByteOffset::new(offset), ByteLen::new(1)).expect("within the largest volume");
        prop_assert_eq!(layout.offset_of(span.chunk, span.chunk_offset).get(), offset);
    }

    #[test]
    fn locate_agrees_with_spans_at_every_byte_asked(
        layout in any_layout(), offset in 0..VOLUME_SIZE_MAX - (32 << 20), at in 0u64..32 << 20,
    ) {
        let spans = cut(layout, offset, 32 << 20);
        let span = spans.iter()
            .rfind(|span| span.request_offset.get() <= at)
            .expect("the first span starts at zero");
        let single = layout.locate(ByteOffset::new(offset + at), ByteLen::new(1))
            .expect("within the largest volume");
        prop_assert_eq!(single.chunk, span.chunk);
        let into = at - span.request_offset.get();
        prop_assert_eq!(single.chunk_offset.get(), span.chunk_offset.get() + into);
        prop_assert_eq!(single.len, ByteLen::new(1));
    }

    /// Any two distinct addresses, near or far, have distinct places.
    #[test]
    fn two_addresses_never_share_a_place(
        layout in any_layout(), a in 0..VOLUME_SIZE_MAX, near in 1u64..1 << 33,
    ) {
        let b = (a + near) % VOLUME_SIZE_MAX;
        let place = |at| layout.locate(ByteOffset::new(at), ByteLen::new(1))
            .map(|span| (span.chunk, span.chunk_offset));
        prop_assert!(place(a).is_some());
        prop_assert!(a == b || place(a) != place(b));
    }

    /// A request that keeps to whole blocks is cut at whole blocks.
    #[test]
    fn aligned_requests_give_aligned_spans(
        layout in any_layout(), block in 0u64..1 << 30, blocks in 1u64..4096,
    ) {
        for span in cut(layout, block * BLOCK_SIZE as u64, blocks * BLOCK_SIZE as u64) {
            prop_assert!(span.chunk_offset.is_multiple_of(BLOCK_SIZE));
            prop_assert!(span.len.is_multiple_of(BLOCK_SIZE));
        }
    }
}

/// Every block of two whole stripe sets: as many distinct places as blocks, and no gap in any chunk.
#[test]
fn blocks_map_one_to_one_onto_chunks() {
    for (unit, count) in [
        (4096, 1),
        (4096, 3),
        (65536, 4),
        (1 << 20, 2),
        (CHUNK, 5),
        (8192, 7),
    ] {
        let layout = StripeLayout::new(unit, count).expect("in range");
        let size = 2 * count * CHUNK;
        let places: HashSet<_> = (0..size / BLOCK_SIZE as u64)
            .map(|block| ByteOffset::new(block * BLOCK_SIZE as u64))
            .filter_map(|at| layout.locate(at, ByteLen::from_usize(BLOCK_SIZE)))
            .inspect(|span| assert_eq!(span.len, ByteLen::from_usize(BLOCK_SIZE)))
            .map(|span| (span.chunk.get(), span.chunk_offset.get()))
            .collect();
        assert_eq!(
            places.len() as u64,
            size / BLOCK_SIZE as u64,
            "unit {unit} count {count}"
        );
        assert_eq!(layout.chunk_count(ByteLen::new(size)), 2 * count);
    }
}

#[test]
fn default_is_the_plain_sequence_of_chunks() {
    let layout = StripeLayout::default();
    let spans = cut(layout, CHUNK - 4096, CHUNK + 8192);
    let seen: Vec<_> = spans
        .iter()
        .map(|s| (s.chunk.get(), s.chunk_offset.get(), s.len.get()))
        .collect();
    assert_eq!(seen, [(0, CHUNK - 4096, 4096), (1, 0, CHUNK), (2, 0, 4096)]);
}

/// A worked example, as the documentation draws it: units go round the chunks of a set.
#[test]
fn units_go_round_the_chunks_of_a_set() {
    let layout = StripeLayout::new(1 << 20, 2).expect("in range");
    let seen: Vec<_> = cut(layout, 0, 4 << 20)
        .iter()
        .map(|s| (s.chunk.get(), s.chunk_offset.get() >> 20, s.len.get() >> 20))
        .collect();
    assert_eq!(seen, [(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)]);
    let next_set = layout
        .locate(ByteOffset::new(2 * CHUNK), ByteLen::new(1))
        .expect("in range");
    assert_eq!(
        (next_set.chunk.get(), next_set.chunk_offset),
        (2, ByteOffset::ZERO)
    );
}

#[test]
fn layouts_out_of_range_are_refused_and_named() {
    for unit in [0, 1, 2048, 4097, 12288, CHUNK * 2, 1 << 40, u64::MAX] {
        let error = StripeLayout::new(unit, 1).expect_err("bad unit");
        assert_eq!(error, LayoutError::Unit(unit));
        assert!(error.to_string().contains(&unit.to_string()), "{error}");
    }
    for count in [0, 257, u64::MAX] {
        let error = StripeLayout::new(4096, count).expect_err("bad count");
        assert_eq!(error, LayoutError::Count(count));
        assert!(error.to_string().contains(&count.to_string()), "{error}");
    }
}

#[test]
fn addresses_past_the_chunk_numbers_are_refused() {
    let layout = StripeLayout::default();
    let past = ByteOffset::new((u64::from(u32::MAX) + 1) * CHUNK);
    assert_eq!(layout.locate(past, ByteLen::new(1)), None);
    assert_eq!(layout.spans(past, ByteLen::new(1)).count(), 0);
    assert_eq!(
        layout
            .spans(ByteOffset::new(u64::MAX), ByteLen::new(9))
            .count(),
        0
    );
}
