//! The state of one simulated world.
//!
//! **Place.** Made by `executor`, reached by the other files through [`current`]. **Owner.** The
//! executor's thread; only the run queue may be touched by others (wakers are `Send`).
//!
//! **Invariants.** A task is in the run queue at most once. The clock never goes back.
//!
//! **Failure.** [`current`] panics outside of an executor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::file::Disk;
use super::net::Network;
use super::rng::Rng;
use crate::time::Instant;

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// How long a world with nothing to do waits for a foreign thread before it is declared stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Number of a task; zero is the main future.
pub(super) type TaskId = usize;

/// Key of a timer: when, then in order of registration.
pub(super) type TimerKey = (Instant, u64);

pub(super) struct World {
    pub(super) seed: u64,
    rng: RefCell<Rng>,
    now: Cell<Instant>,
    timers: RefCell<BTreeMap<TimerKey, Waker>>,
    next_timer: Cell<u64>,
    pub(super) ready: Arc<RunQueue>,
    pub(super) files: RefCell<BTreeMap<PathBuf, Disk>>,
    pub(super) network: RefCell<Network>,
}

impl World {
    pub(super) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            seed,
            rng: RefCell::new(Rng::new(seed)),
            now: Cell::new(epoch()),
            timers: RefCell::default(),
            next_timer: Cell::new(0),
            ready: Arc::default(),
            files: RefCell::default(),
            network: RefCell::default(),
        })
    }

    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn random(&self) -> u64 {
        self.rng.borrow_mut().next()
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        self.rng.borrow_mut().below(bound)
    }

    pub(super) fn add_timer(&self, at: Instant, waker: Waker) -> TimerKey {
        let key = (at, self.next_timer.get());
        self.next_timer.set(key.1 + 1);
        self.timers.borrow_mut().insert(key, waker);
        key
    }

    pub(super) fn renew_timer(&self, key: TimerKey, waker: Waker) {
        self.timers.borrow_mut().insert(key, waker);
    }

    pub(super) fn remove_timer(&self, key: TimerKey) {
        self.timers.borrow_mut().remove(&key);
    }

    /// Lets time pass until something can run.
    pub(super) fn advance(&self) {
        let Some(at) = self.next_deadline() else {
            let seed = self.seed;
            assert!(
                self.ready.wait(STUCK_AFTER),
                "the simulation is stuck (seed {seed})"
            );
            return;
        };
        self.now.set(self.now.get().max(at));
        // All of this instant at once: who goes first is the seed's choice, not the timers'.
        while self.next_deadline() == Some(at) {
            let fired = self.timers.borrow_mut().pop_first();
            fired.into_iter().for_each(|(_, waker)| waker.wake());
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.timers
            .borrow()
            .first_key_value()
            .map(|((at, _), _)| *at)
    }
}

/// Start of simulated time, one per process: only differences mean anything.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be had from the real clock"
)]
pub(super) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// The world of this thread's executor.
pub(super) fn current() -> Rc<World> {
    try_current().expect("no executor runs on this thread")
}

pub(super) fn try_current() -> Option<Rc<World>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Makes a world current until it is dropped.
pub(super) struct Entered;

impl Entered {
    pub(super) fn new(world: Rc<World>) -> Self {
        let before = CURRENT.replace(Some(world));
        assert!(before.is_none(), "an executor already runs on this thread");
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        drop(CURRENT.take());
    }
}

/// Tasks that can run, in no meaningful order.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    tasks: Mutex<Vec<TaskId>>,
    is_filled: Condvar,
}

impl RunQueue {
    pub(super) fn push(&self, task: TaskId) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if !tasks.contains(&task) {
            tasks.push(task);
        }
        self.is_filled.notify_one();
    }

    /// Draws one task by `choose`, which gets their number.
    pub(super) fn draw(&self, choose: impl FnOnce(usize) -> usize) -> Option<TaskId> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.is_empty() {
            return None;
        }
        let index = choose(tasks.len());
        Some(tasks.swap_remove(index))
    }

    /// Waits for a foreign thread to fill the queue; whether it did.
    fn wait(&self, limit: Duration) -> bool {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .is_filled
            .wait_timeout_while(tasks, limit, |tasks| tasks.is_empty());
        !waited.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }
}

/// Puts one task into the run queue.
pub(super) struct Requeue {
    pub(super) task: TaskId,
    pub(super) ready: Arc<RunQueue>,
}

impl Wake for Requeue {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.task);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.push(self.task);
    }
}
