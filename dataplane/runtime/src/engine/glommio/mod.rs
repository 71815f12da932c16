//! The io_uring engine: the only code that names glommio.
//!
//! **Place.** Under the public modules of this crate. glommio 0.9.0 has defects that the code here
//! and in `task` works around; each has a test named after it in `tests/glommio_defects.rs`.
//!
//! | defect | answer |
//! |---|---|
//! | its reactor enters the kernel about ten times for each sleep | `driver` sleeps and does the I/O; the engine schedules tasks |
//! | an executor preempted before its first task sleeps with tasks queued | the preemption timer is long: nothing waits for it |
//! | the first sleep of a process is 20 ms late | it never sleeps |
//! | wakers of a task are counted in 16 bits | `task::waker` holds one and counts clones itself |
//! | dropped pending tasks leak | `task::cell` lets cancelled tasks run to their end |
//! | runnable tasks starve I/O | `driver` has a turn after some rounds of the run queue; `yield_now` is a timer |
//! | spawning polls the new task inside of the call | `executor` lets it wait its turn |
//! | probing IOPOLL on an empty file breaks direct reads; `DmaFile::create` opens write-only | `file` uses `driver`'s ring |
//! | TCP listeners share their port silently | `net` binds without `SO_REUSEPORT` |
//! | halves of spsc queues are `Clone` | not used: `bridge` is our own |
//! | 10 MiB of registered memory per ring | `limit::REGISTERED_MEMORY` |

mod blocking;
mod doorbell;
mod driver;
mod error;
mod executor;
mod file;
mod memory;
mod net;
mod ring;
mod spin;
mod sys;
mod timer;
#[cfg(feature = "readiness")]
mod watch;

pub(crate) use doorbell::Home;
pub(crate) use executor::{Config, Executor, spawn};
pub(crate) use file::{File, OpenMode};
pub(crate) use memory::{Memory, ReadMemory};
pub(crate) use net::{Listener, Socket};
pub(crate) use timer::{Timer, now, suspended_time, yield_now};
#[cfg(feature = "readiness")]
pub(crate) use watch::Watch;

/// Where the tasks of this thread's executor live.
///
/// # Panics
/// Outside of an executor.
pub(crate) fn home() -> Home {
    driver::Driver::current().home()
}

/// A random number; the simulator's engine derives it from the seed.
pub fn random_u64() -> u64 {
    rand::random()
}

/// Tasks of a real executor end with it, not one by one: they need no name for where they belong.
pub(crate) type Scope = ();

/// See [`Scope`].
pub(crate) const fn current_scope() -> Scope {}
