//! A device in memory with a volatile cache, and a handle that makes it crash.
//!
//! *Place*: a backend for tests and the simulator. *Owner*: one shard; the control shares it.
//! *Invariants*: what a read sees is the newest write that was submitted. What survives a crash is,
//! sector by sector, the newest durable version or any version written after it: order between
//! sectors and between writes is promised only by durability, as on a real drive.
//! *On failure*: none of its own: put the fault decorator before it. Memory grows with what is
//! written and with what is not yet flushed.

mod backend;
mod control;
#[cfg(ogee_sim)]
mod disk;
mod history;
mod image;
mod random;

pub(crate) use backend::MemoryDevice;
pub use control::{MemoryControl, Survivors};
#[cfg(ogee_sim)]
pub(crate) use disk::DiskUser;
#[cfg(ogee_sim)]
pub use disk::{DiskCounts, DiskCrash, DiskFaults, SimulatedDisk};

#[cfg(test)]
mod model;
