//! Placement: topology in, replica sets out.
//!
//! *Place*: asked by `api` when a pool is made; the result travels in a command, where the state
//! machine checks it again.
//! *Owner*: pure functions.
//! *Invariants*: the replicas of a copyset are in distinct zones; stores carry replicas in
//! proportion to their weight; preferred leaders are spread alike. Of places that carry equally little, those are
//! taken that bring devices to the pool's scatter width, and then those that do not widen it.
//! *On failure*: too few zones is an error that names what is needed and what there is.

mod error;
mod plan;
mod scatter;
mod site;

pub use error::PlacementError;
pub use plan::{default_copysets, plan};
pub use scatter::{Scatter, Width};
pub use site::{Request, Site};
