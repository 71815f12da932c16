//! Everything a shard needs from the machine: tasks, timers, files, sockets, channels, threads.
//!
//! **Place.** The lowest layer of the data plane. It is the only crate that names the executor;
//! everything above speaks this vocabulary. Two engines stand behind one contract, chosen at
//! compile time: io_uring on real hardware, and with `--cfg ogee_sim` a deterministic one with a
//! virtual clock, in-memory files and an in-process network.
//!
//! **Owner.** One executor per thread. All types are single-threaded (`Rc`) unless they say
//! otherwise; only [`bridge`] and [`executor`] cross threads.
//!
//! **Invariants.** No call blocks the thread. Wakers may be cloned without limit and woken from any
//! thread. A task that is cancelled has dropped its future before the cancelling call returns.
//!
//! **Failure.** I/O errors are `std::io::Error` with the system's code. Bugs panic; a panic in any
//! task ends its shard (the daemons abort), it is never swallowed.

pub mod area;
mod buffer;
mod engine;
#[cfg(all(feature = "readiness", not(ogee_sim)))]
mod readiness;
mod task;
mod time;

pub mod bridge;
pub mod channel;
pub mod executor;
pub mod file;
pub mod limit;
pub mod net;
pub mod seeded;
#[cfg(not(ogee_sim))]
pub mod transfer;

pub use buffer::{Buffer, Gather, Lease, Loan, Payload, ReadBuffer, Target};
pub use engine::random_u64;
#[cfg(ogee_sim)]
pub use engine::sim;
#[cfg(all(feature = "readiness", not(ogee_sim)))]
pub use readiness::Readiness;
pub use task::{Cancelled, JoinHandle, ScopedTask, spawn, spawn_scoped, yield_now};
pub use time::{Elapsed, Instant, Sleep, Timeout, now, sleep, sleep_until, suspended_time};
pub use time::{timeout, timeout_at};
