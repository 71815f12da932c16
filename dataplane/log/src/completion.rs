//! Tells when something queued is durable.
//!
//! *Place*: returned by every call that queues. *Owner*: the caller. *Invariants*: resolves once;
//! dropping it cancels nothing. *On failure*: resolves to the reason why the record will never be
//! durable.

use crate::error::LogError;
use crate::queue::Done;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Resolves when what was queued is durable. It is queued already: the call's place in the stream
/// does not depend on when, or whether, this is awaited.
#[derive(Debug)]
#[must_use = "await it, or drop it on purpose: the record is queued either way"]
pub struct Completion {
    shared: Rc<RefCell<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    result: Option<Result<(), LogError>>,
    waiter: Option<Waker>,
}

/// The other end.
#[derive(Clone)]
pub(crate) struct Completer {
    shared: Rc<RefCell<Shared>>,
}

/// A pair.
pub(crate) fn completion() -> (Completer, Completion) {
    let shared = Rc::new(RefCell::new(Shared::default()));
    (
        Completer {
            shared: Rc::clone(&shared),
        },
        Completion { shared },
    )
}

impl Completer {
    /// Resolves the completion.
    pub(crate) fn complete(self, result: Result<(), LogError>) {
        let mut shared = self.shared.borrow_mut();
        shared.result = Some(result);
        let waiter = shared.waiter.take();
        drop(shared);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// As a callback.
    pub(crate) fn into_done(self) -> Done {
        Box::new(move |result| self.complete(result))
    }
}

impl Future for Completion {
    type Output = Result<(), LogError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.shared.borrow_mut();
        match shared.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                shared.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::completion;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn resolves_once_completed() {
        let (done, completion) = completion();
        let mut completion = pin!(completion);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(completion.as_mut().poll(&mut cx).is_pending());
        done.complete(Ok(()));
        assert!(matches!(completion.poll(&mut cx), Poll::Ready(Ok(()))));
    }

    #[test]
    fn may_be_dropped() {
        let (done, completion) = completion();
        drop(completion);
        done.complete(Ok(()));
    }
}
