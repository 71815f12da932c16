//! Frames over RDMA verbs. The protocol stands in docs/rdma.md.
//!
//! *Place*: beside the byte streams, over `ogee_rdma`. *Owner*: one port per executor and device, made at the first use;
//! its pump is one task. Each connection is a `Wire` with one task of its own, its driver.
//!
//! *Invariants*
//! 1. Receive buffers that peers may use are never more than the queue holds; the queue is full between two turns.
//! 2. Only the opener of a connection lends memory; it touches it again only when its key is void.
//! 3. A payload that is handed up cannot be changed by anybody.
//! 4. Nothing waits for memory that a user holds: what is short is copied to the heap, or sent in parts.
//!
//! *On failure*: a connection ends alone, by the first thing that failed on it. A port whose completion queue is
//! broken ends all of its connections, and the next use opens another one.

#[cfg(feature = "rdma")]
mod areas;
#[cfg(feature = "rdma")]
mod connect;
#[cfg(feature = "rdma")]
mod driver;
#[cfg(feature = "rdma")]
mod fault;
#[cfg(feature = "rdma")]
mod grants;
#[cfg(any(feature = "rdma", feature = "fuzzing"))]
#[cfg_attr(
    not(feature = "rdma"),
    expect(dead_code, reason = "fuzzing decodes only")
)]
mod head;
#[cfg(feature = "rdma")]
mod inbox;
#[cfg(feature = "rdma")]
mod incoming;
#[cfg(feature = "rdma")]
mod late;
#[cfg_attr(
    not(feature = "rdma"),
    expect(dead_code, reason = "only what a port needs is asked for")
)]
mod limit;
#[cfg(feature = "rdma")]
mod mailbox;
mod needs;
#[cfg(feature = "rdma")]
mod offer;
#[cfg(feature = "rdma")]
mod options;
#[cfg(feature = "rdma")]
mod outgoing;
#[cfg(feature = "rdma")]
mod piece;
#[cfg(feature = "rdma")]
mod port;
#[cfg(feature = "rdma")]
mod wire;

pub use crate::options::RdmaOptions;
#[cfg(feature = "rdma")]
pub use fault::{RdmaFault, Trouble, Unable};
pub use needs::RdmaNeeds;
#[cfg(feature = "rdma")]
pub use options::configure;

#[cfg(feature = "rdma")]
pub(crate) use connect::{RdmaListener, Request, connect, exchange, options};
#[cfg(feature = "rdma")]
pub(crate) use driver::run;
#[cfg(feature = "rdma")]
pub(crate) use wire::Wire;

/// The front of a message, if it is valid, as it is written again.
#[cfg(feature = "fuzzing")]
pub(crate) fn decode_prefix(bytes: &[u8]) -> Result<Vec<u8>, ogee_proto::wire::WireError> {
    head::Prefix::decode(bytes).map(|prefix| prefix.encode().to_vec())
}
