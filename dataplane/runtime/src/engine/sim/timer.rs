//! The virtual clock and its timers.
//!
//! **Place.** Under `time` and `task::yield_now`. **Owner.** The world.
//!
//! **Invariants.** The first poll is always pending, as on the real engine. Outside of an executor
//! the clock stands at the epoch. **Failure.** None.

use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::world::{self, TimerKey, World};
use crate::limit::YIELD_INTERVAL;
use crate::time::Instant;

/// The current virtual time.
pub(crate) fn now() -> Instant {
    world::try_current().map_or_else(world::epoch, |world| world.now())
}

/// A virtual host is never suspended.
pub(crate) const fn suspended_time() -> Duration {
    Duration::ZERO
}

/// Lets everything run that can, and a microsecond pass: a loop of yields cannot stop the clock.
pub(crate) async fn yield_now() {
    Timer::new(now() + YIELD_INTERVAL).await;
}

/// Fires at a deadline, registered at the first poll.
#[derive(Debug)]
pub(crate) struct Timer {
    at: Instant,
    registered: Option<(Weak<World>, TimerKey)>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Timer {
    pub(crate) fn new(at: Instant) -> Self {
        Self {
            at,
            registered: None,
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let world = world::current();
        match &self.registered {
            None => {
                let key = world.add_timer(self.at, cx.waker().clone());
                self.registered = Some((Rc::downgrade(&world), key));
            }
            Some(_) if world.now() >= self.at => return Poll::Ready(()),
            Some((_, key)) => world.renew_timer(*key, cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((world, key)) = self.registered.take()
            && let Some(world) = world.upgrade()
        {
            world.remove_timer(key);
        }
    }
}
