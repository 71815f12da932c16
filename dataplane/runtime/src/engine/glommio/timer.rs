//! Clock and timers of the io_uring engine.
//!
//! **Place.** Under `time` and `task::yield_now`. **Owner.** The executor's timer table.
//!
//! **Invariants.** The first poll is always pending, even when the deadline has passed meanwhile:
//! that is what makes a timer a yield. **Failure.** None.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::limit::YIELD_INTERVAL;
use crate::time::Instant;

/// The current time.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where shards read the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long the host has been suspended since it was started: the clock of [`now`] stood still then.
/// Never too much; too little by what passes between two looks at clocks.
pub(crate) fn suspended_time() -> Duration {
    // In this order: being preempted in between makes the difference smaller.
    let with = super::sys::clock(libc::CLOCK_BOOTTIME);
    with.saturating_sub(super::sys::clock(libc::CLOCK_MONOTONIC))
}

/// Lets the task queue run dry once, so that the rings are submitted and reaped.
pub(crate) async fn yield_now() {
    Timer::new(now()).await;
}

/// Fires at a deadline, registered at the first poll.
#[derive(Debug)]
pub(crate) struct Timer {
    at: Instant,
    registered: Option<::glommio::timer::Timer>,
}

impl Timer {
    pub(crate) fn new(at: Instant) -> Self {
        Self {
            at,
            registered: None,
        }
    }

    /// Registers with the executor. A timer that expires before it is registered is ready at once
    /// and would not yield: then a longer one is tried.
    fn register(&mut self, cx: &mut Context<'_>) {
        let mut wait = self.at.saturating_duration_since(now()).max(YIELD_INTERVAL);
        loop {
            let mut timer = ::glommio::timer::Timer::new(wait);
            if Pin::new(&mut timer).poll(cx).is_pending() {
                self.registered = Some(timer);
                return;
            }
            wait = wait.saturating_mul(2);
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(timer) = &mut self.registered {
            return Pin::new(timer).poll(cx).map(|_fired_at| ());
        }
        self.register(cx);
        Poll::Pending
    }
}
