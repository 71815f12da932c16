//! The io_uring engine: the only code that names glommio.
//!
//! **Place.** Under the public modules of this crate. glommio 0.9.0 has defects that the code here
//! and in `task` works around; each has a test named after it in `tests/glommio_defects.rs`.
//!
//! | defect | answer |
//! |---|---|
//! | the first sleep of a process is 20 ms late | `executor` sleeps once before the main future |
//! | probing IOPOLL on an empty file breaks direct reads | `warmup` opens a non-empty file first |
//! | wakers of a task are counted in 16 bits | `task::waker` holds one and counts clones itself |
//! | dropped pending tasks leak | `task::cell` lets cancelled tasks run to their end |
//! | runnable tasks starve I/O | `yield_now` is a timer; the preemption interval is short |
//! | an executor preempted before its first task sleeps with tasks queued | `executor` posts sentries; `nudge` before them |
//! | spawning polls the new task inside of the call | `executor` lets it wait its turn |
//! | a zero-length timer never yields | `Timer` never makes one |
//! | `DmaFile::create` opens write-only | `file` opens read and write itself |
//! | halves of spsc queues are `Clone` | not used: `bridge` is our own |
//! | 10 MiB of registered memory per ring | `limit::REGISTERED_MEMORY` |
//! | TCP listeners share their port silently | `net` binds without `SO_REUSEPORT` |

mod error;
mod executor;
mod file;
mod memory;
mod net;
mod nudge;
mod sys;
mod timer;
mod warmup;
#[cfg(feature = "readiness")]
mod watch;

pub(crate) use executor::{Config, Executor, spawn};
pub(crate) use file::{File, OpenMode};
pub(crate) use memory::{Memory, ReadMemory};
pub(crate) use net::{Listener, Socket};
pub(crate) use timer::{Timer, now, suspended_time, yield_now};
#[cfg(feature = "readiness")]
pub(crate) use watch::Watch;

/// A random number; the simulator's engine derives it from the seed.
pub fn random_u64() -> u64 {
    rand::random()
}

/// Tasks of a real executor end with it, not one by one: they need no name for where they belong.
pub(crate) type Scope = ();

/// See [`Scope`].
pub(crate) const fn current_scope() -> Scope {}
