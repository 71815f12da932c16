//! The metadata servers over gRPC.
//!
//! *Place*: the production [`Control`](crate::Control); also what command-line tools talk through.
//! *Owner*: [`MdsClient`] belongs to a tokio runtime; [`MdsHandle`] starts one on a thread of its
//! own and is reached from shards over a bounded bridge.
//! *Invariants*: a call that may not be repeated is sent again only if it provably was not
//! executed. Queue, calls under way and known endpoints are bounded.
//! *On failure*: [`ControlError`] keeps the code, cause and remedy that the metadata server gave.
//!
//! | module | holds |
//! |---|---|
//! | `client` | [`MdsClient`]: endpoints, failover, redirects, retries |
//! | `volumes`, `topology`, `members` | its calls, one method each |
//! | `handle` | [`MdsHandle`]: the thread and the bridge |
//! | `convert` | messages → checked values |
//! | `error` | [`ControlError`] |

mod client;
mod convert;
mod error;
mod handle;
mod members;
mod topology;
mod volumes;

pub use client::{MdsClient, MdsConfig};
pub use error::{ControlError, Refusal};
pub use handle::MdsHandle;
