//! A request on its way to a volume's task, and where its outcome goes.
//!
//! *Place*: made by the calls, run by `volume`. *Owner*: the queue between both, then the task.
//! *Invariants*: a [`Reply`] that was accepted posts exactly one outcome, when its last holder goes: if
//! nobody has set one, that the request was cancelled. *On failure*: as above.

use crate::failure::Failure;
use crate::lease::{Sink, Source};
use crate::memory::MemoryUse;
use crate::queue::{Completion, Outcome, Queue};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

/// What a volume is asked.
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) reply: Arc<Reply>,
}

/// What is to be done.
pub(crate) enum Operation {
    Read {
        offset: u64,
        into: Sink,
    },
    Write {
        offset: u64,
        data: Source,
    },
    Discard {
        offset: u64,
        len: u64,
    },
    WriteZeroes {
        offset: u64,
        len: u64,
    },
    Flush,
    /// Tell when the size is not `known` any more.
    AwaitResize {
        known: u64,
    },
}

/// Where the outcome of a request goes.
pub(crate) struct Reply {
    target: Target,
    outcome: OnceLock<Outcome>,
    is_revoked: AtomicBool,
    memory: Option<MemoryUse>,
}

enum Target {
    Queue { queue: Arc<Queue>, user_data: u64 },
    Caller(Arc<Waiter>),
}

/// A thread that waits for one outcome.
#[derive(Default)]
pub(crate) struct Waiter {
    outcome: Mutex<Option<Outcome>>,
    is_there: Condvar,
}

impl Reply {
    /// To a completion queue; fails when that is full.
    pub(crate) fn to_queue(
        queue: Arc<Queue>,
        user_data: u64,
        memory: Option<MemoryUse>,
    ) -> Result<Arc<Self>, Failure> {
        queue.reserve()?;
        Ok(Self::new(Target::Queue { queue, user_data }, memory))
    }

    /// To a thread that waits.
    pub(crate) fn to_waiter(waiter: &Arc<Waiter>) -> Arc<Self> {
        Self::new(Target::Caller(Arc::clone(waiter)), None)
    }

    fn new(target: Target, memory: Option<MemoryUse>) -> Arc<Self> {
        Arc::new(Self {
            target,
            outcome: OnceLock::new(),
            is_revoked: AtomicBool::new(false),
            memory,
        })
    }

    /// What the outcome is; the first one counts.
    pub(crate) fn set(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
    }

    /// The request was not accepted: nothing is to be posted.
    pub(crate) fn revoke(&self) {
        self.is_revoked.store(true, Ordering::Release);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // Before the completion: whoever sees that may unregister.
        self.memory.take();
        let outcome = self.outcome.take();
        let outcome = outcome.unwrap_or_else(|| Err(Failure::cancelled()));
        let is_revoked = *self.is_revoked.get_mut();
        match &self.target {
            Target::Queue { queue, .. } if is_revoked => queue.release(),
            Target::Queue { queue, user_data } => queue.post(Completion {
                user_data: *user_data,
                outcome,
            }),
            Target::Caller(waiter) => waiter.post(outcome),
        }
    }
}

impl Waiter {
    fn post(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.is_there.notify_one();
    }

    /// Waits until the outcome is there.
    pub(crate) fn wait(&self) -> Outcome {
        let mut guard = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = guard.take() {
                return outcome;
            }
            let waited = self.is_there.wait(guard);
            guard = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Queue, Reply, Source, Waiter};
    use crate::abi::OgeeStatus;
    use bytes::Bytes;
    use std::sync::Arc;

    #[test]
    fn the_outcome_comes_when_nothing_refers_to_the_memory_any_more() {
        let queue = Arc::new(Queue::new(4));
        let data = [7_u8; 100];
        let reply = Reply::to_queue(Arc::clone(&queue), 5, None).expect("room");
        // SAFETY: `data` outlives everything that is made of it here.
        let source = unsafe { Source::new(data.as_ptr(), data.len(), Arc::clone(&reply)) };
        let sent = Bytes::from_owner(source);
        assert_eq!(sent.as_ptr(), data.as_ptr(), "not copied");
        let part = sent.slice(10..20);
        reply.set(Ok(100));
        drop((reply, sent));
        assert!(queue.poll(4).is_empty(), "a part of it is still out");
        drop(part);
        let completion = queue.poll(4).pop().expect("posted");
        assert_eq!((completion.user_data, completion.outcome), (5, Ok(100)));
    }

    #[test]
    fn a_request_that_is_dropped_was_cancelled_and_a_revoked_one_never_was() {
        let queue = Arc::new(Queue::new(1));
        let reply = |user_data| Reply::to_queue(Arc::clone(&queue), user_data, None);
        drop(reply(1).expect("room"));
        let ended = queue.poll(1).pop().expect("posted").outcome;
        assert_eq!(ended.unwrap_err().status, OgeeStatus::Cancelled);
        reply(2).expect("room").revoke();
        assert!(queue.poll(1).is_empty());
        assert!(reply(3).is_ok(), "its place is free again");
    }

    #[test]
    fn a_waiter_gets_its_outcome_from_another_thread() {
        let waiter = Arc::new(Waiter::default());
        let reply = Reply::to_waiter(&waiter);
        let other = std::thread::spawn(move || reply.set(Ok(3)));
        assert_eq!(waiter.wait(), Ok(3));
        other.join().expect("no panic");
    }
}
