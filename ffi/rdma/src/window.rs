//! Memory that a peer may touch, for one request.
//!
//! *Place*: what a client reads into or writes from by the server's RDMA. *Owner*: a [`Lent`] is the client's
//! until the key is void. *Invariants*: a key is for one connection, one piece and one direction; the piece
//! comes back only after hardware has voided the key, or the connection is broken for good, so a late or lying
//! peer reaches nothing. *On failure*: the piece stays away until its connection is destroyed.

use crate::domain::DomainInner;
use crate::error::RdmaError;
use crate::pair::PairInner;
use crate::remote::RemoteMemory;
use crate::slab::Source;
use rdma_sys::{ibv_access_flags, ibv_mw, ibv_mw_type};
use std::ptr::{NonNull, null_mut};
use std::rc::Rc;

/// What a peer may do with memory that it is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Overwrite it.
    Write,
}

/// A piece that a peer may touch. Get it back by [`Pair::reclaim`](crate::Pair::reclaim); dropped, it comes
/// back to its slab when the connection is destroyed.
pub struct Lent {
    pub(crate) what: Option<(Window, Source)>,
    pub(crate) remote: RemoteMemory,
    pub(crate) pair: Rc<PairInner>,
}

impl Lent {
    /// For the peer.
    #[must_use]
    pub const fn remote(&self) -> RemoteMemory {
        self.remote
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            self.pair.abandon(what);
        }
    }
}

impl Access {
    pub(crate) const fn flags(self) -> u32 {
        match self {
            Self::Read => ibv_access_flags::IBV_ACCESS_REMOTE_READ.0,
            Self::Write => ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0,
        }
    }
}

/// A memory window of type 2.
pub(crate) struct Window {
    raw: Option<NonNull<ibv_mw>>,
    /// The newest that it had.
    key: u32,
    domain: Rc<DomainInner>,
}

impl Window {
    pub(crate) fn new(domain: &Rc<DomainInner>) -> Result<Self, RdmaError> {
        let cannot = || RdmaError::Unsupported {
            device: domain.device.clone(),
            what: "make memory windows",
        };
        let (allocate, _) = domain
            .ops
            .alloc_mw
            .zip(domain.ops.dealloc_mw)
            .ok_or_else(cannot)?;
        // SAFETY: a valid domain.
        let raw = unsafe { allocate(domain.raw.as_ptr(), ibv_mw_type::IBV_MW_TYPE_2) };
        let raw = NonNull::new(raw).ok_or_else(|| RdmaError::last("ibv_alloc_mw"))?;
        // SAFETY: a valid window.
        let key = unsafe { (*raw.as_ptr()).rkey };
        Ok(Self {
            raw: Some(raw),
            key,
            domain: domain.clone(),
        })
    }

    pub(crate) fn raw(&self) -> *mut ibv_mw {
        self.raw.map_or(null_mut(), NonNull::as_ptr)
    }

    /// For the next bind: unlike the last 255 of this window.
    pub(crate) const fn next_key(&self) -> u32 {
        self.key & 0xffff_ff00 | self.key.wrapping_add(1) & 0xff
    }

    pub(crate) const fn key(&self) -> u32 {
        self.key
    }

    /// A bind under [`next_key`](Self::next_key) is on its way.
    pub(crate) const fn given(&mut self) {
        self.key = self.next_key();
    }

    /// Voids its key for good. Whether that is certain: if not, what it was of must never be used again.
    pub(crate) fn free(mut self) -> bool {
        self.release()
    }

    fn release(&mut self) -> bool {
        let Some((raw, free)) = self.raw.take().zip(self.domain.ops.dealloc_mw) else {
            return true;
        };
        // SAFETY: a valid window, taken out, so this is the last use of it.
        let returned = unsafe { free(raw.as_ptr()) };
        returned == 0
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.release();
    }
}
