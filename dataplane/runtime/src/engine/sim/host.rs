//! Simulated hosts: who a task belongs to, how its clock runs, and how it dies.
//!
//! **Place.** Under the executor, the timers and the network. **Owner.** The world.
//!
//! **Invariants.** A task belongs to the host of the task that spawned it, for life. Host 0 is the
//! simulation itself: its clock is the world's and it never dies. A host's clock never goes back.
//!
//! **Failure.** A killed host's tasks are gone when [`kill`] returns; what they leave on disks and
//! in the network is for those to say.

use std::time::Duration;

use super::world::{self, TaskId};
use crate::task;
use crate::time::Instant;

/// A simulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HostId(u32);

impl HostId {
    /// The simulation itself.
    pub const WORLD: Self = Self(0);

    /// A machine by number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// How the tasks of a host end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process is killed: the system closes its sockets.
    Process,
    /// The machine loses power: its peers hear nothing.
    Power,
}

/// Parts per million in one.
const MILLION: u128 = 1_000_000;

/// What the world knows of a host.
#[derive(Debug)]
pub(super) struct Host {
    /// Lost power and was not started since.
    pub(super) is_dark: bool,
    /// Its tasks are not polled.
    pub(super) is_stopped: bool,
    /// What its clock showed when it was stopped.
    stopped_at: Duration,
    /// Tasks that could have run meanwhile.
    parked: Vec<TaskId>,
    clock: Clock,
}

/// A clock that runs at its own rate.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// World time at which the rate began.
    since: Duration,
    /// What the clock showed then.
    shown: Duration,
    /// Parts per million of the world's rate.
    rate: u32,
    /// Time that the host slept through with its clock standing.
    suspended: Duration,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            is_dark: false,
            is_stopped: false,
            stopped_at: Duration::ZERO,
            parked: Vec::new(),
            clock: Clock {
                since: Duration::ZERO,
                shown: Duration::ZERO,
                rate: 1_000_000,
                suspended: Duration::ZERO,
            },
        }
    }
}

impl Clock {
    fn shows(&self, world: Duration) -> Duration {
        let passed = world.saturating_sub(self.since).as_nanos();
        self.shown + nanos(passed * u128::from(self.rate) / MILLION)
    }

    /// When in world time the clock will show `shown`, rounded up.
    fn when(&self, shown: Duration) -> Duration {
        let ahead = shown.saturating_sub(self.shown).as_nanos();
        self.since + nanos((ahead * MILLION).div_ceil(u128::from(self.rate)))
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

impl Host {
    pub(super) fn park(&mut self, task: TaskId) {
        self.parked.push(task);
    }

    /// What its clock shows at a moment of the world.
    pub(super) fn shows(&self, world: Instant) -> Instant {
        world::epoch() + self.clock.shows(world - world::epoch())
    }

    /// The moment of the world at which its clock will show this.
    pub(super) fn when(&self, shown: Instant) -> Instant {
        let shown = shown.saturating_duration_since(world::epoch());
        world::epoch() + self.clock.when(shown)
    }

    pub(super) fn suspended(&self) -> Duration {
        self.clock.suspended
    }
}

/// Drops all tasks of a host, now. It can be used again at once.
///
/// # Panics
/// If the host runs the caller.
pub fn kill(host: HostId, death: Death) {
    let world = world::current();
    assert!(
        host != world.host() && host != HostId::WORLD,
        "a host cannot kill itself"
    );
    world.network.borrow_mut().host_dies(host, death);
    let caller = world.enter_host(host);
    task::cancel_scope(host);
    world.enter_host(caller);
    let mut hosts = world.hosts.borrow_mut();
    let state = hosts.entry(host).or_default();
    state.is_dark = death == Death::Power;
    state.is_stopped = false;
    // Their drivers only have to notice.
    for task in std::mem::take(&mut state.parked) {
        world.ready.push(task);
    }
}

/// A host that lost power has it again: its system answers, though nothing runs.
pub fn power_up(host: HostId) {
    let world = world::current();
    world.hosts.borrow_mut().entry(host).or_default().is_dark = false;
}

/// Stops polling a host's tasks; its clock and its system run on, as after SIGSTOP.
pub fn stop(host: HostId) {
    let world = world::current();
    let now = world.now() - world::epoch();
    let mut hosts = world.hosts.borrow_mut();
    let state = hosts.entry(host).or_default();
    state.is_stopped = true;
    state.stopped_at = state.clock.shows(now);
}

/// Goes on where [`stop`] stopped. With `slept`, the host's clock has been standing for so long of that
/// time, as after a suspend to memory.
pub fn go_on(host: HostId, slept: Duration) {
    let world = world::current();
    let now = world.now() - world::epoch();
    let mut hosts = world.hosts.borrow_mut();
    let state = hosts.entry(host).or_default();
    state.is_stopped = false;
    let shown = state.clock.shows(now);
    let slept = slept.min(shown.saturating_sub(state.stopped_at));
    let shown = shown - slept;
    state.clock = Clock {
        since: now,
        shown,
        suspended: state.clock.suspended + slept,
        ..state.clock
    };
    for task in std::mem::take(&mut state.parked) {
        world.ready.push(task);
    }
}

/// Lets a host's clock run at `rate` parts per million of the world's from now on.
///
/// # Panics
/// If the clock is to stand.
pub fn set_clock_rate(host: HostId, rate: u32) {
    assert!(rate > 0, "a standing clock never fires");
    let world = world::current();
    let now = world.now() - world::epoch();
    let mut hosts = world.hosts.borrow_mut();
    let state = hosts.entry(host).or_default();
    let shown = state.clock.shows(now);
    state.clock = Clock {
        since: now,
        shown,
        rate,
        ..state.clock
    };
}
