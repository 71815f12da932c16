//! The state of one simulated world.
//!
//! **Place.** Made by `executor`, reached by the other files through [`current`]. **Owner.** The
//! executor's thread; only the run queue may be touched by others (wakers are `Send`).
//!
//! **Invariants.** A task is in the run queue at most once. The clock never goes back. Everything
//! that happens goes into the trace, so that two runs can be compared by one number.
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
use super::host::{Host, HostId};
use super::net::{Arrival, Network};
use super::rng::Rng;
use super::trace::Trace;
use crate::time::Instant;

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// How long a world with nothing to do waits for a foreign thread before it is declared stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Polls at one instant of virtual time after which the world is declared stuck: somebody spins.
const POLLS_PER_INSTANT_MAX: u64 = 5_000_000;

/// Number of a task; zero is the main future.
pub(super) type TaskId = usize;

/// Key of a timer: when, then in order of registration.
pub(super) type TimerKey = (Instant, u64);

/// What happens when time has come.
enum Event {
    Wake(Waker),
    Arrive(Arrival),
}

pub(super) struct World {
    pub(super) seed: u64,
    rng: RefCell<Rng>,
    now: Cell<Instant>,
    host: Cell<HostId>,
    polls_now: Cell<u64>,
    events: RefCell<BTreeMap<TimerKey, Event>>,
    next_event: Cell<u64>,
    trace: RefCell<Trace>,
    pub(super) hosts: RefCell<BTreeMap<HostId, Host>>,
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
            host: Cell::default(),
            polls_now: Cell::new(0),
            events: RefCell::default(),
            next_event: Cell::new(0),
            trace: RefCell::default(),
            hosts: RefCell::default(),
            ready: Arc::default(),
            files: RefCell::default(),
            network: RefCell::default(),
        })
    }

    /// The world's own time.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// What the current host's clock shows.
    pub(super) fn host_now(&self) -> Instant {
        let hosts = self.hosts.borrow();
        hosts
            .get(&self.host.get())
            .map_or(self.now(), |host| host.shows(self.now()))
    }

    /// When the current host's clock will show this.
    pub(super) fn when(&self, shown: Instant) -> Instant {
        let hosts = self.hosts.borrow();
        hosts
            .get(&self.host.get())
            .map_or(shown, |host| host.when(shown))
    }

    /// How long the current host has slept.
    pub(super) fn host_suspended(&self) -> Duration {
        let hosts = self.hosts.borrow();
        hosts
            .get(&self.host.get())
            .map_or(Duration::ZERO, Host::suspended)
    }

    /// Whose task runs.
    pub(super) fn host(&self) -> HostId {
        self.host.get()
    }

    /// Runs on as this host; returns the one before.
    pub(super) fn enter_host(&self, host: HostId) -> HostId {
        self.host.replace(host)
    }

    pub(super) fn is_dark(&self, host: HostId) -> bool {
        self.hosts.borrow().get(&host).is_some_and(|h| h.is_dark)
    }

    /// Whether the task was put aside because its host is stopped.
    pub(super) fn park_if_stopped(&self, host: HostId, task: TaskId) -> bool {
        let mut hosts = self.hosts.borrow_mut();
        match hosts.get_mut(&host).filter(|host| host.is_stopped) {
            Some(host) => {
                host.park(task);
                true
            }
            None => false,
        }
    }

    pub(super) fn random(&self) -> u64 {
        self.rng.borrow_mut().next()
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        self.rng.borrow_mut().below(bound)
    }

    /// Notes a poll in the trace.
    pub(super) fn polled(&self, task: TaskId) {
        let at = self.now().duration_since(epoch());
        self.trace.borrow_mut().poll(at, task);
        self.polls_now.set(self.polls_now.get() + 1);
        assert!(
            self.polls_now.get() < POLLS_PER_INSTANT_MAX,
            "the simulation spins at {at:?} (seed {})",
            self.seed
        );
    }

    /// What has happened so far, as a number, and how many steps it took.
    pub(super) fn trace(&self) -> (u64, u64) {
        self.trace.borrow().sum()
    }

    pub(super) fn add_timer(&self, at: Instant, waker: Waker) -> TimerKey {
        self.add(at, Event::Wake(waker))
    }

    pub(super) fn add_arrival(&self, at: Instant, arrival: Arrival) {
        self.add(at, Event::Arrive(arrival));
    }

    fn add(&self, at: Instant, event: Event) -> TimerKey {
        let key = (at, self.next_event.get());
        self.next_event.set(key.1 + 1);
        self.events.borrow_mut().insert(key, event);
        key
    }

    pub(super) fn renew_timer(&self, key: TimerKey, waker: Waker) {
        self.events.borrow_mut().insert(key, Event::Wake(waker));
    }

    pub(super) fn remove_timer(&self, key: TimerKey) {
        self.events.borrow_mut().remove(&key);
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
        self.polls_now.set(0);
        // All of this instant at once: who goes first is the seed's choice, not the timers'.
        while self.next_deadline() == Some(at) {
            let fired = self.events.borrow_mut().pop_first();
            match fired {
                Some((_, Event::Wake(waker))) => waker.wake(),
                Some((_, Event::Arrive(arrival))) => arrival.arrive(self),
                None => {}
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.events
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
    // At thread exit it may be gone before those who ask.
    CURRENT
        .try_with(|current| current.borrow().clone())
        .ok()
        .flatten()
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
    tasks: Mutex<Ready>,
    is_filled: Condvar,
}

#[derive(Debug, Default)]
struct Ready {
    tasks: Vec<TaskId>,
    /// By task: whether it is among them.
    is_listed: Vec<bool>,
    /// Whether the executor's thread sleeps: waking it is a system call, and it almost never does.
    is_awaited: bool,
}

impl RunQueue {
    pub(super) fn push(&self, task: TaskId) {
        let mut ready = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_listed.len() <= task {
            ready.is_listed.resize(task + 1, false);
        }
        if !std::mem::replace(&mut ready.is_listed[task], true) {
            ready.tasks.push(task);
        }
        if ready.is_awaited {
            self.is_filled.notify_one();
        }
    }

    /// Draws one task by `choose`, which gets their number.
    pub(super) fn draw(&self, choose: impl FnOnce(usize) -> usize) -> Option<TaskId> {
        let mut ready = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.tasks.is_empty() {
            return None;
        }
        let index = choose(ready.tasks.len());
        let task = ready.tasks.swap_remove(index);
        ready.is_listed[task] = false;
        Some(task)
    }

    /// Waits for a foreign thread to fill the queue; whether it did.
    fn wait(&self, limit: Duration) -> bool {
        let mut ready = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        ready.is_awaited = true;
        let waited = self
            .is_filled
            .wait_timeout_while(ready, limit, |ready| ready.tasks.is_empty());
        let (mut ready, _) = waited.unwrap_or_else(PoisonError::into_inner);
        ready.is_awaited = false;
        !ready.tasks.is_empty()
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
