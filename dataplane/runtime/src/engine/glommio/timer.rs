//! Clock and timers of the io_uring engine.
//!
//! **Place.** Under `time` and `task::yield_now`. **Owner.** The driver's timer table.
//!
//! **Invariants.** The first poll is always pending, even when the deadline has passed meanwhile, and the timer fires in
//! a turn of the driver: that is what makes it a yield. **Failure.** None.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::driver::{Driver, TimerKey};
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

/// Lets the driver have its turn, so that the ring is submitted and reaped.
pub(crate) async fn yield_now() {
    Timer::new(now()).await;
}

/// Fires at a deadline, registered at the first poll.
pub(crate) struct Timer {
    at: Instant,
    registered: Option<Registered>,
}

impl Timer {
    pub(crate) fn new(at: Instant) -> Self {
        Self {
            at,
            registered: None,
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("at", &self.at).finish()
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(Registered { driver, key }) = &self.registered {
            return driver.poll_timer(*key, cx);
        }
        let driver = Driver::current();
        let key = driver.add_timer(self.at, cx.waker().clone());
        self.registered = Some(Registered { driver, key });
        Poll::Pending
    }
}

/// A timer in the driver's table, or one that has fired.
struct Registered {
    driver: Rc<Driver>,
    key: TimerKey,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.driver.remove_timer(self.key);
    }
}
