//! The virtual clock and its timers.
//!
//! **Place.** Under `time` and `task::yield_now`. **Owner.** The world.
//!
//! **Invariants.** The first poll is always pending, as on the real engine. Deadlines are of the
//! clock of the host that the task runs on. Outside of an executor the clock stands at the epoch.
//! **Failure.** None.

use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use super::world::{self, TimerKey, World};
use crate::limit::YIELD_INTERVAL;
use crate::time::Instant;

/// What the clock of the task's host shows.
pub(crate) fn now() -> Instant {
    world::try_current().map_or_else(world::epoch, |world| world.host_now())
}

/// For how long the task's host has slept, by the simulation's orders.
pub(crate) fn suspended_time() -> Duration {
    world::try_current().map_or(Duration::ZERO, |world| world.host_suspended())
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
            Some(_) if world.host_now() >= self.at => return Poll::Ready(()),
            Some((_, key)) if key.0 > world.now() => world.renew_timer(*key, cx.waker().clone()),
            // Also one that fired too early, because its host's clock was slowed down meanwhile.
            late_or_new => {
                if let Some((_, key)) = late_or_new {
                    world.remove_timer(*key);
                }
                let at = world.when(self.at);
                let key = world.add_timer(at, cx.waker().clone());
                self.registered = Some((Rc::downgrade(&world), key));
            }
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
