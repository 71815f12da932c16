//! Which copysets carry a volume, and which of its chunks.
//!
//! Pure: the same candidates give the same choice. A map is total over the volume's chunks, and
//! a later segment never takes a chunk from an earlier one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use ogee_proto::id::CopysetId;
use ogee_proto::limit::VOLUME_COPYSETS_MAX;

use super::model::MapSegment;
use crate::limit::{CHUNKS_PER_COPYSET_TARGET, VOLUME_COPYSETS_DEFAULT};

/// Copysets that a volume of `chunks` chunks wants: no more than it has chunks, the default for
/// all usual sizes, more for huge ones. A power of two, so that a volume that grows bit by bit
/// gets few segments.
pub(super) fn wanted(chunks: u64) -> usize {
    let default = (VOLUME_COPYSETS_DEFAULT as u64).min(chunks);
    let wanted = default.max(chunks.div_ceil(CHUNKS_PER_COPYSET_TARGET));
    let wanted = usize::try_from(wanted).unwrap_or(VOLUME_COPYSETS_MAX);
    wanted.next_power_of_two().min(VOLUME_COPYSETS_MAX)
}

/// The `count` least loaded of `candidates` (copyset, chunks carried), least loaded first.
/// Equals stand in the order of their ids, rotated by `rotation`, so that volumes made one after
/// another start on different copysets.
pub(super) fn choose(
    candidates: &[(CopysetId, u64)],
    count: usize,
    rotation: u64,
) -> Vec<CopysetId> {
    let len = candidates.len() as u64;
    let turned = |at: usize| (at as u64 + len - rotation % len) % len;
    let mut order: BinaryHeap<_> = candidates
        .iter()
        .enumerate()
        .map(|(at, (id, chunks))| Reverse((*chunks, turned(at), *id)))
        .collect();
    let least = std::iter::from_fn(|| order.pop().map(|Reverse((_, _, id))| id));
    least.take(count).collect()
}

/// The copyset of `chunk`; `None` if no segment reaches it.
pub(super) fn copyset_of(segments: &[MapSegment], chunk: u32) -> Option<CopysetId> {
    let segment = segments.iter().rev().find(|s| s.first_chunk <= chunk)?;
    let into = usize::try_from(chunk - segment.first_chunk).ok()?;
    segment.copysets.get(into % segment.copysets.len()).copied()
}

/// How many of the chunks `from..to` each copyset carries.
pub(super) fn load(segments: &[MapSegment], from: u32, to: u32) -> BTreeMap<CopysetId, u64> {
    let mut load = BTreeMap::new();
    for (at, segment) in segments.iter().enumerate() {
        let end = segments
            .get(at + 1)
            .map_or(to, |next| next.first_chunk.min(to));
        let start = segment.first_chunk.max(from);
        if start >= end {
            continue;
        }
        let (start, end) = (start - segment.first_chunk, end - segment.first_chunk);
        for (position, copyset) in segment.copysets.iter().enumerate() {
            let len = segment.copysets.len() as u64;
            let before = |chunk: u32| (u64::from(chunk) + len - 1 - position as u64) / len;
            *load.entry(*copyset).or_default() += before(end) - before(start);
        }
    }
    load.retain(|_, chunks| *chunks > 0);
    load
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(raw: &[u32]) -> Vec<CopysetId> {
        raw.iter().copied().map(CopysetId::new).collect()
    }

    #[test]
    fn a_volume_wants_no_more_copysets_than_chunks() {
        assert_eq!(wanted(1), 1);
        assert_eq!(wanted(5), 8);
        assert_eq!(wanted(64), 32);
        assert_eq!(wanted(32 * 4096), 32);
        assert_eq!(wanted(32 * 4096 + 1), 64);
        assert_eq!(wanted(4 << 20), 1024);
    }

    #[test]
    fn equals_are_rotated_and_loaded_ones_come_last() {
        let candidates = [(1, 5), (2, 0), (3, 0), (4, 0)].map(|(id, n)| (CopysetId::new(id), n));
        assert_eq!(choose(&candidates, 4, 0), ids(&[2, 3, 4, 1]));
        assert_eq!(choose(&candidates, 4, 2), ids(&[3, 4, 2, 1]));
        assert_eq!(choose(&candidates, 2, 3), ids(&[4, 2]));
    }

    proptest! {
        /// The closed form agrees with counting chunk by chunk.
        #[test]
        fn load_counts_chunks(
            first in 1u32..40, lens in (1usize..6, 1usize..9), from in 0u32..60, more in 0u32..60,
        ) {
            let segments = [
                MapSegment { first_chunk: 0, copysets: ids(&[1, 2, 3, 4, 5, 6][..lens.0]) },
                MapSegment { first_chunk: first, copysets: ids(&[4, 5, 6, 7, 8, 9, 10, 11, 12][..lens.1]) },
            ];
            let mut counted = BTreeMap::new();
            for chunk in from..from + more {
                *counted.entry(copyset_of(&segments, chunk).expect("total")).or_insert(0u64) += 1;
            }
            prop_assert_eq!(load(&segments, from, from + more), counted);
        }
    }
}
