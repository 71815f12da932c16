//! Replication and persistence of the metadata.
//!
//! *Place*: between the handlers, which hold a [`RaftClient`], and the state machine.
//! *Owner*: one thread with its own runtime and `LocalSet`, since Raft is not `Send`. It also does
//! the disk writes: they are few and it has nothing better to do meanwhile.
//! *Invariants*: vote, entries, truncation and snapshot are on disk before they are acknowledged.
//! Readers get whole, immutable copies of the state.
//! *On failure*: a disk error stops Raft for good, and with it the metadata server; the error is
//! handed to whoever waits for it. Without a quorum, requests time out and say so.

mod client;
mod codec;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod ledger;
mod log_store;
mod machine;
mod members;
mod network;
mod node;
mod peer;
mod types;
mod versions;

pub(crate) use client::{Consistency, MemberRecord, Position, RaftClient, View, is_address};
pub(crate) use codec::digest;
pub use error::{LedgerError, NodeError};
pub(crate) use error::{MemberError, Older, PeerError, Unavailable, WriteError};
pub(crate) use ledger::{LEDGER_FILE, Ledger};
pub(crate) use members::MemberChange;
pub(crate) use node::{Node, NodeConfig};
pub(crate) use peer::{PeerCall, Sender};
