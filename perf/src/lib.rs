//! Load for volumes, devices, NBD exports and disks of virtual machines, and what came of it: the library behind `ogee bench`.
//!
//! *Place*: above the client; the command line gives a [`Workload`] and prints a [`Report`].
//! *Owner*: the shard that calls [`run`]; every lane is a task of it.
//! *Invariants*: at most `jobs · iodepth` requests are under way on each target; a run of the same
//! seed asks for the same addresses, lane by lane; no two writes carry the same bytes. An open loop
//! counts latency from when a request was due: a stall is not omitted.
//! *On failure*: the first error stops the run and is its result. A run never reports figures of
//! requests that failed.
//!
//! | module | holds |
//! |---|---|
//! | `workload` | [`Workload`]: what to do, checked into a plan |
//! | `rw`, `sizes`, `distribution`, `arrivals` | its parts: [`Rw`], [`Sizes`], [`Distribution`], [`Arrivals`] |
//! | `scenario` | [`Spec`]: a workload as a file or flags give it; the named ones |
//! | `address` | what the next request is |
//! | `stamp` | payloads that tell where and when they were written |
//! | `verify` | what each place must hold |
//! | `pacer` | the rate limits |
//! | `run`, `lane` | clock and progress; what lanes do |
//! | `tally`, `sample` | latencies → figures, of the run and of each second |
//! | `report` | [`Report`]: JSON with fio's keys, a table |
//! | `csv`, `page`, `chart` | the series as CSV; the report as a page |
//! | `compare` | two reports, or many in turn, → a verdict |
//! | `curve` | [`Curve`]: figures while one thing is varied |
//! | `cost` | [`CostReport`]: what else servers did for a request |
//! | `cpu` | [`CpuMeter`]: what the processes used |
//! | `target`, `nbd`, `vhost` | what a run needs of a target, and the kinds there are |

mod address;
mod arrivals;
mod chart;
mod compare;
mod cost;
mod cpu;
mod csv;
mod curve;
mod distribution;
mod error;
mod figure;
mod lane;
mod limit;
mod nbd;
mod pacer;
mod page;
mod report;
mod run;
mod rw;
mod sample;
mod scenario;
mod sizes;
mod stamp;
mod tally;
mod target;
mod verify;
mod vhost;
mod workload;

pub use arrivals::{Arrivals, Process, ProcessError};
pub use compare::{Comparison, Metric, Row, Verdict};
pub use cost::CostReport;
pub use cpu::{CpuError, CpuMeter, CpuReport, ProcessCpu};
pub use curve::{Curve, curves_html};
pub use distribution::{Distribution, DistributionError};
pub use error::{Found, PerfError, WorkloadError};
pub use figure::{human_count, human_ns};
pub use nbd::{NbdAddress, NbdClient, NbdError, NbdServer};
pub use report::{Latency, Percentiles, Report, ReportError, Side};
pub use run::{Watch, run};
pub use rw::{Rw, RwParseError};
pub use sample::{Sample, SideSample};
pub use scenario::{Event, EventKind, ScenarioError, Spec};
pub use sizes::{SizeMix, Sizes, SizesError};
pub use target::{AnyTarget, Pieces, Target, TargetError};
pub use vhost::{VhostClient, VhostError};
pub use workload::{Stop, Workload};
