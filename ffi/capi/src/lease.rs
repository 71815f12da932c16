//! The caller's memory while a request is on it.
//!
//! *Place*: in requests. *Owner*: the caller lends it from the call to the completion; each of these holds
//! the request's [`Reply`], whose completion is posted when the last holder is gone. So the caller gets
//! its memory back only when no frame, queue or retry refers to it any more.
//! *Invariants*: the range is valid for as long as the loan lasts: the caller's promise, in the header.
//! *On failure*: none.

use crate::request::Reply;
use ogee_runtime::Target;
use std::ptr::NonNull;
use std::rc::Rc;
use std::slice;
use std::sync::Arc;

/// What is written.
pub(crate) struct Source {
    start: *const u8,
    len: usize,
    _reply: Arc<Reply>,
}

// SAFETY: the caller's promise is about the memory, not about a thread; it is only read.
unsafe impl Send for Source {}

impl Source {
    /// # Safety
    /// `len` bytes at `start` can be read, and do not change, until the completion of `reply` is posted.
    pub(crate) const unsafe fn new(start: *const u8, len: usize, reply: Arc<Reply>) -> Self {
        Self {
            start,
            len,
            _reply: reply,
        }
    }
}

impl AsRef<[u8]> for Source {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the caller's memory, lent until the completion, which waits for `self`.
        unsafe { slice::from_raw_parts(self.start, self.len) }
    }
}

/// Where what is read goes.
pub(crate) struct Sink {
    start: *mut u8,
    len: usize,
    _reply: Arc<Reply>,
}

// SAFETY: as above; nobody else uses the memory while it is lent.
unsafe impl Send for Sink {}

impl Sink {
    /// # Safety
    /// `len` bytes at `start` can be written, and nobody else uses them, until the completion of `reply` is
    /// posted. They may hold anything, also nothing that was ever written.
    pub(crate) const unsafe fn new(start: *mut u8, len: usize, reply: Arc<Reply>) -> Self {
        Self {
            start,
            len,
            _reply: reply,
        }
    }

    /// For the client, which holds it until nobody may write there any more.
    pub(crate) fn target(self) -> Target {
        let (start, len) = (NonNull::new(self.start), self.len);
        // Without a byte it may be null.
        let start = start.unwrap_or(NonNull::dangling());
        // SAFETY: the caller's memory, lent to this request alone until the completion, which waits for `self`, the owner.
        // Whatever C has not written there is bytes all the same: it came over the border.
        unsafe { Target::new(start, len, Rc::new(self)) }
    }
}
