//! Memory for transfers between devices and network adapters, in pieces of a few sizes.
//!
//! **Place.** Under what files read into, and buffers that are about to be sent. An RDMA port asks for it when it opens, and
//! registers it once; without such a port there is none, and buffers are the engine's as ever. **Owner.** The thread's, while
//! a [`Provided`] lives; then of the pieces that are out, and of what is registered of it.
//!
//! **Invariants.** A piece begins at a page, is one buffer's alone, and comes back with it. **Failure.** When no piece is
//! left that is long enough, the buffer is the engine's, which is counted: what is sent of it is copied first.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use crate::area::{self, Announced};
use crate::limit::{TRANSFER_ALIGNMENT, TRANSFER_PIECES, TRANSFER_SHARES};

thread_local! {
    static SLAB: RefCell<Weak<Held>> = const { RefCell::new(Weak::new()) };
    static ELSEWHERE: Cell<u64> = const { Cell::new(0) };
}

/// This thread's memory for transfers is there as long as one of these lives.
#[derive(Clone)]
pub struct Provided {
    _held: Rc<Held>,
}

struct Held {
    slab: Rc<Slab>,
    _announced: Announced,
}

/// Memory in pieces.
struct Slab {
    base: NonNull<u8>,
    layout: Layout,
    classes: [Class; TRANSFER_PIECES.len()],
}

/// Pieces of one size.
struct Class {
    /// Of the first one.
    at: usize,
    free: RefCell<Vec<u32>>,
}

/// A piece.
pub(crate) struct Block {
    slab: Rc<Slab>,
    class: usize,
    index: u32,
    len: usize,
}

/// Makes sure that this thread has memory for transfers: about `bytes`, unless it has some already.
#[must_use]
pub fn provide(bytes: usize) -> Provided {
    SLAB.with_borrow_mut(|known| {
        let held = known.upgrade().unwrap_or_else(|| {
            let held = Rc::new(Held::new(bytes));
            *known = Rc::downgrade(&held);
            held
        });
        Provided { _held: held }
    })
}

/// Bytes that [`provide`] takes for so many.
#[must_use]
pub fn locked_bytes(bytes: usize) -> usize {
    counts(bytes)
        .zip(TRANSFER_PIECES)
        .map(|(count, len)| count * len)
        .sum()
}

/// Buffers of this thread that found no piece although there is such memory.
#[must_use]
pub fn elsewhere() -> u64 {
    ELSEWHERE.get()
}

/// A piece of `len` bytes or more.
pub(crate) fn take(len: usize) -> Option<Block> {
    if len == 0 {
        return None;
    }
    // At the end of the thread there is none.
    let held = SLAB.try_with(|slab| slab.borrow().upgrade()).ok()??;
    let block = held.slab.take(len);
    if block.is_none() {
        ELSEWHERE.set(ELSEWHERE.get() + 1);
    }
    block
}

/// How many pieces of each size.
fn counts(bytes: usize) -> impl Iterator<Item = usize> {
    let shares = TRANSFER_SHARES.iter().zip(TRANSFER_PIECES);
    shares.map(move |(share, len)| (bytes / 8 * share / len).max(1))
}

impl Held {
    fn new(bytes: usize) -> Self {
        let slab = Rc::new(Slab::new(bytes));
        let (start, len) = (slab.base, slab.layout.size());
        let owner = Rc::clone(&slab);
        // SAFETY: the slab frees it when it is dropped, behind its owner's clones.
        let announced = unsafe { area::announce(start, len, "memory for transfers", owner) };
        Self {
            slab,
            _announced: announced,
        }
    }
}

impl Slab {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(locked_bytes(bytes), TRANSFER_ALIGNMENT)
            .expect("invariant: bounded by configuration");
        // SAFETY: there is at least one piece, so the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else {
            handle_alloc_error(layout)
        };
        let (mut at, mut counts) = (0, counts(bytes));
        let classes = TRANSFER_PIECES.map(|len| {
            let count = counts.next().unwrap_or(0);
            let class = Class {
                at,
                free: RefCell::new((0..u32::try_from(count).unwrap_or(0)).rev().collect()),
            };
            at += count * len;
            class
        });
        Self {
            base,
            layout,
            classes,
        }
    }

    /// Of the shortest that fit, or the next longer ones: a few long ones are not to be eaten up by short buffers.
    fn take(self: &Rc<Self>, len: usize) -> Option<Block> {
        let shortest = TRANSFER_PIECES.iter().position(|piece| *piece >= len)?;
        let fitting = self.classes.iter().enumerate().skip(shortest).take(2);
        let mut found = fitting.filter_map(|(class, pieces)| {
            let index = pieces.free.borrow_mut().pop()?;
            Some(Block {
                slab: Rc::clone(self),
                class,
                index,
                len,
            })
        });
        found.next()
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; blocks, and whoever knows it as an area, hold the slab.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

impl Block {
    fn start(&self) -> NonNull<u8> {
        let first = self.slab.classes[self.class].at;
        let at = first + self.index as usize * TRANSFER_PIECES[self.class];
        // SAFETY: an index of this class, so within the allocation.
        unsafe { self.slab.base.add(at) }
    }

    /// Cuts it to `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: initialised memory of the slab, of at least this length, which only this block reaches.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the block is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let class = &self.slab.classes[self.class];
        class.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::{elsewhere, locked_bytes, provide, take};
    use crate::area;
    use crate::limit::{BUFFER_ALIGNMENT, TRANSFER_PIECES};

    const MIB: usize = 1 << 20;

    #[test]
    fn without_a_port_there_is_none_and_nothing_is_counted() {
        assert!(take(4096).is_none() && area::all().is_empty());
        assert_eq!(elsewhere(), 0);
    }

    #[test]
    fn pieces_are_announced_apart_and_come_back() {
        let provided = provide(16 * MIB);
        // A second one changes nothing.
        let again = provide(64 * MIB);
        assert_eq!(area::all().len(), 1);
        assert_eq!(area::all()[0].len(), locked_bytes(16 * MIB));
        assert_eq!(locked_bytes(16 * MIB), 16 * MIB);
        for _round in 0..3 {
            let mut blocks = Vec::new();
            for (number, len) in [1, 4096, 4097, 100_000, MIB]
                .iter()
                .cycle()
                .take(35)
                .enumerate()
            {
                let mut block = take(*len).expect("a piece is left");
                block
                    .as_mut_slice()
                    .fill(u8::try_from(number).expect("few"));
                blocks.push(block);
            }
            for (number, block) in blocks.iter().enumerate() {
                let bytes = block.as_slice();
                assert!(bytes.iter().all(|byte| usize::from(*byte) == number));
                assert!(bytes.as_ptr().addr().is_multiple_of(BUFFER_ALIGNMENT));
                assert!(area::find(bytes).is_some());
            }
        }
        drop(provided);
        assert!(take(4096).is_some());
        drop(again);
        assert!(take(4096).is_none() && area::all().is_empty());
    }

    #[test]
    fn what_finds_no_piece_is_counted() {
        let _provided = provide(8 * MIB);
        let longest = TRANSFER_PIECES[TRANSFER_PIECES.len() - 1];
        let before = elsewhere();
        assert!(take(longest + 1).is_none());
        let all: Vec<_> = std::iter::from_fn(|| take(longest)).collect();
        assert_eq!((all.len(), elsewhere() - before), (4, 2));
        // Short ones take a few of the longer ones, not all that there are.
        let short: Vec<_> = std::iter::from_fn(|| take(4096)).collect();
        assert_eq!(short.len(), 256 + 64);
        assert!(take(100_000).is_some());
        drop((all, short));
        assert!(take(longest).is_some());
    }

    #[test]
    fn a_block_outlives_what_provides_it() {
        let provided = provide(8 * MIB);
        let mut block = take(4096).expect("a piece");
        drop(provided);
        block.as_mut_slice().fill(7);
        block.truncate(100);
        assert_eq!(block.as_slice(), [7; 100]);
    }
}
