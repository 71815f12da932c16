//! A byte range and the blocks that it touches.
//!
//! *Place*: arithmetic under `aligned` and `lock`. *Owner*: none, plain values.
//! *Invariants*: a span is not empty and its end does not overflow.
//! *On failure*: what is neither is no span.

use ogee_proto::limit::BLOCK_SIZE;
use ogee_proto::unit::{ByteLen, ByteOffset};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// A range of bytes, at least one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    start: u64,
    end: u64,
}

impl Span {
    /// The span; `None` if it is empty or beyond what can be addressed, rounding included.
    pub(super) fn new(offset: ByteOffset, len: ByteLen) -> Option<Self> {
        let start = offset.get();
        let end = start.checked_add(len.get())?;
        end.checked_next_multiple_of(BLOCK)?;
        (start < end).then_some(Self { start, end })
    }

    pub(super) fn start(self) -> ByteOffset {
        ByteOffset::new(self.start)
    }

    pub(super) fn end(self) -> u64 {
        self.end
    }

    pub(super) fn len(self) -> ByteLen {
        ByteLen::new(self.end - self.start)
    }

    /// All blocks touched.
    pub(super) fn outer(self) -> Self {
        Self {
            start: self.start / BLOCK * BLOCK,
            end: self.end.next_multiple_of(BLOCK),
        }
    }

    /// The blocks covered whole, if any.
    pub(super) fn inner(self) -> Option<Self> {
        let start = self.start.next_multiple_of(BLOCK);
        let end = self.end / BLOCK * BLOCK;
        (start < end).then_some(Self { start, end })
    }

    /// Whether every block touched is covered whole.
    pub(super) fn is_aligned(self) -> bool {
        self.outer() == self
    }

    /// The blocks touched in part: none, one or two, in address order.
    pub(super) fn partial_blocks(self) -> impl Iterator<Item = Span> {
        let head = (!self.start.is_multiple_of(BLOCK)).then(|| Self::block(self.start / BLOCK));
        let tail = (!self.end.is_multiple_of(BLOCK)).then(|| Self::block(self.end / BLOCK));
        let tail = tail.filter(|tail| Some(*tail) != head);
        head.into_iter().chain(tail)
    }

    /// Whether any byte is in both.
    pub(super) fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The bytes of this span that are in `block`, which it touches.
    pub(super) fn part_in(self, block: Self) -> Self {
        let start = self.start.max(block.start);
        let end = self.end.min(block.end);
        assert!(start < end, "{self:?} does not touch {block:?}");
        Self { start, end }
    }

    /// Where `part`, which lies within, starts as counted from the start of this span.
    pub(super) fn position_of(self, part: Self) -> usize {
        assert!(
            self.start <= part.start && part.end <= self.end,
            "{part:?} is not within {self:?}"
        );
        ByteLen::new(part.start - self.start).as_usize()
    }

    fn block(index: u64) -> Self {
        Self {
            start: index * BLOCK,
            end: (index + 1) * BLOCK,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(start: u64, len: u64) -> Span {
        Span::new(ByteOffset::new(start), ByteLen::new(len)).expect("a span")
    }

    #[test]
    fn empty_and_endless_ranges_are_no_spans() {
        let new = |start, len| Span::new(ByteOffset::new(start), ByteLen::new(len));
        assert_eq!(new(5, 0), None);
        assert_eq!(new(u64::MAX, 1), None);
        assert_eq!(new(u64::MAX - 10, 5), None, "rounding up would overflow");
    }

    #[test]
    fn edges_are_named_once() {
        let partial = |start, len| span(start, len).partial_blocks().collect::<Vec<_>>();
        assert_eq!(partial(0, 8192), []);
        assert_eq!(partial(1, 10), [span(0, 4096)]);
        assert_eq!(partial(0, 10), [span(0, 4096)]);
        assert_eq!(partial(4095, 2), [span(0, 4096), span(4096, 4096)]);
        assert_eq!(partial(4096, 4097), [span(8192, 4096)]);
    }

    proptest! {
        #[test]
        fn inner_and_partial_blocks_make_up_outer(start in 0_u64..40_000, len in 1_u64..40_000) {
            let span = span(start, len);
            let inner = span.inner().map_or(0, |inner| inner.len().get());
            let partial: u64 = span.partial_blocks().map(|block| block.len().get()).sum();
            prop_assert_eq!(inner + partial, span.outer().len().get());
            prop_assert_eq!(span.is_aligned(), partial == 0);
            for block in span.partial_blocks() {
                prop_assert!(span.part_in(block).len() < block.len());
            }
        }
    }
}
