//! Handles of tasks.
//!
//! **Place.** What `spawn` and `spawn_scoped` return. **Owner.** Any task of the same executor.
//!
//! **Invariants.** A [`JoinHandle`] never stops its task unless told to; a [`ScopedTask`] never
//! lets its task outlive it.
//!
//! **Failure.** A cancelled task yields [`Cancelled`]; a task that panics takes its executor along.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::table::Abort;

/// The task was cancelled before it finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task was cancelled")]
pub struct Cancelled;

/// What a handle can do with its task.
pub(super) trait Join<T>: Abort {
    fn poll_join(&self, cx: &mut Context<'_>) -> Poll<Result<T, Cancelled>>;
    fn is_finished(&self) -> bool;
    fn detach(&self);
}

/// Result of a task; the task runs on when this is dropped.
#[must_use = "dropping the handle detaches the task; say so with `drop`"]
pub struct JoinHandle<T> {
    task: Rc<dyn Join<T>>,
}

impl<T> JoinHandle<T> {
    pub(super) fn new(task: Rc<dyn Join<T>>) -> Self {
        Self { task }
    }

    /// Drops the task's future now, unless it has finished.
    pub fn abort(&self) {
        self.task.abort();
    }

    /// Whether the task has ended, either way.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.task.poll_join(cx)
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.task.detach();
    }
}

/// A task that is cancelled when this is dropped: its future is gone when `drop` returns.
#[must_use = "dropping a scoped task cancels it"]
pub struct ScopedTask<T> {
    handle: JoinHandle<T>,
}

impl<T> ScopedTask<T> {
    pub(super) fn new(task: Rc<dyn Join<T>>) -> Self {
        Self {
            handle: JoinHandle::new(task),
        }
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Future for ScopedTask<T> {
    type Output = Result<T, Cancelled>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(cx)
    }
}

impl<T> Drop for ScopedTask<T> {
    fn drop(&mut self) {
        self.handle.abort();
    }
}
