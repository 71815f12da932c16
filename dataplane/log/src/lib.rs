//! One shared write-ahead log per store, for all its Raft groups.
//!
//! *Place*: above `device`, beside `store`; `group/` maps openraft's log storage on it. It knows
//! nothing of Raft but that entries have a term and an index.
//! *Owner*: the executor (shard) that opened it. One task writes; everything else is plain calls.
//! *Invariants*:
//! * one serial stream per group for votes, entries, truncations and purges;
//! * a callback or completion reports success only when the record is durable;
//! * entries are written in batches, one device write for all groups (group commit);
//! * a payload that does not match its checksum is never returned;
//! * every queue and cache is bounded, in bytes;
//! * damage is of groups: the others go on.
//!
//! *On failure*: a failed write stops the log: it acknowledges nothing more. A torn tail, and only
//! that, is dropped. What is lost otherwise is told per group ([`GroupLog::damage`]), which takes
//! nothing new until it is whole again ([`GroupLog::repair`]).
//!
//! The on-disk format with its arguments stands in the `format` module's documentation.
//!
//! | module | holds |
//! |---|---|
//! | `log`, `group_log` | the API |
//! | `entry`, `damage`, `options`, `usage`, `counters`, `completion`, `error` | its values |
//! | `state` | the log in memory: accept, plan, apply |
//! | `group`, `facts`, `window` | one group: accepted and durable |
//! | `segments` | slots of the region, live counts, the end of the log |
//! | `queue`, `reservation`, `cache`, `signal` | what waits, or will, what stays in memory, who is woken |
//! | `flusher` | the task that writes |
//! | `reader` | entries back, verified |
//! | `placed` | payloads that lie in extents of the store |
//! | `recovery`, `chain`, `scan`, `replay`, `settle` | from the medium to groups |
//! | `format`, `head`, `batch`, `record`, `repeat` | bytes |

pub mod format;
pub mod limit;

mod batch;
mod cache;
mod chain;
mod completion;
mod core;
mod counters;
mod damage;
mod entry;
mod error;
mod facts;
mod flusher;
mod group;
mod group_log;
mod head;
mod log;
mod options;
mod placed;
mod queue;
mod reader;
mod record;
mod recovery;
mod repeat;
mod replay;
mod reservation;
mod scan;
mod segments;
mod settle;
mod signal;
mod state;
mod usage;
mod window;

pub use completion::Completion;
pub use counters::LogCounters;
pub use damage::{Damage, LostEntry};
pub use entry::{Entry, EntryRef, GroupState, LinkedEntry, Vote};
pub use error::{DamageReason, EntryPart, GeometryField, LogError};
pub use group_log::GroupLog;
pub use log::Log;
pub use options::{LogOptions, LogRegion};
pub use placed::Placed;
pub use reservation::Reservation;
pub use usage::{LogUsage, Pressure};
