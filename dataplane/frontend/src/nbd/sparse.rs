//! Data as stretches of bytes and of zeros.
//!
//! *Place*: between a structured read and its reply. *Owner*: one request. *Invariants*: the
//! chunks follow each other, cover the data exactly and copy nothing; a hole is at least
//! `HOLE_LEN_MIN` long, or all there is. *On failure*: none.

use crate::limit::HOLE_LEN_MIN;
use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::ByteOffset;
use ogee_runtime::Payload;

/// A stretch of a read's data.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Chunk {
    /// Where it starts in the export.
    pub(super) at: ByteOffset,
    pub(super) content: Content,
}

/// What a chunk holds.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// Bytes, in pieces.
    Data(Vec<Payload>),
    /// So many zeros.
    Hole(usize),
}

/// The data at `at` as one chunk of bytes, zeros included; none if there is no byte.
pub(super) fn whole(at: ByteOffset, pieces: Vec<Payload>) -> Vec<Chunk> {
    if pieces.iter().all(|piece| piece.is_empty()) {
        return Vec::new();
    }
    let content = Content::Data(pieces);
    vec![Chunk { at, content }]
}

/// The data at `at`, with its long stretches of zeros as holes.
pub(super) fn with_holes(at: ByteOffset, pieces: &[Payload]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut at = at;
    let mut pieces = Cutter::new(pieces);
    for run in merge_short(runs(at, pieces.pieces)) {
        let data = pieces.take(run.len);
        let content = match run.is_zero {
            true => Content::Hole(run.len),
            false => Content::Data(data),
        };
        chunks.push(Chunk { at, content });
        at = ByteOffset::new(at.get() + run.len as u64);
    }
    chunks
}

#[derive(Clone, Copy)]
struct Run {
    is_zero: bool,
    len: usize,
}

/// Zero or not, block by block: blocks of the export, so that holes are aligned.
fn runs(at: ByteOffset, pieces: &[Payload]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut left_in_block = BLOCK_SIZE - at.as_usize() % BLOCK_SIZE;
    for piece in pieces {
        let mut rest: &[u8] = piece;
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(left_in_block.min(rest.len()));
            push(&mut runs, is_zero(part), part.len());
            left_in_block -= part.len();
            if left_in_block == 0 {
                left_in_block = BLOCK_SIZE;
            }
            rest = behind;
        }
    }
    runs
}

/// Makes data of the holes that are too short to be worth a chunk.
fn merge_short(runs: Vec<Run>) -> Vec<Run> {
    let is_all_zero = matches!(runs[..], [Run { is_zero: true, .. }]);
    let mut merged = Vec::with_capacity(runs.len());
    for run in runs {
        let is_hole = run.is_zero && (run.len >= HOLE_LEN_MIN || is_all_zero);
        push(&mut merged, is_hole, run.len);
    }
    merged
}

fn push(runs: &mut Vec<Run>, is_zero: bool, len: usize) {
    match runs.last_mut() {
        Some(run) if run.is_zero == is_zero => run.len += len,
        _ => runs.push(Run { is_zero, len }),
    }
}

/// At most a block. Data usually differs in its first bytes, so this costs only what it finds.
fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];
    bytes == &ZEROS[..bytes.len()]
}

/// Takes pieces apart from the front.
struct Cutter<'a> {
    pieces: &'a [Payload],
    /// Bytes of the first piece that are taken.
    taken: usize,
}

impl<'a> Cutter<'a> {
    fn new(pieces: &'a [Payload]) -> Self {
        Self { pieces, taken: 0 }
    }

    fn take(&mut self, len: usize) -> Vec<Payload> {
        let mut parts = Vec::new();
        let mut missing = len;
        while let Some((first, behind)) = self.pieces.split_first().filter(|_| missing > 0) {
            let end = first.len().min(self.taken + missing);
            parts.push(first.slice(self.taken..end));
            missing -= end - self.taken;
            self.taken = end;
            if end == first.len() {
                (self.pieces, self.taken) = (behind, 0);
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(chunks: &[Chunk]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for chunk in chunks {
            match &chunk.content {
                Content::Data(pieces) => pieces.iter().for_each(|p| bytes.extend_from_slice(p)),
                Content::Hole(len) => bytes.resize(bytes.len() + len, 0),
            }
        }
        bytes
    }

    fn holes(chunks: &[Chunk]) -> Vec<(u64, usize)> {
        let hole = |chunk: &Chunk| match chunk.content {
            Content::Hole(len) => Some((chunk.at.get(), len)),
            Content::Data(_) => None,
        };
        chunks.iter().filter_map(hole).collect()
    }

    #[test]
    fn long_zeros_are_holes_and_short_ones_are_data() {
        let mut data = vec![1; 64 << 10];
        data[4096..8192].fill(0);
        data[16384..16384 + HOLE_LEN_MIN].fill(0);
        let chunks = with_holes(ByteOffset::new(8192), &[data.clone().into()]);
        assert_eq!(holes(&chunks), [(8192 + 16384, HOLE_LEN_MIN)]);
        assert_eq!(bytes(&chunks), data);
    }

    #[test]
    fn nothing_but_zeros_is_a_hole_however_short() {
        let chunks = with_holes(ByteOffset::new(3), &[vec![0; 10].into()]);
        assert_eq!(holes(&chunks), [(3, 10)]);
        assert!(with_holes(ByteOffset::new(3), &[]).is_empty());
    }

    proptest! {
        #[test]
        fn chunks_cover_the_data(
            at in 0_u64..10_000,
            parts in prop::collection::vec((any::<bool>(), 1_usize..40_000), 0..8),
            cuts in prop::collection::vec(1_usize..50_000, 1..8),
        ) {
            let data: Vec<u8> = parts
                .iter()
                .flat_map(|(is_zero, len)| vec![u8::from(!is_zero); *len])
                .collect();
            let mut rest = Payload::from(data.clone());
            let mut pieces = Vec::new();
            for cut in cuts {
                let cut = cut.min(rest.len());
                pieces.push(rest.slice(..cut));
                rest = rest.slice(cut..);
            }
            pieces.push(rest);
            for chunks in [with_holes(ByteOffset::new(at), &pieces), whole(ByteOffset::new(at), pieces.clone())] {
                prop_assert_eq!(&bytes(&chunks), &data);
                let mut next = at;
                for chunk in &chunks {
                    prop_assert_eq!(chunk.at.get(), next);
                    next += match &chunk.content {
                        Content::Data(pieces) => pieces.iter().map(|p| p.len() as u64).sum(),
                        Content::Hole(len) => *len as u64,
                    };
                }
            }
        }
    }
}
