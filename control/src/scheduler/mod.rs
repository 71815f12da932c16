//! Orders to chunkservers.
//!
//! *Place*: asked by `api` for the answer to each heartbeat.
//! *Owner*: the leading metadata server, behind its mutex. Remembers only leader transfers, which
//! an operator asked for by hand; all other orders follow from the metadata and its jobs, which
//! `heal`, `spread` and `balance` plan.
//! *Invariants*: orders are idempotent and repeated until the metadata or a report shows that
//! they are carried out. A replica that ever existed is never ordered again, and a copyset that
//! ever had a leader is never initialised again.
//! *On failure*: a lost order comes again with the next heartbeat; transfers are given up.

mod balance;
#[cfg(test)]
mod balance_tests;
mod emptying;
mod exchange;
mod heal;
#[cfg(test)]
mod heal_tests;
mod loads;
mod picture;
mod plan;
mod replica_set;
mod sick;
mod spread;
#[cfg(test)]
mod spread_tests;

pub(crate) use balance::{Handover, Standing, balance, is_steady};
pub(crate) use emptying::{Leaving, Obstacle, emptying};
#[cfg(any(test, feature = "scale"))]
pub(crate) use heal::whole_plan;
pub(crate) use heal::{leaders_off_all, leads_live, plan, troubled, wish};
pub(crate) use loads::{Loads, is_beside};
pub(crate) use picture::{Bytes, HealRules, Picture, Presence};
pub(crate) use plan::{Affairs, Planned, Scheduler, TransfersFull};
pub use sick::SickRules;
pub(crate) use sick::{Hindrance, hindrance, is_overdue, is_tried};
pub(crate) use spread::{moves_live, spread};
