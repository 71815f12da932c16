//! Who was heard from, and what they reported.
//!
//! *Place*: filled by heartbeats in `api`, read by everything that tells what is so right now.
//! *Owner*: memory of the leading metadata server, behind its mutex; never replicated, since the
//! next heartbeats tell a new leader the same within a second.
//! *Invariants*: a report counts only while its chunkserver is online. Of changes the same comes as of whole reports.
//! *On failure*: a lost heartbeat makes a chunkserver offline after the configured time, no more.

mod chase;
mod demand;
mod pace;
mod strangers;
mod told;
mod tracker;

pub(crate) use chase::Behind;
pub(crate) use pace::{Bounds, Verdict};
pub(crate) use strangers::Strangers;
pub(crate) use told::{Account, Blocks, Changes, News, Told};
pub(crate) use tracker::{
    Heard, Leader, Liveness, LostBlocks, ReplicaState, ReplicaStatus, StoreState, StoreUsage,
};
