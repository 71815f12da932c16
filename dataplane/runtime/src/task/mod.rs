//! Tasks: spawning, joining, cancelling.

mod cell;
mod handle;
mod table;
mod waker;

pub(crate) use cell::run_root;
pub use handle::{Cancelled, JoinHandle, ScopedTask};
pub(crate) use table::cancel_all;
#[cfg(ogee_sim)]
pub(crate) use table::cancel_scope;

use std::future::Future;

use crate::engine;

/// Starts a task on this thread's executor. Dropping the handle leaves the task running.
///
/// # Panics
/// If this thread runs no executor.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    JoinHandle::new(cell::start(future))
}

/// Starts a task that is cancelled when the returned handle is dropped.
///
/// # Panics
/// If this thread runs no executor.
pub fn spawn_scoped<F>(future: F) -> ScopedTask<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    ScopedTask::new(cell::start(future))
}

/// Lets the other tasks and the I/O of this executor run before the caller continues.
///
/// It costs a turn of the rings (tens of microseconds on io_uring), because anything cheaper would
/// let a loop of yields starve the I/O it waits for.
pub async fn yield_now() {
    engine::yield_now().await;
}
