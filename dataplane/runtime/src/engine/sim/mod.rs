//! The deterministic engine, chosen by `--cfg ogee_sim`.
//!
//! **Place.** Under the public modules of this crate, in place of the io_uring engine. Everything
//! above runs unchanged: production code against a hostile but repeatable world.
//!
//! **Owner.** One world per executor, on one thread: its clock, run queue, files and network.
//!
//! **Invariants.** The same seed gives the same run: the next task is drawn from a seeded generator,
//! time stands still while a task can run and then jumps to the next timer, latencies and the size
//! of socket reads come from the same generator. Threads that reach in through `bridge` break this;
//! simulations do not use them. Tasks belong to simulated hosts, which have clocks and links of their
//! own and can be stopped and killed at an exact moment.
//!
//! **Failure.** A world where nothing can ever happen again panics and names its seed, as does any
//! panic inside.

mod executor;
mod file;
mod host;
mod memory;
mod net;
mod rng;
mod timer;
mod trace;
mod world;

pub(crate) use executor::{Config, Executor, spawn};
pub use executor::{block_on_seeded, spawn_on};
pub(crate) use file::{File, OpenMode};
pub use host::{Death, HostId, go_on, kill, power_up, set_clock_rate, stop};
pub(crate) use memory::{Memory, ReadMemory};
pub use net::{
    Chunk, Link, LinkCounts, Route, Tamper, break_connections, link_counts, set_link, set_tamper,
};
pub(crate) use net::{Listener, Socket};
pub(crate) use timer::{Timer, now, suspended_time, yield_now};

/// Where the tasks of a world live: on its thread. Who reaches in by `bridge` breaks repetition, but gets there.
pub(crate) struct Home;

impl Home {
    #[expect(clippy::unused_self, reason = "the contract of both engines")]
    pub(crate) const fn is_here(&self) -> bool {
        true
    }

    #[expect(clippy::unused_self, reason = "the contract of both engines")]
    pub(crate) fn ring(&self, waker: std::task::Waker) {
        waker.wake();
    }
}

/// See [`Home`].
pub(crate) const fn home() -> Home {
    Home
}

/// A random number from the world's seed.
///
/// # Panics
/// Outside of an executor.
pub fn random_u64() -> u64 {
    world::current().random()
}

/// Whose task runs: what a cancelled scope is named by.
pub(crate) type Scope = HostId;

/// The scope of tasks that are spawned now.
pub(crate) fn current_scope() -> Scope {
    world::try_current().map_or(HostId::WORLD, |world| world.host())
}

/// A fingerprint of everything that has happened in this world, and the number of its steps.
///
/// # Panics
/// Outside of an executor.
pub fn trace() -> (u64, u64) {
    world::current().trace()
}

/// Time since the world began, by its own clock.
pub fn world_time() -> std::time::Duration {
    world::try_current().map_or(std::time::Duration::ZERO, |world| {
        world.now().duration_since(world::epoch())
    })
}

/// Whose task runs.
pub fn host() -> HostId {
    current_scope()
}
