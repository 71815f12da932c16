//! Clock and timers.
//!
//! **Place.** Over the engine's clock: real time, or virtual time in the simulator.
//!
//! **Owner.** A sleep belongs to the task that polls it and must stay on its executor.
//!
//! **Invariants.** A sleep registers with the engine at its first poll, so one that is never polled
//! costs nothing. Every sleep yields at least once, whatever its deadline: a loop over expired
//! sleeps cannot starve I/O.
//!
//! **Failure.** None; a deadline past the end of the clock never fires.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::engine;
use crate::limit::YIELD_INTERVAL;

/// A point of the executor's clock.
pub type Instant = std::time::Instant;

/// How far ahead a deadline may lie: about a century, so that `now + duration` cannot overflow.
const HORIZON: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The current time of this thread's executor.
pub fn now() -> Instant {
    engine::now()
}

/// How long this host has been suspended since it was started. [`Instant`]s do not count that time.
pub fn suspended_time() -> Duration {
    engine::suspended_time()
}

/// Completes after `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration.min(HORIZON))
}

/// Completes at `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep {
        deadline,
        timer: None,
    }
}

/// Bounds `future` by `duration`.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep(duration),
    }
}

/// Bounds `future` by `deadline`.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep_until(deadline),
    }
}

/// Future of [`sleep`] and [`sleep_until`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    timer: Option<engine::Timer>,
}

impl Sleep {
    /// When it completes.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            let at = self.deadline.max(now() + YIELD_INTERVAL);
            self.timer = Some(engine::Timer::new(at));
        }
        let timer = self.timer.as_mut().expect("invariant: set just above");
        Pin::new(timer).poll(cx)
    }
}

/// The time of a [`timeout`] ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("deadline elapsed")]
pub struct Elapsed;

pin_project! {
    /// Future of [`timeout`] and [`timeout_at`]. The inner future is polled first, so a result that
    /// is ready always wins.
    #[must_use = "futures do nothing unless awaited"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(this.sleep).poll(cx).map(|()| Err(Elapsed))
    }
}
