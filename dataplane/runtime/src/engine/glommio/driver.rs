//! The turns of an executor.
//!
//! **Place.** A task among the others, polled after all that can run: the engine's own reactor would enter the kernel some
//! ten times for each sleep. **Owner.** One executor.
//!
//! **Invariants.** It is always in the run queue, so the engine neither sleeps nor turns its own rings. When it is polled
//! twice and no other task in between, none can run: then it submits what was queued since and sleeps, in one call.
//! Transfers of files are submitted after the round of the run queue in which they were queued, so that the device works
//! while tasks run. Tasks that never rest keep I/O waiting for `ROUNDS_MAX` of their rounds. Before it sleeps it may look
//! for completions for a while, see [`Spin`].
//!
//! **Failure.** As of [`Ring`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::hint;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::doorbell::{Answered, Doorbell, Home};
use super::ring::{Operation, Ring};
use super::spin::Spin;
use super::timer::now;
use crate::limit::{ROUNDS_MAX, SHUTDOWN_PATIENCE};
use crate::time::Instant;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Driver>>> = const { RefCell::new(None) };
}

pub(super) struct Driver {
    ring: Rc<Ring>,
    timers: RefCell<Timers>,
    doorbell: Arc<Doorbell>,
    bell: Rc<OwnedFd>,
    /// Waits for the bell.
    listening: RefCell<Option<Operation>>,
    /// A task has run since the last poll of the driver.
    is_active: Cell<bool>,
    rounds: Cell<u32>,
    is_stopped: Cell<bool>,
    spin: Spin,
}

impl Driver {
    pub(super) fn new(spin: Duration) -> io::Result<Rc<Self>> {
        let doorbell = Doorbell::new()?;
        let bell = Rc::new(doorbell.descriptor()?);
        Ok(Rc::new(Self {
            ring: Rc::new(Ring::new()?),
            timers: RefCell::default(),
            doorbell,
            bell,
            listening: RefCell::default(),
            is_active: Cell::new(false),
            rounds: Cell::new(0),
            is_stopped: Cell::new(false),
            spin: Spin::new(spin),
        }))
    }

    /// Makes this the driver of the thread until the guard is dropped.
    pub(super) fn enter(self: &Rc<Self>) -> Entered {
        let before = CURRENT.replace(Some(Rc::clone(self)));
        assert!(before.is_none(), "an executor already runs on this thread");
        Entered {
            _answered: Answered::here(Arc::clone(&self.doorbell)),
        }
    }

    /// The driver of this thread.
    ///
    /// # Panics
    /// Outside of an executor.
    pub(super) fn current() -> Rc<Self> {
        CURRENT.with_borrow(|current| current.clone().expect("no executor runs on this thread"))
    }

    pub(super) fn is_running() -> bool {
        CURRENT.with_borrow(Option::is_some)
    }

    pub(super) fn ring(&self) -> &Rc<Ring> {
        &self.ring
    }

    pub(super) fn home(&self) -> Home {
        Home::new(Arc::clone(&self.doorbell))
    }

    /// `future`, so that the driver knows when it runs.
    pub(super) async fn noticed<F: Future>(self: Rc<Self>, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.is_active.set(true);
            future.as_mut().poll(cx)
        })
        .await
    }

    /// The task of the driver.
    pub(super) async fn drive(self: Rc<Self>) {
        poll_fn(|cx| {
            if self.is_stopped.get() {
                return Poll::Ready(());
            }
            self.turn();
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    fn turn(&self) {
        let is_active = self.is_active.replace(false);
        if is_active && self.rounds.get() < ROUNDS_MAX {
            self.rounds.set(self.rounds.get() + 1);
            if self.ring.is_eager() {
                self.ring.enter(Some(Duration::ZERO));
            }
            return;
        }
        self.rounds.set(0);
        if is_active || !self.look() {
            self.sleep(is_active);
        }
        self.doorbell.answer();
        self.fire();
    }

    /// Submits what is queued, and looks for completions for a while if that is likely to spare a sleep; whether
    /// something has happened.
    fn look(&self) -> bool {
        let Some(longest) = self.spin.next() else {
            return false;
        };
        let end = now() + longest;
        loop {
            let completed = self.ring.enter(Some(Duration::ZERO));
            let time = now();
            let has_timer = self.next_timer().is_some_and(|at| at <= time);
            if completed > 0 || has_timer || self.doorbell.answer() {
                self.spin.found(completed);
                return true;
            }
            if time >= end {
                self.spin.found_nothing();
                return false;
            }
            hint::spin_loop();
        }
    }

    fn sleep(&self, is_brief: bool) {
        self.listen();
        let is_quiet = self.doorbell.sleep();
        let wait = if is_brief || !is_quiet {
            Some(Duration::ZERO)
        } else {
            self.next_timer()
                .map(|at| at.saturating_duration_since(now()))
        };
        let completed = self.ring.enter(wait);
        self.spin.woke(completed);
        self.doorbell.wake();
    }

    /// Has the bell end a sleep.
    fn listen(&self) {
        let mut listening = self.listening.borrow_mut();
        if listening.as_ref().is_none_or(Operation::is_done) {
            self.doorbell.hush();
            *listening = Some(self.ring.ready(&self.bell, libc::POLLIN));
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timers.borrow().next()
    }

    /// Wakes those whose time has come.
    fn fire(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let time = now();
        loop {
            // Its own statement: a waker is called while nothing is borrowed.
            let due = self.timers.borrow_mut().pop(time);
            let Some(waker) = due else { return };
            waker.wake();
        }
    }

    pub(super) fn add_timer(&self, at: Instant, waker: Waker) -> TimerKey {
        self.timers.borrow_mut().add(at, waker)
    }

    /// Whether the timer has fired; if not, it will wake the task of `cx`.
    pub(super) fn poll_timer(&self, key: TimerKey, cx: &Context<'_>) -> Poll<()> {
        let mut timers = self.timers.borrow_mut();
        let Some(waker) = timers.by_time.get_mut(&key) else {
            return Poll::Ready(());
        };
        let before =
            (!waker.will_wake(cx.waker())).then(|| mem::replace(waker, cx.waker().clone()));
        drop(timers);
        drop(before);
        Poll::Pending
    }

    pub(super) fn remove_timer(&self, key: TimerKey) {
        let removed = self.timers.borrow_mut().by_time.remove(&key);
        drop(removed);
    }

    /// Ends the driver's task, after everything that is in flight; the tasks have been cancelled.
    pub(super) fn stop(&self) {
        self.is_stopped.set(true);
        self.listening.take();
        let end = now() + SHUTDOWN_PATIENCE;
        while self.ring.in_flight() > 0 && now() < end {
            self.ring.enter(Some(end.saturating_duration_since(now())));
        }
        if self.ring.in_flight() > 0 {
            tracing::warn!(
                count = self.ring.in_flight(),
                "an executor ends before its I/O"
            );
        }
    }
}

/// Until dropped the thread has a driver.
pub(super) struct Entered {
    _answered: Answered,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let driver = CURRENT.take();
        drop(driver);
    }
}

/// Deadline and number of a timer.
pub(super) type TimerKey = (Instant, u64);

#[derive(Default)]
struct Timers {
    numbers: u64,
    by_time: BTreeMap<TimerKey, Waker>,
}

impl Timers {
    fn add(&mut self, at: Instant, waker: Waker) -> TimerKey {
        self.numbers += 1;
        let key = (at, self.numbers);
        self.by_time.insert(key, waker);
        key
    }

    fn next(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|((at, _), _)| *at)
    }

    fn is_empty(&self) -> bool {
        self.by_time.is_empty()
    }

    /// A timer whose time has come.
    fn pop(&mut self, time: Instant) -> Option<Waker> {
        let first = self.by_time.first_entry()?;
        (first.key().0 <= time).then(|| first.remove())
    }
}
