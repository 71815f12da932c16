//! Registered memory, in pieces of one size.
//!
//! *Place*: what is sent, received, and moved by the peer. *Owner*: a slab belongs to its domain's thread; each
//! piece to whoever holds it: one at a time. *Invariants*: a piece is either held in Rust, or with the hardware
//! (in a ledger, unreachable), or lent to a peer ([`Lent`](crate::Lent)), or free; one that nobody may write to any more
//! ([`Shared`]) may be several of the first three. The memory is unregistered and freed behind the last of them. *On failure*: no piece is left, or the memory cannot be locked.

use crate::domain::{Domain, DomainInner};
use crate::error::RdmaError;
use crate::region::Part;
use rdma_sys::{ibv_access_flags, ibv_mr};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

/// Pieces of whole pages begin where pages do: what is received can go to a device as it lies.
pub(crate) const PAGE: usize = 4096;
/// Shorter ones share a page; none shares a cache line.
const LINE: usize = 64;

/// Drivers use the bits of a length above this for other things.
const PIECE_MAX: usize = 1 << 30;

/// Registered memory, in pieces of one size.
#[derive(Clone)]
pub struct Slab {
    inner: Rc<SlabInner>,
}

pub(crate) struct SlabInner {
    base: NonNull<u8>,
    layout: Layout,
    piece_len: usize,
    free: RefCell<Vec<u32>>,
    registration: Registration,
}

/// Memory that a device may reach.
pub(crate) struct Registration {
    mr: NonNull<ibv_mr>,
    lkey: u32,
    domain: Rc<DomainInner>,
}

impl Registration {
    /// # Safety
    /// The memory is mapped until [`Self::end`] says that the hardware has let go of it, or for ever.
    pub(crate) unsafe fn new(
        domain: &Rc<DomainInner>,
        start: NonNull<u8>,
        len: usize,
    ) -> Result<Self, RdmaError> {
        let access =
            ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0 | ibv_access_flags::IBV_ACCESS_MW_BIND.0;
        let access = i32::try_from(access).expect("invariant: small flags");
        // SAFETY: the domain is valid, and the memory the caller's promise.
        let mr = unsafe {
            (domain.api.ibv_reg_mr)(domain.raw.as_ptr(), start.as_ptr().cast(), len, access)
        };
        let mr = NonNull::new(mr).ok_or_else(|| RdmaError::last("ibv_reg_mr"))?;
        // SAFETY: a valid region.
        let lkey = unsafe { (*mr.as_ptr()).lkey };
        let domain = Rc::clone(domain);
        Ok(Self { mr, lkey, domain })
    }

    pub(crate) const fn mr(&self) -> NonNull<ibv_mr> {
        self.mr
    }

    pub(crate) const fn lkey(&self) -> u32 {
        self.lkey
    }

    pub(crate) fn is_of(&self, domain: &Rc<DomainInner>) -> bool {
        Rc::ptr_eq(&self.domain, domain)
    }

    /// Whether the memory may be freed. If not, the hardware may still reach it: better lost than freed.
    ///
    /// # Safety
    /// Nothing of it is with the hardware or a peer, and it is not used again.
    pub(crate) unsafe fn end(&self) -> bool {
        // SAFETY: a valid region; the rest is the caller's promise.
        let returned = unsafe { (self.domain.api.ibv_dereg_mr)(self.mr.as_ptr()) };
        returned == 0
    }
}

/// A piece of registered memory.
///
/// It is given away when it is posted, so nobody touches it before its completion gives it back:
///
/// ```compile_fail
/// # fn f(pair: &ogee_rdma::Pair, piece: ogee_rdma::Piece) {
/// let _ = pair.send(piece, 16, 0);
/// let _first = piece[0];
/// # }
/// ```
pub struct Piece {
    pub(crate) slab: Rc<SlabInner>,
    index: u32,
}

impl Slab {
    /// `count` pieces of `piece_len` bytes, a multiple of 64, zeroed. The first begins at a page.
    ///
    /// # Errors
    /// [`RdmaError::TooMuch`] for lengths that cannot be, [`RdmaError::Call`] when the memory cannot be locked.
    ///
    /// # Panics
    /// When `piece_len` or `count` is 0, or `piece_len` is no multiple of 64.
    pub fn register(domain: &Domain, piece_len: usize, count: u32) -> Result<Self, RdmaError> {
        assert!(
            piece_len > 0 && piece_len.is_multiple_of(LINE) && count > 0,
            "pieces are whole cache lines"
        );
        let layout = piece_len
            .checked_mul(count as usize)
            .and_then(|len| Layout::from_size_align(len, PAGE).ok())
            .filter(|_| piece_len <= PIECE_MAX);
        let Some(layout) = layout else {
            return Err(RdmaError::TooMuch {
                what: "the length of registered memory",
                value: piece_len,
                limit: PIECE_MAX,
            });
        };
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else {
            let source = std::io::Error::from_raw_os_error(libc::ENOMEM);
            return Err(RdmaError::call("allocate", source));
        };
        // SAFETY: allocated above, and freed behind its registration.
        let registered = unsafe { Registration::new(&domain.inner, base, layout.size()) };
        let registration = registered.inspect_err(|_| {
            // SAFETY: allocated above with this layout, and nobody else has it.
            unsafe { dealloc(base.as_ptr(), layout) };
        })?;
        Ok(Self {
            inner: Rc::new(SlabInner {
                base,
                layout,
                piece_len,
                free: RefCell::new((0..count).rev().collect()),
                registration,
            }),
        })
    }

    /// A piece, if one is free; what it held before is still in it.
    #[must_use]
    pub fn take(&self) -> Option<Piece> {
        let index = self.inner.free.borrow_mut().pop()?;
        Some(Piece {
            slab: self.inner.clone(),
            index,
        })
    }

    /// Pieces that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.inner.free.borrow().len()
    }
}

impl SlabInner {
    pub(crate) fn is_of(&self, domain: &Rc<DomainInner>) -> bool {
        self.registration.is_of(domain)
    }
}

impl Drop for SlabInner {
    fn drop(&mut self) {
        // SAFETY: no piece is left, so the hardware has none: rails and pairs hold theirs until it lets go.
        if unsafe { self.registration.end() } {
            // SAFETY: allocated with this layout; no piece is left.
            unsafe { dealloc(self.base.as_ptr(), self.layout) };
        }
    }
}

impl Piece {
    /// Where it lies, for the hardware.
    pub(crate) fn address(&self) -> u64 {
        self.start().as_ptr().expose_provenance() as u64
    }

    pub(crate) fn lkey(&self) -> u32 {
        self.slab.registration.lkey()
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: the index is below `count`, so this is within the allocation.
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
        // SAFETY: initialised memory of the slab, which lives as long as the piece; only the holder of the
        // piece reaches this part of it, and no hardware does.
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

/// A piece, or a part of one, that many may look at and nobody writes to: hardware may send it meanwhile.
#[derive(Clone)]
pub struct Shared {
    piece: Rc<Piece>,
    // Pieces are shorter than 4 GiB.
    start: u32,
    len: u32,
}

impl Shared {
    /// From here on nobody writes to it.
    #[must_use]
    pub fn new(piece: Piece) -> Self {
        Self {
            start: 0,
            len: short(piece.len()),
            piece: Rc::new(piece),
        }
    }

    /// A part of it.
    ///
    /// # Panics
    /// When it has not so much.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "a part of it"
        );
        Self {
            piece: Rc::clone(&self.piece),
            start: self.start + short(range.start),
            len: short(range.len()),
        }
    }
}

fn short(len: usize) -> u32 {
    u32::try_from(len).expect("invariant: pieces are shorter than 4 GiB")
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.start as usize;
        &self.piece[start..start + self.len as usize]
    }
}

/// What hardware sends, or a peer reads.
pub enum Source {
    /// Ours alone.
    Own(Piece),
    /// Others look at it, too.
    Shared(Shared),
    /// Somebody else's.
    Part(Part),
}

impl Source {
    pub(crate) fn is_of(&self, domain: &Rc<DomainInner>) -> bool {
        match self {
            Self::Own(piece) => piece.slab.is_of(domain),
            Self::Shared(shared) => shared.piece.slab.is_of(domain),
            Self::Part(part) => part.is_of(domain),
        }
    }

    pub(crate) fn mr(&self) -> NonNull<ibv_mr> {
        match self {
            Self::Own(piece) => piece.slab.registration.mr(),
            Self::Shared(shared) => shared.piece.slab.registration.mr(),
            Self::Part(part) => part.mr(),
        }
    }

    pub(crate) fn lkey(&self) -> u32 {
        match self {
            Self::Own(piece) => piece.lkey(),
            Self::Shared(shared) => shared.piece.lkey(),
            Self::Part(part) => part.lkey(),
        }
    }

    /// Where it lies, for the hardware.
    pub(crate) fn address(&self) -> u64 {
        match self {
            Self::Own(piece) => piece.address(),
            Self::Shared(shared) => shared.piece.address() + u64::from(shared.start),
            Self::Part(part) => part.address(),
        }
    }

    /// Whether nobody else looks at it.
    pub(crate) const fn may_change(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Shared(_) => false,
            Self::Part(part) => part.is_target(),
        }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Own(piece) => piece.len(),
            Self::Shared(shared) => shared.len(),
            Self::Part(part) => part.len(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Piece> for Source {
    fn from(piece: Piece) -> Self {
        Self::Own(piece)
    }
}

impl From<Shared> for Source {
    fn from(shared: Shared) -> Self {
        Self::Shared(shared)
    }
}

impl From<Part> for Source {
    fn from(part: Part) -> Self {
        Self::Part(part)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(piece) => piece.fmt(f),
            Self::Part(part) => part.fmt(f),
            Self::Shared(shared) => write!(f, "{} bytes of {:?}", shared.len, shared.piece),
        }
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "piece {} of {} bytes", self.index, self.slab.piece_len)
    }
}
