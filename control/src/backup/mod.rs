//! The metadata as a file, and a new group of metadata servers from one.
//!
//! *Place*: beside `api`, which sends one, and `mds`; the `ogee` binary reads and restores.
//! *Owner*: pure functions, but for [`restore`], which writes a data directory.
//! *Invariants*: a file is taken only if every byte is what was written; a data directory that is not
//! empty is never written to; what is restored never issues again what may have been issued after the
//! backup.
//! *On failure*: nothing is left behind that would start as half a metadata server.

mod error;
mod format;
mod restore;

pub use error::BackupError;
pub(crate) use format::encode;
pub use format::{Backup, BackupHead};
pub use restore::{Restore, restore};
