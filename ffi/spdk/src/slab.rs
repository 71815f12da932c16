//! Memory that drives can reach, in pieces of one size.
//!
//! *Place*: what is read into and written from. *Owner*: a slab is the thread's that took it; a piece its holder's.
//! *Invariants*: a piece is held in Rust, or is in a [`Transfer`] that the queue pair has, or is free. The memory is given
//! back behind the last piece. That drives reach it was asked of every page: SPDK gives out memory that they do not.
//! *On failure*: no piece is left, or no memory.

use crate::abi::{Segment, Table};
use crate::env::Env;
use crate::error::SpdkError;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

/// Drives address memory by pages of this size.
const PAGE: usize = 4096;

/// Memory for the drives of an environment.
#[derive(Clone)]
pub struct Slab {
    inner: Rc<SlabInner>,
}

struct SlabInner {
    base: NonNull<u8>,
    piece_len: usize,
    free: RefCell<Vec<u32>>,
    table: &'static Table,
}

/// A piece of it.
///
/// It is given away with its [`Transfer`], so nobody touches it before the completion gives it back:
///
/// ```compile_fail
/// # fn f(queue: &ogee_spdk::QueuePair, command: ogee_spdk::Command, transfer: ogee_spdk::Transfer) {
/// let _ = queue.submit(command, Some(transfer), 0);
/// let _length = transfer.len();
/// # }
/// ```
pub struct Piece {
    slab: Rc<SlabInner>,
    index: u32,
}

impl Slab {
    /// `count` pieces of `piece_len` bytes, zeroed.
    ///
    /// # Errors
    /// [`SpdkError::Memory`], [`SpdkError::Unreachable`].
    ///
    /// # Panics
    /// When `piece_len` or `count` is 0, or `piece_len` is not whole pages.
    pub fn take(env: Env, piece_len: usize, count: u32) -> Result<Self, SpdkError> {
        assert!(
            piece_len > 0 && piece_len.is_multiple_of(PAGE) && count > 0,
            "pieces are whole pages"
        );
        let bytes = piece_len
            .checked_mul(count as usize)
            .ok_or(SpdkError::Memory { bytes: usize::MAX })?;
        let table = env.table;
        // SAFETY: takes numbers only.
        let base = unsafe { (table.memory_take)(bytes, PAGE) };
        let base = NonNull::new(base.cast::<u8>()).ok_or(SpdkError::Memory { bytes })?;
        let inner = SlabInner {
            base,
            piece_len,
            free: RefCell::new((0..count).rev().collect()),
            table,
        };
        match inner.count_unreachable(bytes) {
            0 => Ok(Self {
                inner: Rc::new(inner),
            }),
            missing => Err(SpdkError::Unreachable { bytes, missing }),
        }
    }

    /// A piece, if one is free; what it held before is still in it.
    #[must_use]
    pub fn piece(&self) -> Option<Piece> {
        let index = self.inner.free.borrow_mut().pop()?;
        Some(Piece {
            slab: Rc::clone(&self.inner),
            index,
        })
    }

    /// Pieces that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.inner.free.borrow().len()
    }

    /// Length of each.
    #[must_use]
    pub fn piece_len(&self) -> usize {
        self.inner.piece_len
    }
}

impl SlabInner {
    /// Of `bytes` those in pages that drives do not reach whole.
    fn count_unreachable(&self, bytes: usize) -> usize {
        let is_reached = |offset: &usize| {
            // SAFETY: `offset` is below `bytes`, within the allocation.
            let page = unsafe { self.base.add(*offset) };
            // SAFETY: the page is memory of the table's own, held until `self` drops.
            let reach = unsafe { (self.table.memory_reach)(page.as_ptr().cast(), PAGE) };
            reach >= PAGE
        };
        (0..bytes)
            .step_by(PAGE)
            .filter(|at| !is_reached(at))
            .count()
            * PAGE
    }
}

impl Drop for SlabInner {
    fn drop(&mut self) {
        // SAFETY: taken from this table, and no piece is left: queue pairs hold those that drives have.
        unsafe { (self.table.memory_give)(self.base.as_ptr().cast()) };
    }
}

impl Piece {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: the index is below the count, so this is within the allocation.
        unsafe {
            self.slab
                .base
                .add(self.index as usize * self.slab.piece_len)
        }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: initialised memory of the slab, which lives as long as the piece; only its holder reaches this part of
        // it, and no drive does.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.slab.piece_len) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the piece is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.slab.piece_len) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.slab.free.borrow_mut().push(self.index);
    }
}

/// The memory of one command: pieces, of which the first `len` bytes count. Its lists are used again with it.
#[derive(Default)]
pub struct Transfer {
    pieces: Vec<Piece>,
    segments: Vec<Segment>,
    len: usize,
}

impl Transfer {
    /// For commands of at most `pieces_max` pieces.
    #[must_use]
    pub fn with_capacity(pieces_max: usize) -> Self {
        Self {
            pieces: Vec::with_capacity(pieces_max),
            segments: Vec::with_capacity(pieces_max),
            len: 0,
        }
    }

    /// Takes pieces for `len` bytes; `false`, and none, if there are not enough.
    ///
    /// # Panics
    /// When it has some already.
    pub fn fill(&mut self, slab: &Slab, len: usize) -> bool {
        assert!(self.pieces.is_empty(), "a transfer is filled once");
        let count = len.div_ceil(slab.piece_len());
        if slab.free() < count {
            return false;
        }
        self.len = len;
        self.pieces.extend((0..count).map_while(|_| slab.piece()));
        let mut rest = len;
        for piece in &self.pieces {
            let length = rest.min(piece.len());
            rest -= length;
            let address = piece.start().as_ptr().cast();
            self.segments.push(Segment {
                address,
                length: length as u64,
            });
        }
        true
    }

    /// Gives its pieces back.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.pieces.clear();
        self.len = 0;
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `data` in.
    ///
    /// # Panics
    /// When it has another length.
    pub fn write(&mut self, data: &[u8]) {
        self.write_gathered(std::iter::once(data));
    }

    /// Copies in what lies in several places, one behind the other.
    ///
    /// # Panics
    /// When it has another length in all.
    pub fn write_gathered<'a>(&mut self, data: impl Iterator<Item = &'a [u8]>) {
        let mut done = 0;
        for mut part in data {
            while !part.is_empty() {
                assert!(done < self.len, "a transfer is filled whole");
                let length = self.pieces[0].len();
                let (piece, into) = (&mut self.pieces[done / length], done % length);
                let (now, later) = part.split_at(part.len().min(length - into));
                piece[into..into + now.len()].copy_from_slice(now);
                done += now.len();
                part = later;
            }
        }
        assert_eq!(done, self.len, "a transfer is filled whole");
    }

    /// Fills it with zeros.
    pub fn zero(&mut self) {
        for piece in &mut self.pieces {
            piece.fill(0);
        }
    }

    /// Its bytes, piece by piece.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.len;
        self.pieces.iter().map(move |piece| {
            let length = rest.min(piece.len());
            rest -= length;
            &piece[..length]
        })
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}
