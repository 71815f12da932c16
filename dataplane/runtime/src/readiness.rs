//! Waiting until descriptors that are no sockets can be read.
//!
//! **Place.** Under `transport`'s RDMA port, whose events come through such descriptors. **Owner.** One task
//! of one executor.
//!
//! **Invariants.** A call ends when a descriptor is readable, or has become so since the last call; several
//! descriptors and events count once. It may end for nothing: look, then wait. Dropping the future loses no event.
//! **Failure.** Errors of the system; it is then of no further use.

use std::io;
use std::os::fd::BorrowedFd;

use crate::engine::Watch;

/// Tells when one of a few descriptors is readable.
pub struct Readiness {
    watch: Watch,
}

impl Readiness {
    /// Watches `descriptors`. They stay open for the kernel until this is dropped.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub fn new(descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        Ok(Self {
            watch: Watch::new(descriptors)?,
        })
    }

    /// Ends when one of them is readable: a bit for each that is, the lowest for the first one. Of one whose bit was told,
    /// take all that there is before the next call, which looks at it anew.
    ///
    /// # Errors
    /// Of the system.
    pub async fn changed(&mut self) -> io::Result<u32> {
        self.watch.changed().await
    }
}
