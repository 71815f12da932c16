//! One value, once.
//!
//! **Place.** Replies. **Owner.** Two tasks of one executor. **Invariants.** A value that was sent is
//! received even if the sender is gone; one that cannot be received goes back to the sender.
//! **Failure.** A dropped sender is [`Closed`].

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Closed;

#[derive(Debug)]
enum State<T> {
    Waiting(Option<Waker>),
    Sent(T),
    SenderGone,
    ReceiverGone,
}

type Shared<T> = Rc<RefCell<State<T>>>;

/// Makes a channel for one value.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(RefCell::new(State::Waiting(None)));
    (
        Sender {
            shared: Rc::clone(&shared),
        },
        Receiver { shared },
    )
}

/// Sends the value.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Shared<T>,
}

impl<T> Sender<T> {
    /// Sends `value`.
    ///
    /// # Errors
    /// Returns it if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(value);
        }
        self.settle(State::Sent(value));
        Ok(())
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        matches!(*self.shared.borrow(), State::ReceiverGone)
    }

    fn settle(&self, state: State<T>) {
        let before = self.shared.replace(state);
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let is_waiting = matches!(*self.shared.borrow(), State::Waiting(_));
        if is_waiting {
            self.settle(State::SenderGone);
        }
    }
}

/// Receives the value.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Receiver<T> {
    shared: Shared<T>,
}

impl<T> Receiver<T> {
    /// The value if it is there, `None` if it may still come.
    ///
    /// # Errors
    /// If the sender is gone, or the value was taken before.
    pub fn try_recv(&mut self) -> Result<Option<T>, Closed> {
        let mut state = self.shared.borrow_mut();
        if let State::Waiting(_) = *state {
            return Ok(None);
        }
        match std::mem::replace(&mut *state, State::SenderGone) {
            State::Sent(value) => Ok(Some(value)),
            _ => Err(Closed),
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.try_recv() {
            Ok(Some(value)) => Poll::Ready(Ok(value)),
            Ok(None) => {
                *self.shared.borrow_mut() = State::Waiting(Some(cx.waker().clone()));
                Poll::Pending
            }
            Err(Closed) => Poll::Ready(Err(Closed)),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Dropped outside of the borrow: the value's destructor is not ours.
        let before = self.shared.replace(State::ReceiverGone);
        drop(before);
    }
}
