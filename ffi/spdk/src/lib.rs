//! NVMe by polling, through an installed SPDK: raw symbols → owners → a safe API.
//!
//! *Place*: under `ogee_device`'s NVMe backend. *Owner*: a [`Controller`], its [`Admin`], [`QueuePair`]s and [`Slab`]s
//! belong to the thread that made them (none is `Send`), which is what SPDK wants: one thread at a time for each queue
//! pair, one for admin completions. [`Env`] is the process's.
//! *Invariants*: memory that the drive may touch is not reachable from Rust: submitting takes the [`Transfer`], the
//! completion gives it back. What is still with the drive when a queue pair ends is waited for, then lost rather than
//! freed. Each owner holds what it was made from, so everything ends in the order that SPDK demands. No drive is touched
//! that [`Env::start`] was not given. *On failure*: an [`SpdkError`] that says what to do; of a command, its [`Status`].
//!
//! | module | holds |
//! |---|---|
//! | `abi` | the shim's functions and types |
//! | `env` | [`Env`]: SPDK's environment, or the emulated one |
//! | `controller` | [`Controller`], [`Namespace`], [`Admin`] |
//! | `queue` | [`QueuePair`]: commands in, completions out |
//! | `page` | a log page on its way |
//! | `slab` | memory that drives can reach |
//! | `address` | PCI addresses |
//! | `emulated` | drives in memory behind the same functions, which fail on demand (feature `emulated`) |

#[cfg_attr(
    not(any(test, feature = "emulated", feature = "spdk")),
    expect(dead_code, reason = "nobody implements it then")
)]
mod abi;
mod address;
mod controller;
#[cfg(any(test, feature = "emulated"))]
mod emulated;
mod env;
mod error;
mod page;
mod queue;
mod slab;

pub use address::PciAddress;
pub use controller::{Admin, Controller, Health, Namespace, Notice};
#[cfg(any(test, feature = "emulated"))]
pub use emulated::{DriveCounts, DriveOptions, DriveVitals, EmulatedDrive};
pub use env::{Env, has_spdk};
pub use error::{SpdkError, Status};
pub use page::HealthPage;
pub use queue::{Command, Completion, Kind, QueuePair, Refused};
pub use slab::{Piece, Slab, Transfer};
