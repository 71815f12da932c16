//! Wakes the flusher.
//!
//! *Place*: raised by everything that gives the flusher work. *Owner*: the log's executor; one
//! waiter. *Invariants*: a raise is never lost: it stays until [`Signal::poll`] takes it.
//! *On failure*: none.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// A flag with one waiter.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Sets the flag and wakes the waiter.
    pub(crate) fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waiter) = self.waiter.take()
        {
            waiter.wake();
        }
    }

    /// Takes the flag, or waits for it.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.raised.take() {
            return Poll::Ready(());
        }
        let mut waiter = self.waiter.borrow_mut();
        if !waiter
            .as_ref()
            .is_some_and(|waiter| waiter.will_wake(cx.waker()))
        {
            *waiter = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::Signal;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn a_raise_is_taken_once() {
        let signal = Signal::default();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(signal.poll(&cx), Poll::Pending);
        signal.raise();
        signal.raise();
        assert_eq!(signal.poll(&cx), Poll::Ready(()));
        assert_eq!(signal.poll(&cx), Poll::Pending);
    }
}
