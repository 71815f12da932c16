//! Placement: topology in, replica sets out.
//!
//! *Place*: asked by `api` when a pool is made; the result travels in a command, where the state
//! machine checks it again.
//! *Owner*: pure functions.
//! *Invariants*: the replicas of a copyset are in distinct zones; stores carry replicas in
//! proportion to their weight; preferred leaders are spread alike.
//! *On failure*: too few zones is an error that names what is needed and what there is.

mod error;
mod plan;
mod site;

pub use error::PlacementError;
pub use plan::{default_copysets, plan};
pub use site::{Request, Site};
