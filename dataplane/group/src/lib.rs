//! Raft groups on a shard: openraft glued to our log, store, transport and runtime.
//!
//! *Place*: above `log` and `store` (the only layer that sees both), below `shard`. A write comes in
//! as a [`Command`], is replicated, and takes effect in apply, which is admission: memory only. The
//! blocks then live in the log, indexed by the overlay, until the store's keeper writes them back.
//! *Owner*: one shard. Nothing here is `Send`.
//! *Invariants*: openraft's types do not leave this crate. An answer is given only after the entry
//! is durable on a majority and applied here. A checkpoint is exactly the state as of its entry.
//! *On failure*: a device error stops the groups of its store; see [`GroupError`].
//!
//! | module | holds |
//! |---|---|
//! | `group`, `members` | requests in, outcomes out; transfer, reports; who belongs to it |
//! | `command`, `session`, `overlay`, `state` | the replicated state and how entries change it |
//! | `replica`, `checkpoint` | one replica's share: log, store, state, last checkpoint |
//! | `read`, `digest` | reading it |
//! | `compare`, `gate` | whether all replicas hold the same, piece by piece |
//! | `linearizer`, `lease`, `acks` | whether a read may be served |
//! | `followers` | who is too far behind for the log |
//! | `keeper`, `burst` | write-back, checkpoints, purge: one task per store |
//! | `room` | what acknowledged writes will take of the store |
//! | `pacer` | how fast writers may fill the log meanwhile |
//! | `machine`, `log_store`, `network`, `rt`, `types`, `codec` | openraft's interfaces |
//! | `append`, `election`, `snapshot` | the answering side of Raft's messages |
//! | `reset` | a group whose majority is lost goes on with one replica |
//! | `mend`, `entries` | a damaged log, made whole by the other replicas |
//! | `metrics` | time per stage |
//! | `watch`, `quiet`, `beat` | idle groups: no ticks, one keepalive per peer for all of them |
//! | `succession` | a leader whose process is gone is not waited for |
//! | `decline` | a leader with damaged blocks lets another one lead |
//! | `seldom` | what a leader tries again only after a while |
//! | `looks` | when periodic tasks look |
//! | `peers` | where the other replicas are |

mod acks;
mod append;
mod beat;
mod burst;
mod changes;
mod checkpoint;
mod codec;
mod command;
mod compare;
mod config;
mod decline;
mod digest;
mod election;
mod entries;
mod error;
mod followers;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gate;
mod group;
mod growth;
mod held;
mod keeper;
mod lease;
mod limit;
mod linearizer;
mod log_store;
mod looks;
mod lost;
mod machine;
mod members;
mod mend;
mod metrics;
mod network;
mod overdraft;
mod overlay;
mod pacer;
mod peers;
mod quiet;
mod read;
mod repair;
mod replica;
mod reset;
mod room;
mod rt;
mod seldom;
mod session;
mod snapshot;
mod space;
mod state;
mod succession;
mod types;
mod watch;

#[cfg(test)]
mod codec_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod log_suite;

pub use command::{Applied, Command, CommandHead, CommandKind, PayloadRef};
pub use compare::{ASK_PIECE, Compared, Place};
pub use config::{GroupConfig, GroupConfigError};
pub use digest::{ChunkDigest, GroupDigest};
pub use error::GroupError;
pub use group::{Group, GroupParams, GroupReport, Outcome, command};
pub use held::VolumeHeld;
pub use keeper::{KeeperMetrics, StoreKeeper};
pub use lost::LostBlocks;
pub use mend::{MendState, Mender};
pub use metrics::{BUCKETS, FoundBy, GroupMetrics, Histogram, HistogramSnapshot, Repaired};
pub use peers::PeerBook;
pub use read::ReadRun;
pub use snapshot::CopyBudget;
pub use types::ReplicaNode;
pub use watch::Watch;
