//! Load for a volume and what came of it: the library behind `ogee bench`.
//!
//! *Place*: above the client; the command line gives a [`Workload`] and prints a [`Report`].
//! *Owner*: the shard that calls [`run`]; every lane is a task of it.
//! *Invariants*: at most `jobs · iodepth` requests are under way; a run of the same seed asks for
//! the same addresses, lane by lane; no two writes carry the same bytes.
//! *On failure*: the first error stops the run and is its result. A run never reports figures of
//! requests that failed.
//!
//! | module | holds |
//! |---|---|
//! | `workload` | [`Workload`]: what to do, checked into a plan |
//! | `address` | where the next request goes |
//! | `stamp` | payloads that tell where and when they were written |
//! | `verify` | what each place must hold |
//! | `pacer` | the rate limit |
//! | `run` | lanes, clock, progress |
//! | `tally`, `report` | latencies → figures, JSON with fio's keys, a table |
//! | `target` | what a run needs of a volume |

mod address;
mod error;
mod limit;
mod pacer;
mod report;
mod run;
mod stamp;
mod tally;
mod target;
mod verify;
mod workload;

pub use error::{Found, PerfError, WorkloadError};
pub use report::{Latency, Percentiles, Report, Side};
pub use run::{Progress, run};
pub use target::Target;
pub use workload::{Rw, RwParseError, Stop, Workload};
