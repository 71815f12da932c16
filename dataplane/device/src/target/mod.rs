//! What is looked at before a path becomes a device.
//!
//! *Place*: under `uring`, at open only. *Owner*: the shard that opens; these are a few blocking
//! system calls, made before any request is served.
//! *Invariants*: what is opened exists, is a file or a block device of whole blocks, carries no
//! mounted file system, and is claimed by no one else.
//! *On failure*: the error says which of these does not hold. A file made by a failed open is
//! removed again.

#[cfg(not(ogee_sim))]
mod claim;
#[cfg(not(ogee_sim))]
mod holder;
#[cfg(not(ogee_sim))]
mod inspect;
#[cfg(not(ogee_sim))]
mod mount;
mod options;
#[cfg(ogee_sim)]
mod simulated;

#[cfg(not(ogee_sim))]
pub(crate) use claim::Claim;
#[cfg(not(ogee_sim))]
pub(crate) use inspect::Target;
pub use options::OpenOptions;
#[cfg(ogee_sim)]
pub(crate) use simulated::{Claim, Target};
