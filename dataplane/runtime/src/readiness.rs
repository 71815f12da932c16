//! Waiting until descriptors that are no sockets can be read.
//!
//! **Place.** Under `transport`'s RDMA port, whose events come through such descriptors. **Owner.** One task
//! of one executor.
//!
//! **Invariants.** What becomes readable after [`Readiness::changed`] was called last, or before the first call, ends
//! the next call; several descriptors and events count once. It may end for nothing: look, then wait.
//! Dropping the future loses no event. **Failure.** Errors of the system; it is then of no further use.

use std::io;
use std::os::fd::BorrowedFd;

use crate::engine::Watch;

/// Tells when one of a few descriptors has become readable.
pub struct Readiness {
    watch: Watch,
}

impl Readiness {
    /// Watches `descriptors`. They stay open for the kernel until this is dropped.
    ///
    /// # Errors
    /// When the kernel has no room for it, or is older than Linux 5.13.
    pub fn new(descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        Ok(Self {
            watch: Watch::new(descriptors)?,
        })
    }

    /// Ends when one of them has become readable.
    ///
    /// # Errors
    /// Of the system.
    pub async fn changed(&mut self) -> io::Result<()> {
        self.watch.changed().await
    }
}
