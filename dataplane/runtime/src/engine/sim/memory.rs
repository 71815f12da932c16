//! Aligned memory without a device behind it.
//!
//! **Place.** Under `Buffer` and `ReadBuffer`. **Owner.** The value. **Invariants.** Aligned as on
//! the real engine, so that checks of alignment mean something in simulation. **Failure.** None.

use std::rc::Rc;

use crate::limit::BUFFER_ALIGNMENT;

/// Writable aligned memory: an over-long vector that is never moved, and where to start in it.
pub(crate) struct Memory {
    bytes: Vec<u8>,
    start: usize,
    capacity: usize,
}

impl Memory {
    pub(crate) fn new(capacity: usize) -> Self {
        let bytes = vec![0xa5; capacity + BUFFER_ALIGNMENT];
        let start = bytes.as_ptr().addr().wrapping_neg() % BUFFER_ALIGNMENT;
        Self {
            bytes,
            start,
            capacity,
        }
    }

    /// There are no network adapters here.
    pub(crate) const fn of_transfers(_capacity: usize) -> Option<Self> {
        None
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.capacity]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.capacity]
    }
}

/// Result of a read, shared.
#[derive(Clone)]
pub(crate) struct ReadMemory(Rc<[u8]>);

impl ReadMemory {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}
