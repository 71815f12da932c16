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

/// The engine has three rings and registers its arena with each, so it is charged three times.
const RINGS_PER_EXECUTOR: usize = 3;

/// Arena of registered I/O memory per executor. What does not fit is served from the heap: slower
/// by one page pin per request, never refused.
pub const REGISTERED_MEMORY: usize = 512 << 10;

/// Entries of the submission queue. It bounds what one call submits, not the requests in flight: what does
/// not fit waits in user memory until the next turn.
pub const RING_DEPTH: u32 = 256;

/// Entries of each ring of the engine, which carry nothing but its own timers.
pub const ENGINE_RING_DEPTH: usize = 16;

/// How often the engine turns its own rings: almost never. An executor that the kernel pauses for this long
/// at the wrong moment would sleep with tasks to run.
pub const PREEMPT_INTERVAL: Duration = Duration::from_hours(24);

/// Rounds of the run queue for which tasks that never rest keep I/O waiting.
pub const ROUNDS_MAX: u32 = 32;

/// How long an executor waits at its end for I/O that is in flight.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// Shortest sleep.
pub const YIELD_INTERVAL: Duration = Duration::from_micros(1);

/// Live tasks of one executor. Tasks are per connection, copyset or volume, never per request.
pub const TASKS_MAX: usize = 1 << 20;

/// Bytes reserved by a socket read that finds no spare room.
pub const READ_CHUNK: usize = 64 << 10;

/// Slices handed to the kernel by one vectored send (`UIO_MAXIOV`).
pub const SEND_SLICES_MAX: usize = 1024;

/// Pieces of memory that one write takes (`UIO_MAXIOV`).
pub const WRITE_PIECES_MAX: usize = 1024;

/// Bytes written at once while zero-filling a file.
pub const ZERO_FILL_CHUNK: usize = 1 << 20;

/// Lengths of the pieces of memory for transfers: a block, a small payload, a few extents, the longest payload.
pub const TRANSFER_PIECES: [usize; 4] = [4 << 10, 16 << 10, 128 << 10, 1 << 20];

/// Eighths of that memory for each: there are many short ones and few long ones.
pub const TRANSFER_SHARES: [usize; 4] = [1, 1, 2, 4];

/// Where it begins: with a huge page, of which adapters need to know less.
pub const TRANSFER_ALIGNMENT: usize = 2 << 20;

const _: () = assert!(
    REGISTERED_MEMORY * RINGS_PER_EXECUTOR * EXECUTORS_PER_BUDGET <= MEMLOCK_BUDGET * 3 / 4,
    "a quarter of the budget stays free for the rings and for the embedder"
);
const _: () = assert!(TRANSFER_PIECES[0].is_multiple_of(BUFFER_ALIGNMENT));
const _: () = assert!(MEMLOCK_MIN <= MEMLOCK_BUDGET);
const _: () = assert!(REGISTERED_MEMORY.is_multiple_of(BUFFER_ALIGNMENT));
const _: () = assert!(ZERO_FILL_CHUNK.is_multiple_of(BUFFER_ALIGNMENT));
const _: () = assert!(YIELD_INTERVAL.as_nanos() > 0);
const _: () = assert!(ROUNDS_MAX > 0);
