//! Waiting for a drive's interrupts.
//!
//! *Place*: of the pump. *Owner*: the pump. *Invariants*: what made it ring is taken before the queue is looked at, so what
//! completes behind that look rings anew. A bell that says nothing is no reason to wait for ever: the pump looks anyway,
//! every so often. *On failure*: of the system, when it is made or rings; then the drive is polled.

use super::port::Port;
#[cfg(not(ogee_sim))]
use ogee_runtime::Readiness;
use std::io;

/// See the module.
pub(super) struct Bell {
    #[cfg(not(ogee_sim))]
    readiness: Readiness,
}

impl Bell {
    /// That of a drive, if it has one.
    #[cfg(not(ogee_sim))]
    pub(super) fn of(port: &Port) -> io::Result<Option<Self>> {
        let Some(descriptor) = port.descriptor() else {
            return Ok(None);
        };
        let readiness = Readiness::new(&[descriptor])?;
        Ok(Some(Self { readiness }))
    }

    /// Drives are not simulated.
    #[cfg(ogee_sim)]
    pub(super) fn of(_: &Port) -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// Waits until it rings.
    #[cfg(not(ogee_sim))]
    pub(super) async fn rung(&mut self) -> io::Result<()> {
        self.readiness.changed().await.map(drop)
    }

    #[cfg(ogee_sim)]
    pub(super) async fn rung(&mut self) -> io::Result<()> {
        std::future::pending().await
    }
}
