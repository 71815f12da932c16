//! A bounded queue from many senders to one receiver.
//!
//! **Place.** Between the tasks of a shard. **Owner.** One receiver; senders are cloned.
//!
//! **Invariants.** At most `capacity` values wait; full is a value ([`TrySendError::Full`]) or a
//! wait, first come, first served. The receiver gets all values that were accepted, then the end.
//!
//! **Failure.** Sending to a receiver that is gone returns the value.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;

use super::permits::{Permits, Ticket};

/// Not accepted by [`Sender::try_send`]; the value comes back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// Try again later, or wait.
    #[error("the channel is full")]
    Full(T),
    /// The receiver is gone.
    #[error("the channel is closed")]
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

/// The receiver is gone; the value comes back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel is closed")]
pub struct SendError<T>(pub T);

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SendError(..)")
    }
}

/// Nothing to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TryRecvError {
    /// Nothing now.
    #[error("the channel is empty")]
    Empty,
    /// Nothing ever: all senders are gone.
    #[error("the channel is closed")]
    Disconnected,
}

struct Shared<T> {
    queue: RefCell<VecDeque<T>>,
    /// Free places of the queue.
    places: RefCell<Permits>,
    senders: Cell<usize>,
    receiver: Cell<Option<Waker>>,
}

impl<T> Shared<T> {
    fn push(&self, value: T) {
        self.queue.borrow_mut().push_back(value);
        self.wake_receiver();
    }

    fn wake_receiver(&self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    fn pop(&self) -> Option<T> {
        let value = self.queue.borrow_mut().pop_front()?;
        self.places.borrow_mut().release(1);
        self.serve();
        Some(value)
    }

    fn serve(&self) {
        loop {
            let Some(waker) = self.places.borrow_mut().grant() else {
                return;
            };
            waker.wake();
        }
    }

    fn is_closed(&self) -> bool {
        self.places.borrow().is_closed()
    }
}

/// Makes a channel with room for `capacity` values.
///
/// # Panics
/// If `capacity` is zero.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel needs room for one value");
    let shared = Rc::new(Shared {
        queue: RefCell::new(VecDeque::new()),
        places: RefCell::new(Permits::new(capacity)),
        senders: Cell::new(1),
        receiver: Cell::new(None),
    });
    (
        Sender {
            shared: Rc::clone(&shared),
        },
        Receiver { shared },
    )
}

/// The sending side.
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Sends now or not at all.
    ///
    /// # Errors
    /// Returns the value if the channel is full (or others wait for room) or closed.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        if self.is_closed() {
            return Err(TrySendError::Closed(value));
        }
        if !self.shared.places.borrow_mut().try_acquire(1) {
            return Err(TrySendError::Full(value));
        }
        self.shared.push(value);
        Ok(())
    }

    /// Sends, waiting for room.
    ///
    /// # Errors
    /// Returns the value if the receiver is gone.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        let place = Place {
            shared: &self.shared,
            ticket: None,
        };
        if place.await.is_err() {
            return Err(SendError(value));
        }
        self.shared.push(value);
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Values that wait to be received.
    pub fn len(&self) -> usize {
        self.shared.queue.borrow().len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A sender that does not keep the channel open.
    pub fn downgrade(&self) -> WeakSender<T> {
        WeakSender {
            shared: Rc::downgrade(&self.shared),
        }
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
            self.shared.wake_receiver();
        }
    }
}

/// A sender that does not keep the channel open.
pub struct WeakSender<T> {
    shared: Weak<Shared<T>>,
}

impl<T> WeakSender<T> {
    /// A full sender, if one still exists.
    pub fn upgrade(&self) -> Option<Sender<T>> {
        let shared = self.shared.upgrade()?;
        let senders = shared.senders.get();
        if senders == 0 {
            return None;
        }
        shared.senders.set(senders + 1);
        Some(Sender { shared })
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Weak::clone(&self.shared),
        }
    }
}

/// The receiving side.
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The next value, or `None` when all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next value if there is one.
    ///
    /// # Errors
    /// If there is none now, or none will come.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.shared.pop() {
            Some(value) => Ok(value),
            None if self.shared.senders.get() == 0 => Err(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// [`Self::recv`] for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self.try_recv() {
            Ok(value) => Poll::Ready(Some(value)),
            Err(TryRecvError::Disconnected) => Poll::Ready(None),
            Err(TryRecvError::Empty) => {
                self.shared.receiver.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Values that wait.
    pub fn len(&self) -> usize {
        self.shared.queue.borrow().len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.poll_recv(cx)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.places.borrow_mut().close();
        loop {
            let Some(waker) = self.shared.places.borrow_mut().drain() else {
                break;
            };
            waker.wake();
        }
        // Dropped outside of the borrow: destructors may come back to this channel.
        let rest = self.shared.queue.take();
        drop(rest);
    }
}

/// Waits for a free place in the queue.
struct Place<'a, T> {
    shared: &'a Shared<T>,
    ticket: Option<Ticket>,
}

impl<T> Future for Place<'_, T> {
    type Output = Result<(), super::Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, ticket } = &mut *self;
        let mut places = shared.places.borrow_mut();
        if places.is_closed() {
            return Poll::Ready(Err(super::Closed));
        }
        places.poll_acquire(ticket, 1, cx)
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.places.borrow_mut().cancel(ticket, 1);
            self.shared.serve();
        }
    }
}
