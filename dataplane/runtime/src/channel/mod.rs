//! Channels and locks between the tasks of one executor.
//!
//! All are single-threaded and engine-independent: they know nothing but wakers. Waiters are served
//! first come, first served, and a waiter that is dropped after it was chosen passes its turn on.
//! Each waiter holds one waker.

mod gate;
mod mutex;
mod notify;
mod permits;
mod semaphore;

pub mod mpsc;
pub mod oneshot;
pub mod watch;

pub use gate::{Gate, Pass};
pub use mutex::{Mutex, MutexGuard};
pub use notify::{Notified, Notify};
pub(crate) use permits::{Permits, Ticket};
pub use semaphore::{Permit, Semaphore};

/// The other side of a channel is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel is closed")]
pub struct Closed;
