//! Wakes an executor's thread until its first task has run.
//!
//! **Place.** Under `executor`. **Owner.** The thread that is about to run; dropped by its main task.
//!
//! **Invariants.** A kernel timer signals this one thread, at first after the preemption timer would
//! have expired: an executor that was paused in its first turn sleeps without any timer, and nothing
//! but a signal ends that sleep. The signal's action does nothing, and the process's own action for it, if
//! it has one, is left alone. An executor that begins in time never sees the signal.
//!
//! **Failure.** Without the timer the executor starts as the engine alone would start it.

use std::io;
use std::time::Duration;

use super::sys::{self, ThreadTimer};
use crate::limit::{PREEMPT_INTERVAL, SENTRY_INTERVAL};

/// The preemption timer has expired by then.
const FIRST: Duration = PREEMPT_INTERVAL.saturating_add(SENTRY_INTERVAL);

/// Signals this thread now and then until it is dropped.
pub(super) struct Nudge {
    _timer: Option<ThreadTimer>,
}

impl Nudge {
    pub(super) fn begin() -> Self {
        Self {
            _timer: Self::timer()
                .inspect_err(|error| tracing::warn!(%error, "no timer for an executor's start"))
                .ok(),
        }
    }

    fn timer() -> io::Result<ThreadTimer> {
        sys::disarm_signal(ThreadTimer::SIGNAL)?;
        ThreadTimer::start(FIRST, SENTRY_INTERVAL)
    }
}
