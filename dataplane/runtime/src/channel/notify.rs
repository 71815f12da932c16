//! A signal without data.
//!
//! **Place.** "Something changed, look again." **Owner.** Clones share it on one executor.
//!
//! **Invariants.** No wake-up is lost between a check and a wait: [`Notify::notified`] starts to
//! listen when it is *called*, so either of these is right:
//!
//! ```text
//! let notified = notify.notified();        // listen first,
//! if !condition() { notified.await }       // then check; or
//! while !condition() { notify.notified().await }   // no await between check and call
//! ```
//!
//! [`Notify::notify_one`] without a waiter is remembered, once. [`Notify::notify_all`] reaches every
//! `Notified` made before it and is not remembered.
//!
//! **Failure.** None; a chosen waiter that is dropped passes its signal on.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::permits::{Permits, Ticket};

#[derive(Debug)]
struct Shared {
    /// At most one permit: the remembered signal.
    permits: RefCell<Permits>,
    /// Number of `notify_all` so far.
    broadcasts: Cell<u64>,
}

impl Shared {
    fn signal_one(&self) {
        let mut permits = self.permits.borrow_mut();
        if permits.available() == 0 {
            permits.release(1);
        }
        let chosen = permits.grant();
        drop(permits);
        if let Some(waker) = chosen {
            waker.wake();
        }
    }
}

/// Wakes tasks that wait for a change.
#[derive(Debug, Clone)]
pub struct Notify {
    shared: Rc<Shared>,
}

impl Notify {
    /// No signal remembered.
    pub fn new() -> Self {
        let permits = RefCell::new(Permits::new(0));
        Self {
            shared: Rc::new(Shared {
                permits,
                broadcasts: Cell::new(0),
            }),
        }
    }

    /// Wakes the longest waiter, or the next to come.
    pub fn notify_one(&self) {
        self.shared.signal_one();
    }

    /// Wakes everyone who listens now.
    pub fn notify_all(&self) {
        self.shared.broadcasts.set(self.shared.broadcasts.get() + 1);
        let count = self.shared.permits.borrow().waiting();
        for _ in 0..count {
            let Some(waker) = self.shared.permits.borrow_mut().drain() else {
                return;
            };
            waker.wake();
        }
    }

    /// Starts to listen; await the result.
    pub fn notified(&self) -> Notified {
        let heard = self.shared.broadcasts.get();
        Notified {
            shared: Rc::clone(&self.shared),
            heard,
            ticket: None,
        }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

/// Completes at the next signal after it was made.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Notified {
    shared: Rc<Shared>,
    heard: u64,
    ticket: Option<Ticket>,
}

impl Future for Notified {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.broadcasts.get() != self.heard {
            return Poll::Ready(());
        }
        let Self { shared, ticket, .. } = &mut *self;
        shared
            .permits
            .borrow_mut()
            .poll_acquire(ticket, 1, cx)
            .map(|_never_closed| ())
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        let is_passed_on = self.shared.permits.borrow_mut().give_up(ticket);
        if is_passed_on {
            self.shared.signal_one();
        }
    }
}
