//! A decorator that makes another device fail on purpose.
//!
//! *Place*: between any device and its user, in tests and the simulator. *Owner*: the shard of the
//! device; the control shares its rules.
//! *Invariants*: with no rule it changes nothing. Rules are asked in the order they were added; a
//! request meets every rule that matches it.
//! *On failure*: a request that a rule fails does not reach the device below, and the error is the
//! one that a real device gives.

mod control;
mod device;
mod plan;
mod rules;

pub use control::{FaultControl, FaultCounts};
pub(crate) use device::FaultDevice;
pub use plan::{Failure, FaultPlan, FaultRule};
pub use rules::RuleId;
