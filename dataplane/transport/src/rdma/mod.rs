//! Frames over RDMA verbs. The protocol stands in docs/rdma.md.
//!
//! *Place*: beside the byte streams, over `ogee_rdma`. *Owner*: one [`port`] per executor, made at the first use;
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

mod connect;
mod driver;
mod fault;
mod head;
mod inbox;
mod incoming;
mod limit;
mod mailbox;
mod offer;
mod options;
mod outgoing;
mod piece;
mod port;
mod wire;

pub use fault::{RdmaFault, Unable};
pub use options::{RdmaOptions, configure};

pub(crate) use connect::{RdmaListener, Request, connect, exchange, options};
pub(crate) use driver::run;
pub(crate) use wire::Wire;
