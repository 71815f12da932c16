//! A bounded queue between threads: shards, and foreign ones such as a tokio thread.
//!
//! **Place.** Control messages between the data plane and the threads that serve heartbeats,
//! metrics and metadata, and requests of programs whose threads are their own (`ffi/capi`). Never between shards on
//! the path of a request.
//!
//! **Owner.** Both ends may be on any thread and run by any executor; they need nothing but a waker.
//!
//! **Invariants.** At most `capacity` values wait; senders are served first come, first served. The
//! receiver gets all values that were accepted, then the end. Wakers are called outside of the lock.
//!
//! **Failure.** Sending to a receiver that is gone returns the value. A thread that panics elsewhere
//! cannot poison the queue: no foreign code runs under the lock but moves of values.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::channel::mpsc::{SendError, TryRecvError, TrySendError};
use crate::channel::{Closed, Permits, Ticket};

struct State<T> {
    queue: VecDeque<T>,
    /// Free places of the queue; closed when the receiver goes.
    places: Permits,
    senders: usize,
    receiver: Option<Waker>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a value into a place that the caller has acquired.
    fn push(&self, value: T) -> Result<(), T> {
        let mut state = self.lock();
        // The receiver may have gone between the acquisition and now.
        if state.places.is_closed() {
            return Err(value);
        }
        state.queue.push_back(value);
        let receiver = state.receiver.take();
        drop(state);
        wake(receiver);
        Ok(())
    }

    fn serve(&self) {
        loop {
            // Its own statement, so that the lock is released before the waker is called.
            let chosen = self.lock().places.grant();
            let Some(waker) = chosen else { return };
            waker.wake();
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Makes a channel with room for `capacity` values.
///
/// # Panics
/// If `capacity` is zero.
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel needs room for one value");
    let places = Permits::new(capacity);
    let state = State {
        queue: VecDeque::new(),
        places,
        senders: 1,
        receiver: None,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
    });
    (
        Sender {
            shared: Arc::clone(&shared),
        },
        Receiver { shared },
    )
}

/// The sending side, for any thread.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send> Sender<T> {
    /// Sends now or not at all.
    ///
    /// # Errors
    /// Returns the value if the channel is full (or others wait for room) or closed.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut state = self.shared.lock();
        if state.places.is_closed() {
            return Err(TrySendError::Closed(value));
        }
        if !state.places.try_acquire(1) {
            return Err(TrySendError::Full(value));
        }
        drop(state);
        self.shared.push(value).map_err(TrySendError::Closed)
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
        self.shared.push(value).map_err(SendError)
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().places.is_closed()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.lock().senders += 1;
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.senders -= 1;
        let receiver = if state.senders == 0 {
            state.receiver.take()
        } else {
            None
        };
        drop(state);
        wake(receiver);
    }
}

/// The receiving side, for any thread.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T: Send> Receiver<T> {
    /// The next value, or `None` when all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next value if there is one.
    ///
    /// # Errors
    /// If there is none now, or none will come.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let popped = pop(&mut self.shared.lock());
        if popped.is_ok() {
            self.shared.serve();
        }
        popped
    }

    /// [`Self::recv`] for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.shared.lock();
        let value = match pop(&mut state) {
            Ok(value) => value,
            Err(TryRecvError::Disconnected) => return Poll::Ready(None),
            Err(TryRecvError::Empty) => {
                // Registered under the lock that found the queue empty: no value slips between.
                state.receiver = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        drop(state);
        self.shared.serve();
        Poll::Ready(Some(value))
    }
}

/// Takes a value and frees its place; the caller serves the waiters.
fn pop<T>(state: &mut State<T>) -> Result<T, TryRecvError> {
    match state.queue.pop_front() {
        Some(value) => {
            state.places.release(1);
            Ok(value)
        }
        None if state.senders == 0 => Err(TryRecvError::Disconnected),
        None => Err(TryRecvError::Empty),
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.places.close();
        let rest = std::mem::take(&mut state.queue);
        drop(state);
        drop(rest);
        loop {
            let waiter = self.shared.lock().places.drain();
            let Some(waker) = waiter else { return };
            waker.wake();
        }
    }
}

/// Waits for a free place in the queue.
struct Place<'a, T> {
    shared: &'a Shared<T>,
    ticket: Option<Ticket>,
}

impl<T> Future for Place<'_, T> {
    type Output = Result<(), Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, ticket } = &mut *self;
        shared.lock().places.poll_acquire(ticket, 1, cx)
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.lock().places.cancel(ticket, 1);
            self.shared.serve();
        }
    }
}
