//! Limits of the runtime, each with its reason.
//!
//! **Place.** Read by every module of this crate. **Owner.** Constants. **Invariants.** Asserted at
//! compile time below. **Failure.** Exceeding a limit is a value or an assertion, said per limit.

use std::time::Duration;

/// Alignment of every [`crate::Buffer`]: the largest logical block of the devices we support.
pub const BUFFER_ALIGNMENT: usize = 4096;

/// Smallest unit in which direct I/O may be addressed; devices with larger sectors refuse it.
pub const DIRECT_IO_UNIT: u64 = 512;

/// Locked memory that three executors must share: the usual `RLIMIT_MEMLOCK` of an unprivileged
/// process.
pub const MEMLOCK_BUDGET: usize = 8 << 20;

/// Below this `RLIMIT_MEMLOCK` the engine makes no executor, also for those whom the limit does not bind.
pub const MEMLOCK_MIN: usize = 512 << 10;

/// Executors that must start within [`MEMLOCK_BUDGET`]: a development cluster of three nodes.
pub const EXECUTORS_PER_BUDGET: usize = 3;

/// An executor drives three rings and registers its arena with each, so it is charged three times.
const RINGS_PER_EXECUTOR: usize = 3;

/// Arena of registered I/O memory per executor. What does not fit is served from the heap: slower
/// by one page pin per request, never refused.
pub const REGISTERED_MEMORY: usize = 512 << 10;

/// Entries of each submission ring. It bounds one batch, not the requests in flight: what does not
/// fit waits in user memory until the next turn.
pub const RING_DEPTH: usize = 128;

/// Longest time that runnable tasks keep I/O waiting. Short ones are dangerous: an executor that the
/// kernel pauses for this long at the wrong moment goes to sleep with tasks to run (see
/// `SENTRY_INTERVAL`); at 1 ms a busy machine did it within seconds.
pub const PREEMPT_INTERVAL: Duration = Duration::from_millis(20);

/// Longest sleep of an executor. It bounds the harm of a wake-up that the engine forgets; an idle
/// executor pays for it with this many turns.
pub const SENTRY_INTERVAL: Duration = Duration::from_millis(10);

/// Sentries that take turns: all but one may themselves be among the forgotten.
pub const SENTRIES: u32 = 3;

/// Shortest timer that makes the executor run its rings; a zero-length one would be ready at once.
pub const YIELD_INTERVAL: Duration = Duration::from_micros(1);

/// Live tasks of one executor. Tasks are per connection, copyset or volume, never per request.
pub const TASKS_MAX: usize = 1 << 20;

/// Bytes reserved by a socket read that finds no spare room.
pub const READ_CHUNK: usize = 64 << 10;

/// Slices handed to the kernel by one vectored send (`UIO_MAXIOV`).
pub const SEND_SLICES_MAX: usize = 1024;

/// Bytes written at once while zero-filling a file.
pub const ZERO_FILL_CHUNK: usize = 1 << 20;

const _: () = assert!(
    REGISTERED_MEMORY * RINGS_PER_EXECUTOR * EXECUTORS_PER_BUDGET <= MEMLOCK_BUDGET * 3 / 4,
    "a quarter of the budget stays free for the rings and for the embedder"
);
const _: () = assert!(MEMLOCK_MIN <= MEMLOCK_BUDGET);
const _: () = assert!(REGISTERED_MEMORY.is_multiple_of(BUFFER_ALIGNMENT));
const _: () = assert!(ZERO_FILL_CHUNK.is_multiple_of(BUFFER_ALIGNMENT));
const _: () = assert!(YIELD_INTERVAL.as_nanos() > 0);
const _: () = assert!(SENTRY_INTERVAL.as_nanos() <= PREEMPT_INTERVAL.as_nanos());
