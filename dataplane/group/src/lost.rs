//! Blocks that no replica has as they should be.
//!
//! *Place*: told by repair, reported by the shard. *Owner*: the replica. *Invariants*: a block counts only after every
//! other replica has answered, twice in a row, and none had it: one that is silent, or a moment ahead, may have it yet. The
//! list is bounded by the places that wait for repair, and a place leaves it when it is whole: repaired, written anew, or
//! given back. *On failure*: what finds no room is found again.

use crate::group::Group;
use crate::limit::REPAIR_ROUNDS_LOST;
use crate::repair::Span;
use ogee_proto::id::ChunkKey;
use ogee_proto::unit::BlockIndex;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Blocks of a chunk that are damaged on this replica, and that no other one has either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LostBlocks {
    /// The chunk.
    pub key: ChunkKey,
    /// The first of them.
    pub first: BlockIndex,
    /// How many follow each other.
    pub count: u16,
}

#[derive(Default)]
pub(crate) struct Lost {
    places: RefCell<BTreeMap<Span, (u32, Vec<BlockIndex>)>>,
}

impl Lost {
    /// Every other replica was asked, and none has these.
    pub(crate) fn note(&self, span: Span, blocks: Vec<BlockIndex>) {
        let mut places = self.places.borrow_mut();
        let rounds = places.get(&span).map_or(0, |(rounds, _)| *rounds);
        places.insert(span, (rounds.saturating_add(1), blocks));
    }

    /// They are whole, or it is not certain any more.
    pub(crate) fn forget(&self, span: Span) {
        self.places.borrow_mut().remove(&span);
    }

    /// Whether it is certain that nobody has this one.
    pub(crate) fn has(&self, key: ChunkKey, block: BlockIndex) -> bool {
        let places = self.places.borrow();
        places.iter().any(|(span, (rounds, blocks))| {
            span.key == key && *rounds >= REPAIR_ROUNDS_LOST && blocks.contains(&block)
        })
    }

    fn blocks(&self) -> Vec<LostBlocks> {
        let places = self.places.borrow();
        let certain = places
            .iter()
            .filter(|(_, (rounds, _))| *rounds >= REPAIR_ROUNDS_LOST);
        let mut found: Vec<LostBlocks> = certain
            .flat_map(|(span, (_, blocks))| runs(span.key, blocks))
            .collect();
        // Spans may overlap.
        found.sort_unstable();
        found.dedup();
        found
    }
}

pub(crate) fn runs(key: ChunkKey, blocks: &[BlockIndex]) -> impl Iterator<Item = LostBlocks> {
    let follows = |a: &BlockIndex, b: &BlockIndex| a.get() + 1 == b.get();
    let runs = blocks.chunk_by(follows);
    runs.map(move |run| LostBlocks {
        key,
        first: run[0],
        count: u16::try_from(run.len()).unwrap_or(u16::MAX),
    })
}

impl Group {
    /// Blocks that no replica has as they should be, as far as this one knows.
    #[must_use]
    pub fn lost_blocks(&self) -> Vec<LostBlocks> {
        self.replica().repairs.lost.blocks()
    }
}
