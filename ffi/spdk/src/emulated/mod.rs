//! Drives in memory behind the shim's functions, which fail on demand.
//!
//! *Place*: what stands under the safe API where there is no SPDK: in the tests of everything above it. *Owner*: drives are
//! the process's, by address, until they are dropped; they outlive who uses them, as real ones do.
//! *Invariants*: it is stricter than SPDK. It takes no command that is longer than the drive takes or has more segments, none
//! whose memory was not taken from it, and no queue from another thread than opened it. A command has its effect when it
//! completes, not when it is submitted, and completes no sooner than at the second poll. What is in the volatile cache
//! is lost with power. What is deallocated reads as garbage, unless the drive says that it reads as zeros, and even
//! then only some of it is. *On failure*: what was asked for by [`EmulatedDrive`].
//!
//! | module | holds |
//! |---|---|
//! | `drive` | a drive: its data, its queues, what it was told to do |
//! | `memory` | memory that drives can reach |
//! | `vitals` | what it says of its health |
//! | `table` | the shim's functions |

mod drive;
mod memory;
mod table;
mod vitals;

pub use drive::{DriveCounts, DriveOptions, EmulatedDrive};
pub(crate) use table::table;
pub use vitals::DriveVitals;
