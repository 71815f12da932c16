//! The control plane: a metadata server (MDS), one or three of them.
//!
//! *Place*: beside the data path, never on it. Operators and clients ask it over gRPC;
//! chunkservers register, heartbeat and take orders. Imports `ogee-proto` and nothing else of ours.
//! *Owner*: one thread owns Raft and the metadata; one thread serves gRPC and HTTP. They meet in
//! two bounded channels. Tokio runs on both; this crate never runs on a shard.
//! *Invariants*: metadata changes only by committed commands, applied in order by a deterministic
//! state machine; what was acknowledged is on disk on a majority of the metadata servers.
//! *On failure*: a metadata server that cannot write its disk stops; attached volumes keep working
//! with every metadata server down.
//!
//! Lowest first; a module imports only those above it:
//!
//! | module | holds |
//! |---|---|
//! | [`state`] | the metadata and the commands that change it |
//! | [`placement`] | topology in, replica sets out |
//! | `raft` | replication and persistence of the metadata |
//! | `liveness` | who was heard from, and what they reported |
//! | `scheduler` | orders to chunkservers |
//! | `health` | what is wrong right now |
//! | `metrics` | counters and gauges |
//! | `backup` | the metadata as a file, and back |
//! | `api` | the gRPC services, `/metrics` and `/healthz` |

mod api;
mod backup;
mod config;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod health;
mod limit;
mod liveness;
mod mds;
mod metrics;
pub mod placement;
mod raft;
#[cfg(any(test, feature = "scale"))]
pub mod scale;
mod scheduler;
pub mod state;

pub use backup::{Backup, BackupError, BackupHead, Restore, restore};
pub use config::{MdsConfig, Member};
pub use error::MdsError;
pub use health::{EXPLANATIONS, Explanation};
pub use mds::{Mds, MdsHandle, Stopper};
pub use raft::{LedgerError, NodeError};
pub use scheduler::SickRules;
