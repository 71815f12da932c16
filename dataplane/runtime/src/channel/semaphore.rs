//! A counting semaphore, for slots and for bytes.
//!
//! **Place.** Admission, pools and windows. **Owner.** Clones share it on one executor.
//!
//! **Invariants.** First come, first served, also across sizes. A permit returns on drop.
//!
//! **Failure.** Asking for more than there ever were is a bug and panics.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::permits::{Permits, Ticket};

#[derive(Debug)]
struct Shared {
    permits: RefCell<Permits>,
    total: usize,
}

impl Shared {
    fn serve(&self) {
        loop {
            // Woken outside of the borrow: a waker may run code that comes back here.
            let Some(waker) = self.permits.borrow_mut().grant() else {
                return;
            };
            waker.wake();
        }
    }

    fn release(&self, count: usize) {
        self.permits.borrow_mut().release(count);
        self.serve();
    }
}

/// A fixed number of permits.
#[derive(Debug, Clone)]
pub struct Semaphore {
    shared: Rc<Shared>,
}

impl Semaphore {
    /// A semaphore with `permits` permits.
    pub fn new(permits: usize) -> Self {
        let shared = Shared {
            permits: RefCell::new(Permits::new(permits)),
            total: permits,
        };
        Self {
            shared: Rc::new(shared),
        }
    }

    /// Takes `count` permits if they are free and nobody waits.
    ///
    /// # Panics
    /// If `count` exceeds the total.
    pub fn try_acquire(&self, count: usize) -> Option<Permit> {
        self.check(count);
        let is_taken = self.shared.permits.borrow_mut().try_acquire(count);
        is_taken.then(|| Permit {
            shared: Rc::clone(&self.shared),
            count,
        })
    }

    /// Waits for `count` permits.
    ///
    /// # Panics
    /// If `count` exceeds the total.
    pub async fn acquire(&self, count: usize) -> Permit {
        self.check(count);
        Acquire {
            shared: &self.shared,
            count,
            ticket: None,
        }
        .await
    }

    /// Permits that are free now.
    pub fn available(&self) -> usize {
        self.shared.permits.borrow().available()
    }

    /// All permits, free or not.
    pub fn total(&self) -> usize {
        self.shared.total
    }

    fn check(&self, count: usize) {
        let total = self.shared.total;
        assert!(
            count <= total,
            "{count} permits of a semaphore of {total} can never be had"
        );
    }
}

/// Permits held; they return when this is dropped.
#[derive(Debug)]
#[must_use = "permits return when dropped"]
pub struct Permit {
    shared: Rc<Shared>,
    count: usize,
}

impl Permit {
    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.release(self.count);
    }
}

struct Acquire<'a> {
    shared: &'a Rc<Shared>,
    count: usize,
    ticket: Option<Ticket>,
}

impl Future for Acquire<'_> {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let Self {
            shared,
            count,
            ticket,
        } = &mut *self;
        let outcome = shared.permits.borrow_mut().poll_acquire(ticket, *count, cx);
        outcome.map(|acquired| {
            acquired.expect("invariant: a semaphore is never closed");
            Permit {
                shared: Rc::clone(shared),
                count: *count,
            }
        })
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.permits.borrow_mut().cancel(ticket, self.count);
            // The one behind may need less, or take over what was granted here.
            self.shared.serve();
        }
    }
}
