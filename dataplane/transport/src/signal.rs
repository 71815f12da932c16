//! Waking one known task, without allocation.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// The waker of the one task that waits here.
#[derive(Default)]
pub(crate) struct WakerSlot(RefCell<Option<Waker>>);

impl WakerSlot {
    /// Remembers the task; a clone only when it is another one than before.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut slot = self.0.borrow_mut();
        match &mut *slot {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    /// Wakes the task, if one waits.
    pub(crate) fn wake(&self) {
        let waker = self.0.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A flag with one waiting task. Raising it twice before it is seen counts once.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waiter: WakerSlot,
}

impl Signal {
    /// Raises the flag.
    pub(crate) fn raise(&self) {
        self.raised.set(true);
        self.waiter.wake();
    }

    /// Ready once raised, and lowers it.
    pub(crate) fn poll_take(&self, cx: &Context<'_>) -> Poll<()> {
        if self.raised.take() {
            return Poll::Ready(());
        }
        self.waiter.register(cx);
        Poll::Pending
    }
}
