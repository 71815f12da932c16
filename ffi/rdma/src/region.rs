//! Memory that somebody else has, registered as it lies.
//!
//! *Place*: what is sent from where a device or a user has put it. *Owner*: the memory is its owner's, kept here until the
//! hardware has let go of it; parts of it are with the hardware, or lent to a peer, as pieces of a slab are.
//! *Invariants*: it is unregistered behind the last part, and its owner let go of behind that. Nothing here looks into the
//! memory: hardware reads it, and who wants the bytes to stay as they are keeps them so with each part.
//! *On failure*: the memory cannot be locked, or the device has no more regions; nothing is kept then.

use crate::domain::{Domain, DomainInner};
use crate::error::RdmaError;
use crate::slab::Registration;
use rdma_sys::ibv_mr;
use std::any::Any;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::rc::Rc;

/// Memory that somebody else has, registered as it lies.
#[derive(Clone)]
pub struct Region {
    inner: Rc<RegionInner>,
}

struct RegionInner {
    start: NonNull<u8>,
    len: usize,
    registration: Registration,
    /// Holds the memory; lost if the hardware does not let go of it.
    owner: ManuallyDrop<Box<dyn Any>>,
}

/// A part of it, to be sent or read by a peer, or to be written by one.
pub struct Part {
    region: Region,
    start: NonNull<u8>,
    // Drivers use the upper bits of lengths for other things: see `PIECE_MAX`.
    len: u32,
    /// Nobody else touches it.
    is_target: bool,
    /// Keeps the bytes as they are.
    _keeper: Box<dyn Any>,
}

impl Region {
    /// Registers `len` bytes at `start`.
    ///
    /// # Errors
    /// [`RdmaError::Call`] when they cannot be locked.
    ///
    /// # Panics
    /// When `len` is 0.
    ///
    /// # Safety
    /// The memory is mapped, and stays so until `owner` is dropped.
    pub unsafe fn register(
        domain: &Domain,
        start: NonNull<u8>,
        len: usize,
        owner: Box<dyn Any>,
    ) -> Result<Self, RdmaError> {
        assert!(len > 0, "nothing cannot be registered");
        // SAFETY: the caller's promise; `owner` is kept behind the registration.
        let registration = unsafe { Registration::new(&domain.inner, start, len)? };
        let inner = RegionInner {
            start,
            len,
            registration,
            owner: ManuallyDrop::new(owner),
        };
        Ok(Self {
            inner: Rc::new(inner),
        })
    }

    /// These bytes, if they all lie within it. `keeper` is dropped when neither hardware nor peer has them any more: who
    /// wants them to be sent as they are now keeps them so.
    #[must_use]
    pub fn part(&self, bytes: &[u8], keeper: Box<dyn Any>) -> Option<Part> {
        self.at(NonNull::from_ref(bytes).cast(), bytes.len(), keeper, false)
    }

    /// `len` bytes at `start`, if they all lie within it, for a peer to write to.
    ///
    /// # Safety
    /// Until `keeper` is dropped nobody else touches them, and they may be written to.
    #[must_use]
    pub unsafe fn target(
        &self,
        start: NonNull<u8>,
        len: usize,
        keeper: Box<dyn Any>,
    ) -> Option<Part> {
        self.at(start, len, keeper, true)
    }

    fn at(
        &self,
        start: NonNull<u8>,
        len: usize,
        keeper: Box<dyn Any>,
        is_target: bool,
    ) -> Option<Part> {
        let begin = self.inner.start.addr().get();
        let offset = start.addr().get().checked_sub(begin)?;
        let end = offset.checked_add(len)?;
        let len = u32::try_from(len).ok()?;
        (end <= self.inner.len).then(|| Part {
            region: self.clone(),
            start,
            len,
            is_target,
            _keeper: keeper,
        })
    }

    /// Its length.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Never: nothing cannot be registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }
}

impl Drop for RegionInner {
    fn drop(&mut self) {
        // SAFETY: no part is left, so neither the hardware nor a peer has one: rails and pairs hold theirs until both let go.
        if unsafe { self.registration.end() } {
            // SAFETY: not touched again: this is the end of what holds it.
            unsafe { ManuallyDrop::drop(&mut self.owner) };
        }
    }
}

impl Part {
    pub(crate) fn is_of(&self, domain: &Rc<DomainInner>) -> bool {
        self.region.inner.registration.is_of(domain)
    }

    pub(crate) fn mr(&self) -> NonNull<ibv_mr> {
        self.region.inner.registration.mr()
    }

    pub(crate) const fn is_target(&self) -> bool {
        self.is_target
    }

    /// What is in it, of one that a peer may write to, and may not any more.
    #[must_use]
    pub fn written(&self) -> Option<&[u8]> {
        let bytes = || {
            // SAFETY: within the region, which is mapped; who made it promised that nobody else touches it, and while
            // hardware or a peer may, they have the part.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len()) }
        };
        self.is_target.then(bytes)
    }

    pub(crate) fn lkey(&self) -> u32 {
        self.region.inner.registration.lkey()
    }

    /// Where it lies, for the hardware.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.start.addr().get() - self.region.inner.start.addr().get();
        write!(
            f,
            "{} bytes at {at} of a region of {}",
            self.len, self.region.inner.len
        )
    }
}
