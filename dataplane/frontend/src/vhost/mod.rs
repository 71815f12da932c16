//! The vhost-user-blk server: a volume as the disk of a virtual machine.
//!
//! *Place*: a protocol over `align`, as NBD is. *Owner*: one shard for each disk, and a thread for each connected VM, which
//! speaks the control protocol. *Invariants*: the guest is hostile: what it shares is copied once, then checked. A bad
//! ring stops that ring, a bad message that connection, never the process or another disk. *On failure*: see the parts.
//!
//! | file | holds |
//! |---|---|
//! | `server` | one disk behind one socket: accepting, stopping, growing |
//! | `control`, `notifier` | what the VM's process says, on its thread; what it is told |
//! | `order`, `device` | from that thread to the shard: rings start and stop there |
//! | `queue`, `patience` | one virtqueue at work: requests taken, answers published; how long it looks before it sleeps |
//! | `ring`, `chain`, `request` | the split ring; descriptors → memory; memory → what is asked |
//! | `execute` | a request on its disk |
//! | `inflight` | the record that lets a restarted server go on |
//! | `memory`, `signal`, `config`, `fault`, `metrics` | guest memory; event descriptors; what is offered; what can go wrong; counters |
//!
//! The specifications are "Virtual I/O Device (VIRTIO) Version 1.2" of OASIS and QEMU's "Vhost-user Protocol".
//! Protocol messages and mapped memory are rust-vmm's (`vhost`, `vm-memory`).

// There only what is fuzzed is called.
#![cfg_attr(ogee_sim, allow(dead_code))]

mod chain;
mod config;
mod fault;
mod inflight;
mod memory;
mod request;
mod ring;

// What needs threads and descriptors, which the simulator has not.
#[cfg(not(ogee_sim))]
mod control;
#[cfg(not(ogee_sim))]
mod device;
#[cfg(not(ogee_sim))]
mod execute;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(not(ogee_sim))]
mod metrics;
#[cfg(not(ogee_sim))]
mod notifier;
#[cfg(not(ogee_sim))]
mod order;
#[cfg(not(ogee_sim))]
mod patience;
#[cfg(not(ogee_sim))]
mod queue;
#[cfg(not(ogee_sim))]
mod server;
#[cfg(not(ogee_sim))]
mod signal;

#[cfg(not(ogee_sim))]
pub use metrics::DiskSnapshot;
#[cfg(not(ogee_sim))]
pub use server::{DiskOptions, DiskServer, DiskServerError, OptionsError};
