//! Block devices: 4 KiB-aligned reads and writes with durability said per call.
//!
//! *Place*: below the log and the store, above the runtime. [`Device`] is the one handle; which
//! backend stands behind it is chosen once, at construction.
//! *Owner*: the shard that opened it. A device belongs to one process at a time: opening claims it.
//! *Invariants*: a request is aligned and within the device before a backend sees it; what `write`
//! wrote is visible to every later read; what `write_durable` wrote, and what was written before a
//! `flush` began, survives power loss once that call has returned `Ok`.
//! *On failure*: a [`DeviceError`] that names the device and the range. After a failed write or
//! flush the contents of the range are unknown; nothing is retried here, and the caller may not
//! take a later success for an earlier one.
//!
//! | module | holds |
//! |---|---|
//! | `device` | [`Device`]: checks, counters, dispatch |
//! | `pace` | how long requests take |
//! | `uring` | files and block devices with `O_DIRECT` |
//! | `nvme` | NVMe drives without the kernel (feature `spdk`) |
//! | `memory` | a device in RAM that forgets what was not flushed, when told to crash |
//! | `fault` | a decorator that makes another device fail on purpose |
//! | `target` | what is looked at before a path is opened |
//! | `below` | which block device a path stands on |
//! | `conformance` | the contract as a test suite (feature `conformance`) |

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod limit;

mod backend;
mod below;
mod counters;
mod device;
mod error;
mod fault;
mod health;
mod memory;
pub mod nvme;
mod operation;
mod pace;
mod request;
#[cfg(test)]
mod suite;
mod target;
mod uring;

pub use below::{disk_of, number_below, whole_disk};
pub use counters::DeviceCounters;
pub use device::Device;
pub use error::DeviceError;
pub use fault::{Failure, FaultControl, FaultCounts, FaultPlan, FaultRule, RuleId};
pub use health::DriveHealth;
#[cfg(ogee_sim)]
pub use memory::{DiskCounts, DiskCrash, DiskFaults, SimulatedDisk};
pub use memory::{MemoryControl, Survivors};
pub use nvme::{Notice, NvmeFault, NvmeName, NvmeOptions, NvmeVitals};
pub use operation::{Operation, Operations};
pub use pace::{Flow, Pace};
pub use target::OpenOptions;
