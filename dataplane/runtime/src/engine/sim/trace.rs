//! A fingerprint of everything that has happened.
//!
//! **Place.** Fed by the executor and the network. **Owner.** The world. **Invariants.** Equal runs
//! have equal sums; different ones practically never. **Failure.** None.

use std::time::Duration;

/// FNV-1a's prime and offset basis for 64 bits.
const PRIME: u64 = 0x0100_0000_01b3;
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;

#[derive(Debug)]
pub(super) struct Trace {
    sum: u64,
    steps: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            sum: BASIS,
            steps: 0,
        }
    }
}

impl Trace {
    /// A task was polled.
    pub(super) fn poll(&mut self, at: Duration, task: usize) {
        self.steps += 1;
        self.add(at.as_secs());
        self.add(u64::from(at.subsec_nanos()));
        self.add(task as u64);
    }

    /// A word more.
    fn add(&mut self, word: u64) {
        self.sum = (self.sum ^ word).wrapping_mul(PRIME).rotate_left(23);
    }

    pub(super) const fn sum(&self) -> (u64, u64) {
        (self.sum, self.steps)
    }
}
