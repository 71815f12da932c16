//! The control thread: tokio, beside the shards. Heartbeats, orders, metrics.
//!
//! *Place*: between the MDS (gRPC) and the shards (bounded channels).
//! *Owner*: one thread of its own; nothing here is on the I/O path.
//! *Invariants*: I/O goes on with every MDS down; an order of an older MDS term is refused.
//! *On failure*: an MDS that does not answer is tried again, with the next endpoint.

mod client;
mod drives;
mod http;
mod kernel_drives;
mod orders;
mod reports;
mod session;

pub(crate) use session::{ControlSetup, run};
