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
//! simulations do not use them.
//!
//! **Failure.** A world where nothing can ever happen again panics and names its seed, as does any
//! panic inside.

mod executor;
mod file;
mod memory;
mod net;
mod rng;
mod timer;
mod world;

pub use executor::block_on_seeded;
pub(crate) use executor::{Config, Executor, spawn};
pub(crate) use file::{File, OpenMode};
pub(crate) use memory::{Memory, ReadMemory};
pub(crate) use net::{Listener, Socket};
pub(crate) use timer::{Timer, now, suspended_time, yield_now};

/// A random number from the world's seed.
///
/// # Panics
/// Outside of an executor.
pub fn random_u64() -> u64 {
    world::current().random()
}
