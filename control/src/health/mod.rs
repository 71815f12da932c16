//! What is wrong right now.
//!
//! *Place*: between the metadata and reports below, and `metrics` and `api` above, which both
//! tell of it.
//! *Owner*: pure functions.
//! *Invariants*: codes are stable and each has a remedy; the detail names a few examples, however
//! many there are.
//! *On failure*: what was not reported counts as not there.

mod assess;
mod change;
mod drive;
mod explain;
mod lost;
mod maintenance;
mod metadata;
mod paused;
mod repairs;
mod reset;
mod restored;
mod sick;

pub(crate) use assess::{Severity, Sight, assess};
pub(crate) use change::Seen;
pub use explain::{EXPLANATIONS, Explanation};
