//! The latest value of something, for many readers.
//!
//! **Place.** States that change: leadership, maps, sizes. **Owner.** Senders and receivers share
//! the value on one executor.
//!
//! **Invariants.** Readers see the latest value; intermediate ones may be skipped, the last never.
//! A receiver starts with the value of its creation seen. [`Ref`]s must not be held across an await.
//!
//! **Failure.** [`Closed`] when all senders are gone and the last value has been seen.

use std::cell::{Cell, Ref as CellRef, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Closed;

/// Nobody watches; the value comes back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody watches")]
pub struct SendError<T>(pub T);

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError(..)")
    }
}

struct Shared<T> {
    value: RefCell<T>,
    version: Cell<u64>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
    next_receiver: Cell<u64>,
    /// At most one per receiver, by its number.
    waiting: RefCell<Vec<(u64, Waker)>>,
}

impl<T> Shared<T> {
    fn publish(&self) {
        self.version.set(self.version.get() + 1);
        self.wake_all();
    }

    fn wake_all(&self) {
        loop {
            let Some((_, waker)) = self.waiting.borrow_mut().pop() else {
                return;
            };
            waker.wake();
        }
    }

    fn wait(&self, receiver: u64, waker: &Waker) {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.iter_mut().find(|(number, _)| *number == receiver) {
            Some((_, known)) => known.clone_from(waker),
            None => waiting.push((receiver, waker.clone())),
        }
    }

    fn forget(&self, receiver: u64) {
        self.waiting
            .borrow_mut()
            .retain(|(number, _)| *number != receiver);
    }
}

/// Makes a channel that holds `initial`.
pub fn channel<T>(initial: T) -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared {
        value: RefCell::new(initial),
        version: Cell::new(0),
        senders: Cell::new(1),
        receivers: Cell::new(0),
        next_receiver: Cell::new(0),
        waiting: RefCell::default(),
    });
    let receiver = Receiver::new(&shared, 0);
    (Sender { shared }, receiver)
}

/// The value, borrowed.
#[derive(Debug)]
pub struct Ref<'a, T>(CellRef<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Changes the value.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Replaces the value, if somebody watches.
    ///
    /// # Errors
    /// Returns `value`, unused, if nobody watches.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.shared.receivers.get() == 0 {
            return Err(SendError(value));
        }
        drop(self.send_replace(value));
        Ok(())
    }

    /// Replaces the value, watched or not, and returns the old one.
    pub fn send_replace(&self, value: T) -> T {
        let before = self.shared.value.replace(value);
        self.shared.publish();
        before
    }

    /// Changes the value in place; readers are told only if `modify` returns true.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let is_modified = modify(&mut self.shared.value.borrow_mut());
        if is_modified {
            self.shared.publish();
        }
        is_modified
    }

    /// The current value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.borrow())
    }

    /// A receiver that has seen the current value.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver::new(&self.shared, self.shared.version.get())
    }

    /// Number of receivers.
    pub fn receivers(&self) -> usize {
        self.shared.receivers.get()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.set(self.shared.senders.get() + 1);
        Self {
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let senders = self.shared.senders.get() - 1;
        self.shared.senders.set(senders);
        if senders == 0 {
            self.shared.wake_all();
        }
    }
}

/// Watches the value.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
    seen: u64,
    number: u64,
}

impl<T> Receiver<T> {
    fn new(shared: &Rc<Shared<T>>, seen: u64) -> Self {
        let number = shared.next_receiver.get();
        shared.next_receiver.set(number + 1);
        shared.receivers.set(shared.receivers.get() + 1);
        Self {
            shared: Rc::clone(shared),
            seen,
            number,
        }
    }

    /// Waits until the value differs from the one last seen, and marks it seen.
    ///
    /// # Errors
    /// If no sender is left to change it.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if self.has_changed() {
            self.seen = self.shared.version.get();
            return Poll::Ready(Ok(()));
        }
        if self.shared.senders.get() == 0 {
            return Poll::Ready(Err(Closed));
        }
        self.shared.wait(self.number, cx.waker());
        Poll::Pending
    }

    /// Whether there is a value not yet seen.
    pub fn has_changed(&self) -> bool {
        self.seen != self.shared.version.get()
    }

    /// The current value, without marking it seen.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.borrow())
    }

    /// The current value, marked seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.seen = self.shared.version.get();
        Ref(self.shared.value.borrow())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self::new(&self.shared, self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.set(self.shared.receivers.get() - 1);
        self.shared.forget(self.number);
    }
}
