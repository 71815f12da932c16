//! A waker that is safe to clone without limit and to drop on any thread.
//!
//! **Place.** Between a task's future and the engine. The io_uring engine counts the wakers of a
//! task in 16 bits and panics past 32,767; here the engine's waker is held once per task and the
//! clones are counted by an `Arc`.
//!
//! **Owner.** Created by the task; clones may live on any thread.
//!
//! **Invariants.** Other threads leave the waker with the task's executor, each task once at most, and that wakes it. The engine's waker is taken out on the executor's thread when the task ends, so
//! a late clone on a foreign thread never touches the engine.
//!
//! **Failure.** Waking a finished task does nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use crate::engine::{self, Home};

/// Indirection to the engine's waker of one task.
pub(super) struct TaskWaker {
    engine: Mutex<Option<Waker>>,
    home: Home,
    /// Left with its executor by another thread, and not yet woken.
    is_left: AtomicBool,
}

impl TaskWaker {
    /// Wraps the engine's waker; called on the executor's thread.
    pub(super) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self {
            engine: Mutex::new(Some(waker)),
            home: engine::home(),
            is_left: AtomicBool::new(false),
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
        if !self.home.is_here() {
            if !self.is_left.swap(true, Ordering::AcqRel) {
                self.home.ring(Waker::from(Arc::clone(self)));
            }
            return;
        }
        // Before the engine is told: who leaves it from now on leaves it anew.
        if self.is_left.load(Ordering::Relaxed) {
            self.is_left.swap(false, Ordering::AcqRel);
        }
        // The lock is held across the engine's wake so that `disarm` cannot free the task in
        // between; that wake only queues, it runs no code of ours.
        if let Some(engine) = &*self.engine.lock().unwrap_or_else(PoisonError::into_inner) {
            engine.wake_by_ref();
        }
    }
}
