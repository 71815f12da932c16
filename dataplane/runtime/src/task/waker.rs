//! A waker that is safe to clone without limit and to drop on any thread.
//!
//! **Place.** Between a task's future and the engine. The io_uring engine counts the wakers of a
//! task in 16 bits and panics past 32,767; here the engine's waker is held once per task and the
//! clones are counted by an `Arc`.
//!
//! **Owner.** Created by the task; clones may live on any thread.
//!
//! **Invariants.** The engine's waker is taken out on the executor's thread when the task ends, so
//! a late clone on a foreign thread never touches the engine.
//!
//! **Failure.** Waking a finished task does nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Indirection to the engine's waker of one task.
pub(super) struct TaskWaker {
    engine: Mutex<Option<Waker>>,
}

impl TaskWaker {
    /// Wraps the engine's waker.
    pub(super) fn new(engine: Waker) -> Arc<Self> {
        Arc::new(Self {
            engine: Mutex::new(Some(engine)),
        })
    }

    /// Cuts the link to the engine; called on the executor's thread when the task ends.
    pub(super) fn disarm(&self) {
        let engine = self
            .engine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(engine);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The lock is held across the engine's wake so that `disarm` cannot free the task in
        // between; that wake only queues, it runs no code of ours.
        if let Some(engine) = &*self.engine.lock().unwrap_or_else(PoisonError::into_inner) {
            engine.wake_by_ref();
        }
    }
}
