//! A log page on its way.
//!
//! *Place*: of the one who owns a controller's admin queue. *Owner*: that one, and the driver from when it was asked for
//! until it is there. *Invariants*: the page and what it points to stay at one place until the driver has said that it is
//! there. One that never says so keeps it: it is lost rather than freed. *On failure*: the controller's words.

use crate::abi::{PAGE_LENGTH, Page};
use crate::error::Status;
use libc::c_void;
use std::cell::{Cell, UnsafeCell};
use std::mem::{self, ManuallyDrop};
use std::ptr;

/// What a controller says of its health: log page 02h (NVM Express Base Specification 2.0, 5.16.1.3), as it came.
pub type HealthPage = [u8; PAGE_LENGTH];

/// Room for one page.
pub(crate) struct PageSlot {
    inner: ManuallyDrop<Box<Inner>>,
}

struct Inner {
    page: UnsafeCell<Page>,
    state: Cell<State>,
}

#[derive(Clone, Copy)]
enum State {
    Free,
    /// The driver has it.
    Asked,
    There(u16),
}

impl PageSlot {
    pub(crate) fn new() -> Self {
        let page = Page {
            bytes: [0; PAGE_LENGTH],
            done: None,
            context: ptr::null_mut(),
        };
        let inner = Inner {
            page: UnsafeCell::new(page),
            state: Cell::new(State::Free),
        };
        Self {
            inner: ManuallyDrop::new(Box::new(inner)),
        }
    }

    /// For the driver; `None` while it has it. What was there and nobody took is gone.
    pub(crate) fn arm(&self) -> Option<*mut Page> {
        let inner: &Inner = &self.inner;
        if matches!(inner.state.get(), State::Asked) {
            return None;
        }
        let empty = Page {
            bytes: [0; PAGE_LENGTH],
            done: Some(done),
            context: ptr::from_ref(inner).cast_mut().cast(),
        };
        inner.state.set(State::Asked);
        let page = inner.page.get();
        // SAFETY: the driver does not have it, and nothing else refers to it.
        unsafe { page.write(empty) };
        Some(page)
    }

    /// The driver did not take it after all.
    pub(crate) fn disarm(&self) {
        self.inner.state.set(State::Free);
    }

    pub(crate) fn take(&self) -> Option<Result<HealthPage, Status>> {
        let State::There(status) = self.inner.state.get() else {
            return None;
        };
        self.inner.state.set(State::Free);
        if let Some(status) = Status::of(status) {
            return Some(Err(status));
        }
        // SAFETY: the driver has said that it is there, so it does not write to it any more.
        let page = unsafe { &*self.inner.page.get() };
        Some(Ok(page.bytes))
    }
}

/// What C calls when the page is there: from within a poll, a reset or the controller's end, in their thread.
unsafe extern "C" fn done(context: *mut c_void, status: u16) {
    // SAFETY: what the page was armed with. It lives until it was told to be there, or for ever.
    let inner: &Inner = unsafe { &*context.cast::<Inner>() };
    inner.state.set(State::There(status));
}

impl Drop for PageSlot {
    fn drop(&mut self) {
        // SAFETY: taken once, here; `self` is not used after.
        let inner = unsafe { ManuallyDrop::take(&mut self.inner) };
        if matches!(inner.state.get(), State::Asked) {
            // The controller's end tells it, if anything does, and that comes later.
            mem::forget(inner);
        }
    }
}
