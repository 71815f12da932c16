//! Orders to chunkservers.
//!
//! *Place*: asked by `api` for the answer to each heartbeat.
//! *Owner*: the leading metadata server, behind its mutex. Remembers only leader transfers, which
//! an operator asked for; all other orders follow from the metadata.
//! *Invariants*: orders are idempotent and repeated until the metadata or a report shows that
//! they are carried out. A replica that ever existed is never ordered again, and a copyset that
//! ever had a leader is never initialised again.
//! *On failure*: a lost order comes again with the next heartbeat; transfers are given up.

mod plan;

pub(crate) use plan::{Planned, Scheduler, TransfersFull};
