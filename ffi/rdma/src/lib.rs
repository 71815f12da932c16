//! RDMA verbs and connection management: raw symbols → owners → a safe API.
//!
//! *Place*: under `ogee_transport`'s RDMA carrier and `ogee doctor`. *Owner*: everything belongs to the thread
//! that made it (nothing here is `Send`); a shard has one [`Rail`], its connections are [`Pair`]s on it.
//! *Invariants*: memory that hardware may touch is not reachable from Rust: posting takes the [`Piece`], its
//! completion gives it back (of a send that hardware does not tell of, one that it does tell of behind it); what a peer may touch is a [`Lent`] until its key is void. Everything is destroyed
//! in the order that verbs demand, because each owner holds what it was made from. Nothing blocks: whoever
//! waits does so for the file descriptors of [`Channel`], [`Rail`] and [`Domain`].
//! *On failure*: an [`RdmaError`] that names the call and the remedy.
//!
//! rdma-core is looked up when [`Domain::open`] or [`Channel::new`] is called first, not linked, so a program
//! with this in it starts where rdma-core is missing and says so. Types are `rdma-sys`'s; none of its functions
//! is called, since each would bind the program to the libraries.
//!
//! Without the feature `verbs` only what the kernel tells of addresses is here.
#![cfg_attr(not(feature = "verbs"), allow(rustdoc::broken_intra_doc_links))]

#[cfg(feature = "verbs")]
mod api;
#[cfg(feature = "verbs")]
mod chain;
#[cfg(feature = "verbs")]
mod channel;
#[cfg(feature = "verbs")]
mod device;
#[cfg(feature = "verbs")]
mod domain;
#[cfg(feature = "verbs")]
mod error;
#[cfg(feature = "verbs")]
mod events;
#[cfg(feature = "verbs")]
mod id;
#[cfg(feature = "verbs")]
mod ledger;
#[cfg(feature = "verbs")]
mod pair;
#[cfg(feature = "verbs")]
mod rail;
#[cfg(feature = "verbs")]
mod region;
mod remote;
#[cfg(feature = "verbs")]
mod slab;
mod sysfs;
#[cfg(feature = "verbs")]
mod window;

pub use remote::RemoteMemory;
#[cfg(feature = "verbs")]
pub use sysfs::device_with;
pub use sysfs::{Gid, GidKind};
#[cfg(feature = "verbs")]
pub use {
    chain::{PairNumber, Tell},
    channel::{Channel, Event, EventKind},
    device::{DeviceInfo, PortInfo, PortState, devices},
    domain::{AsyncEvent, DeviceEvent, Domain},
    error::{Failed, RdmaError, WorkError},
    events::Watch,
    id::{ConnectParams, Id, IdKey},
    pair::Pair,
    rail::{Completion, Done, Rail, RailLimits},
    region::{Part, Region},
    slab::{Piece, Shared, Slab, Source},
    window::{Access, Lent},
};
